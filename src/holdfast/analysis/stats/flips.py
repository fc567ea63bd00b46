"""Items whose answers changed: against the base, and when one model is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from holdfast.analysis.stats.crossed import Values


class Flips(NamedTuple):
    """Items that changed sides against the base: 1 to 0 is lost, 0 to 1 is won.

    Attributes:
        lost: with several seeds, items right less often in the runs than in the base.
        won: the other way round.
        n: items scored by the base and by a run at least.
        p: two-sided and exact.
    """

    lost: int
    won: int
    n: int
    p: float


def flips(base: Values, tuned: Values) -> Flips:
    """Count the flips, and test them against "base and runs are alike".

    One run: McNemar's exact test (1947, Psychometrika 12:153-157). Several runs: its form for one
    base against several runs, exact and conditional on how many of an item's answers are right.
    Were base and runs alike, the base would be right with probability k/m where k of the item's m
    answers are right, so the number of right answers of the base is a sum of independent draws with
    known probabilities (Breslow & Day 1980, vol. I, ch. 5: matched sets of 1 and M). It speaks of
    these very runs: whether training again would do the same is a matter for `paired_p`.

    A sign test on each item's net change would be wrong here: with three seeds, an item that is
    right nine times of ten before and after loses net with chance 0.24 and wins with 0.10.

    Args:
        base: shape (items,), NaN where unscored; fractions of 0.5 and more count as ones.
        tuned: shape (seeds, items), the same items in the same order.
    """
    used = ~np.isnan(base) & (~np.isnan(tuned)).any(axis=0)
    before, after = base[used] >= 0.5, tuned[:, used]
    scored = ~np.isnan(after)
    right = np.where(scored, after >= 0.5, False)
    net = right.sum(axis=0) - before * scored.sum(axis=0)
    chances = (before + right.sum(axis=0)) / (1 + scored.sum(axis=0))
    p = _two_sided(int(before.sum()), chances)
    return Flips(int((net < 0).sum()), int((net > 0).sum()), int(used.sum()), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that one false alarm among all is as rare as a single one was.

    Holm 1979 (Scand. J. Stat. 6:65-70): the i-th smallest of m is multiplied by m - i + 1; none
    becomes smaller than one before it, none exceeds 1.

    Args:
        p_values: one per claim, in any order; the answer has the same order.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.array(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped)) if len(order) else stepped
    return [float(one) for one in adjusted]


def _two_sided(seen: int, chances: Values) -> float:
    """Twice the smaller tail of a sum of independent draws of one with these chances."""
    certain = int((chances >= 1).sum())
    open_chances = chances[(chances > 0) & (chances < 1)]
    if (open_chances == 0.5).all():  # always so with one run
        return _binomial(seen - certain, len(open_chances))
    mass = np.ones(1)
    for chance in open_chances:
        mass = np.append(mass * (1 - chance), 0.0) + np.append(0.0, mass * chance)
    at = seen - certain
    return float(min(1.0, 2 * min(mass[: at + 1].sum(), mass[at:].sum())))


def _binomial(seen: int, draws: int) -> float:
    """The same for fair coins, in whole numbers."""
    term, below = 1, 0
    for one in range(min(seen, draws - seen) + 1):
        below += term
        term = term * (draws - one) // (one + 1)
    return float(min(1.0, 2 * below / 2**draws))


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
