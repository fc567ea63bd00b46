"""Which loss can be seen with so many items, and how many items does a margin take?

Before and after a model is tuned the same items are asked, so that only those count whose answers
change: *lost* ones and *won* ones. A model that changes nothing on the whole still flips some. With
one training the chances below are exact for the tests that are used (McNemar's, and Tango's
interval, see `intervals`): all counts of flips that may come up are gone through. With several, the
variance of seeds and items is put together as in `crossed`, and the chance is a t distribution's.
Simulations of both are in `tests/analysis/test_detectable.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.analysis.stats.intervals import keeps

POWER, LEVEL = 0.8, 0.95
"""How often a loss is to be seen, and the level of the intervals."""
MOST = 1_000_000
"""More items than this are no answer."""
TAIL = 1e-9
"""Chance of counts of flips that are left out."""
SPREAD = 0.03
"""By how much a task's mean is taken to differ between trainings (standard deviation), where it was
not observed; the frontier expects the same."""
STEP = 1e-4
"""Losses are found to a hundredth of a point."""


@dataclass(frozen=True, slots=True)
class Design:
    """How a task is measured, and how much its answers flip although nothing is lost on the whole.

    Attributes:
        items: asked before and after.
        churn: share of the items that are lost, and as large a share that is won, when nothing is
            lost on the whole.
        seeds: trainings; with one the answer speaks of that training alone.
        spread: standard deviation of the true mean between trainings; only with several.
        common: share of the flips' variance that all trainings have in common.
    """

    items: int
    churn: float
    seeds: int = 1
    spread: float = SPREAD
    common: float = 0.5

    def with_items(self, items: int) -> Design:
        """The same with another number of items."""
        return Design(items, self.churn, self.seeds, self.spread, self.common)


def chance_seen(design: Design, loss: float, level: float = LEVEL) -> float:
    """How often the interval of a true loss lies wholly below 0.

    Args:
        design: see there.
        loss: share of the items, above 0.
        level: of the interval.
    """
    if design.seeds > 1:
        return _by_t(design, loss, 0.0, level)
    return _exact(design, loss, 0.0, level)


def chance_kept(design: Design, margin: float, loss: float = 0.0, level: float = LEVEL) -> float:
    """How often the worse end of the interval does not lie below minus the margin.

    Args:
        design: see there.
        margin: loss that is allowed, as a share above 0.
        loss: that there really is; 0: nothing.
        level: of the interval.
    """
    if design.seeds > 1:
        return _by_t(design, loss, margin, level)
    return _exact(design, loss, margin, level)


def smallest_loss(design: Design, power: float = POWER, level: float = LEVEL) -> float | None:
    """The smallest true loss that is seen so often; None: not even a loss of all there is to lose.

    Args:
        design: see `Design`.
        power: how often it is to be seen.
        level: of the interval.
    """
    low, high = 0.0, 1 - 2 * design.churn
    if high <= 0 or chance_seen(design, high, level) < power:
        return None
    while high - low > STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if chance_seen(design, middle, level) >= power else (middle, high)
    return high


def items_to_see(
    design: Design, loss: float, power: float = POWER, level: float = LEVEL
) -> int | None:
    """About how many items show a true loss so often; None: more than a million, or no number."""
    return _fewest(lambda one: chance_seen(one, loss, level) >= power, design)


def items_for_margin(
    design: Design, margin: float, power: float = POWER, level: float = LEVEL
) -> int | None:
    """About how many items show so often that a model which lost nothing keeps a margin.

    None: more than a million, or no number of items, because trainings differ by too much.
    """
    return _fewest(lambda one: chance_kept(one, margin, 0.0, level) >= power, design)


def _fewest(enough: Callable[[Design], bool], design: Design) -> int | None:
    """The number from which on it is enough, to one in a hundred."""
    few, many = 1, 16
    while not enough(design.with_items(many)):
        few, many = many, 2 * many
        if many > MOST:
            return None
    while many - few > max(1, few // 100):
        middle = (few + many) // 2
        few, many = (few, middle) if enough(design.with_items(middle)) else (middle, many)
    return many


def _exact(design: Design, loss: float, margin: float, level: float) -> float:
    """One training: the chance over all counts of flips.

    With a margin of 0 the interval is to lie below 0 (a loss is seen); else its lower end is not to
    lie below minus the margin (it is kept).
    """
    from scipy.stats import binom

    n, lost_share = design.items, design.churn + loss
    flipped = lost_share + design.churn
    if flipped <= 0:
        counts = np.array([0])
        chances = np.ones(1)
    else:
        few, most = binom.ppf([TAIL, 1 - TAIL], n, min(1.0, flipped)).astype(int)
        counts = np.arange(few, most + 1)
        chances = binom.pmf(counts, n, min(1.0, flipped))
    share = lost_share / flipped if flipped > 0 else 0.0
    if margin == 0:
        enough = _fewest_lost(counts, level)
        return float((chances * binom.sf(enough - 1, counts, share)).sum())
    most_lost = _most_lost(counts, n, margin, level)
    return float((chances * binom.cdf(most_lost, counts, share)).sum())


def _fewest_lost(counts: NDArray[np.int64], level: float) -> NDArray[np.float64]:
    """Of so many flips, how many must be losses for a loss to be seen: exactly and by the score."""
    from scipy.stats import binom, norm

    exact = binom.isf((1 - level) / 2, counts, 0.5) + 1
    score = (counts + norm.ppf(0.5 + level / 2) * np.sqrt(counts)) / 2
    return np.asarray(np.maximum(exact, np.floor(score) + 1), dtype=np.float64)


def _most_lost(
    counts: NDArray[np.int64], n: int, margin: float, level: float
) -> NDArray[np.float64]:
    """Of so many flips, how many may be losses so that the interval keeps the margin; -1: none."""
    found, lost = np.empty(len(counts)), -1
    for place, flips in enumerate(map(int, counts)):  # changes little from one count to the next
        lost = min(lost, flips)
        while lost >= 0 and not keeps(lost, flips - lost, n, -margin, level):
            lost -= 1
        while lost < flips and keeps(lost + 1, flips - lost - 1, n, -margin, level):
            lost += 1
        found[place] = lost
    return found


def _by_t(design: Design, loss: float, margin: float, level: float) -> float:
    """Several trainings: variance of seeds and items, and a t quantile between those of the two."""
    from scipy.stats import nct, t

    s, n = design.seeds, design.items
    flips = max(0.0, 2 * design.churn + loss - loss**2)
    seeds = design.spread**2 / s + (1 - design.common) * flips / (n * s)
    items = design.common * flips / n
    variance = seeds + items
    if variance <= 0:
        return float(loss > margin) if margin == 0 else float(loss < margin)
    upper, share = 0.5 + level / 2, seeds / variance
    of_items = t.ppf(upper, max(1, n - 1)) ** 2
    quantile = math.sqrt(of_items + (t.ppf(upper, s - 1) ** 2 - of_items) * share**1.5)
    freedom = variance**2 / (seeds**2 / (s - 1) + items**2 / max(1, n - 1))
    away = (loss if margin == 0 else margin - loss) / math.sqrt(variance)
    return float(nct.sf(quantile, freedom, away))
