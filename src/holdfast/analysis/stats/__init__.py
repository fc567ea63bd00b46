"""Intervals, tests and effect sizes for shares measured on the same items.

Values are shares of ones: 1 is good, 0 is bad, NaN is unscored and takes no part. All intervals are
95 % unless `level` says otherwise; where anything is drawn at random, the seed is an argument.
"""

from holdfast.analysis.stats.continual import (
    average_accuracy,
    forward_transfer,
    stage_backward_transfer,
    stage_forgetting,
)
from holdfast.analysis.stats.crossed import Values
from holdfast.analysis.stats.dose import DosePoint, DoseResponse, dose_response
from holdfast.analysis.stats.equal_gain import AtCommon, Curve, at_gain, at_loss
from holdfast.analysis.stats.flips import Flips, NoiseFloor, flips, holm, noise_floor
from holdfast.analysis.stats.forgetting import (
    backward_transfer,
    forgetting,
    retained_share,
    sample_backward_transfer,
    sample_forgetting,
)
from holdfast.analysis.stats.intervals import (
    Interval,
    is_share,
    mean_of,
    mean_of_each,
    mean_over_seeds,
    paired_difference,
    paired_p,
    wilson,
    worse_end,
)

__all__ = [
    "AtCommon",
    "Curve",
    "DosePoint",
    "DoseResponse",
    "Flips",
    "Interval",
    "NoiseFloor",
    "Values",
    "at_gain",
    "at_loss",
    "average_accuracy",
    "backward_transfer",
    "dose_response",
    "flips",
    "forgetting",
    "forward_transfer",
    "holm",
    "is_share",
    "mean_of",
    "mean_of_each",
    "mean_over_seeds",
    "noise_floor",
    "paired_difference",
    "paired_p",
    "retained_share",
    "sample_backward_transfer",
    "sample_forgetting",
    "stage_backward_transfer",
    "stage_forgetting",
    "wilson",
    "worse_end",
]
