"""What differs when the same model is asked again?"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from holdfast.analysis.stats.crossed import Values


class NoiseFloor(NamedTuple):
    """What repeated askings of one model differ by.

    Attributes:
        flipped: share of items whose value differs between two askings, mean over all pairs.
        difference: largest difference between the means of two askings.
    """

    flipped: float
    difference: float


def noise_floor(repeats: Values) -> NoiseFloor:
    """Compare every asking with every other, on the items that both scored.

    A change that is no larger says nothing. It is a floor and no interval: it does not speak of
    other items or of other trainings.

    Args:
        repeats: shape (askings, items), NaN where unscored; the same items in the same order.

    Raises:
        ValueError: fewer than two askings, or two that share no scored item.
    """
    if len(repeats) < 2:
        raise ValueError(f"repeats: {len(repeats)} asking; noise needs two or more.")
    flipped, differences = [], []
    for one, other in combinations(repeats, 2):
        change = (other - one)[~np.isnan(other - one)]
        if not len(change):
            raise ValueError("repeats: two askings have no scored item in common.")
        flipped.append(float((change != 0).mean()))
        differences.append(abs(float(change.mean())))
    return NoiseFloor(float(np.mean(flipped)), max(differences))
