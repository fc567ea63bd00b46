"""Measures of forgetting: share lost, share retained, backward transfer, lost and won items.

Every measure compares the untouched model with runs of one training, on the same items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from holdfast.analysis.stats.crossed import Values, estimate
from holdfast.analysis.stats.intervals import Interval, mean_of, mean_over_seeds, paired_difference


def forgetting(base: Values, tuned: Values) -> Interval:
    """The share lost: mean of base - tuned; positive is forgotten.

    Chaudhry et al. 2018 (arXiv:1801.10112, eq. 3) take the best accuracy of any earlier stage less
    the one now. A study here has one stage before training, the base, so that is the best.

    Args:
        base: shape (items,), NaN where unscored.
        tuned: shape (seeds, items), the same items in the same order.
    """
    mean, low, high, n, unscored = paired_difference(base, tuned)
    if mean is None or low is None or high is None:
        return Interval(None, None, None, n, unscored)
    return Interval(-mean, -high, -low, n, unscored)


def backward_transfer(tasks: Sequence[tuple[Values, Values]]) -> Interval:
    """What training does to the abilities it was not for: mean change over the retained tasks.

    BWT of Lopez-Paz & Ranzato 2017 (arXiv:1706.08840): the mean over earlier tasks of the accuracy
    after all training less the one before it; negative is forgetting. Tasks weigh alike, whatever
    their sizes. The same seeds trained all of them, so a seed's shifts are averaged over tasks
    before they are compared.

    Args:
        tasks: a pair for each retained task: base (items,) and tuned (seeds, items).
    """
    if len(tasks) == 1:
        return paired_difference(*tasks[0])
    return mean_of([tuned - base[None, :] for base, tuned in tasks])


def retained_share(base: Values, tuned: Values, level: float = 0.95) -> Interval:
    """How much is left of what was there: share after divided by share before, on paired items.

    The interval is Fieller's (1954, J. R. Stat. Soc. B 16:175-185): all ratios r for which the mean
    of tuned - r x base may be 0, by the crossed variance of seeds and items.

    Args:
        base: shape (items,), NaN where unscored.
        tuned: shape (seeds, items), the same items in the same order.
        level: confidence.

    Returns:
        Mean None where the base has nothing right; bounds None where its share is too close to 0
        for the ratio to be bounded.
    """
    both = np.where(np.isnan(tuned), np.nan, base[None, :])
    after = np.where(np.isnan(both), np.nan, tuned)
    tables = [after - both, after, both]
    change, top, bottom = (estimate([one]) for one in tables)
    if change is None or top is None or bottom is None:
        return Interval(None, None, None, 0, tuned.size)
    if bottom.mean <= 0:
        return Interval(None, None, None, change.n, change.unscored)
    ratio = top.mean / bottom.mean
    found = estimate([after - ratio * both])
    assert found is not None  # the same cells as above
    if found.variance <= 0:
        slack = -math.log(1 - level) / found.n / bottom.mean
        low, high = ratio - slack, ratio + slack
        return Interval(ratio, max(0.0, low), high, found.n, found.unscored)
    reach = found.quantile(1 - level) ** 2
    cross = (top.variance + bottom.variance - change.variance) / 2
    square = bottom.mean**2 - reach * bottom.variance
    middle = top.mean * bottom.mean - reach * cross
    rest = top.mean**2 - reach * top.variance
    inner = middle**2 - square * rest
    if square <= 0 or inner < 0:
        return Interval(ratio, None, None, found.n, found.unscored)
    low, high = ((middle + sign * math.sqrt(inner)) / square for sign in (-1, 1))
    return Interval(ratio, max(0.0, low), high, found.n, found.unscored)


def sample_forgetting(base: Values, tuned: Values, options: int | None = None) -> Interval:
    """Share of all items that were right before and are wrong after (1 to 0).

    Unlike `forgetting` it is not made up for by other items that were won (Harmon et al. 2025,
    arXiv:2510.17776). Where an answer can be guessed, some flips are luck: with k options, a model
    that knows or guesses evenly is right by luck on (1 - a)/(k - 1) of the items at accuracy a, so
    (1 - before)(1 - after)/(k - 1) is taken off, and less than nothing counts as 0.

    Args:
        base: shape (items,), NaN where unscored.
        tuned: shape (seeds, items), the same items in the same order.
        options: answers to choose from in a multiple-choice task; None where none can be guessed.
    """
    return _moved(base[None, :] * (1 - tuned), base, tuned, options)


def sample_backward_transfer(base: Values, tuned: Values, options: int | None = None) -> Interval:
    """Share of all items that were wrong before and are right after (0 to 1).

    Source, arguments and the part of chance as in `sample_forgetting`.

    Args:
        base: shape (items,), NaN where unscored.
        tuned: shape (seeds, items), the same items in the same order.
        options: answers to choose from in a multiple-choice task; None where none can be guessed.
    """
    return _moved((1 - base[None, :]) * tuned, base, tuned, options)


def _moved(moved: Values, base: Values, tuned: Values, options: int | None) -> Interval:
    if options is None or np.isnan(moved).all():
        return mean_over_seeds(moved)
    if options < 2:
        raise ValueError(f"options: {options}; a choice has at least two answers.")
    scored = ~np.isnan(moved)
    wrong_before = np.where(scored, 1 - base[None, :], np.nan)
    wrong_after = np.where(scored, 1 - tuned, np.nan)
    before, after = float(np.nanmean(wrong_before)), float(np.nanmean(wrong_after))
    # Each cell's part in the product of two means, to first order, so that its spread counts too.
    luck = (wrong_before * after + wrong_after * before - before * after) / (options - 1)
    mean, low, high, n, unscored = mean_of([moved - luck])
    clipped = [None if one is None else max(0.0, one) for one in (mean, low, high)]
    return Interval(clipped[0], clipped[1], clipped[2], n, unscored)
