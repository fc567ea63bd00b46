"""How sure are we of what a study found?

Values are shares of ones: 1 is good, 0 is bad, NaN is unscored and takes no part. All intervals are
95 % unless `level` says otherwise; where anything is drawn at random, the seed is an argument.
"""

from holdfast.analysis.stats.crossed import Values
from holdfast.analysis.stats.dose import DosePoint, DoseResponse, dose_response
from holdfast.analysis.stats.flips import Flips, flips, holm
from holdfast.analysis.stats.forgetting import (
    backward_transfer,
    forgetting,
    retained_share,
    sample_backward_transfer,
    sample_forgetting,
)
from holdfast.analysis.stats.intervals import (
    Interval,
    mean_over_seeds,
    paired_difference,
    paired_p,
    wilson,
)
from holdfast.analysis.stats.noise import NoiseFloor, noise_floor

__all__ = [
    "DosePoint",
    "DoseResponse",
    "Flips",
    "Interval",
    "NoiseFloor",
    "Values",
    "backward_transfer",
    "dose_response",
    "flips",
    "forgetting",
    "holm",
    "mean_over_seeds",
    "noise_floor",
    "paired_difference",
    "paired_p",
    "retained_share",
    "sample_backward_transfer",
    "sample_forgetting",
    "wilson",
]
