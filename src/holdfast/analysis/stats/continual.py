"""Measures of tasks that are learned one after the other: transfer, forgetting, average accuracy.

R[i, j] is the accuracy on task j after stage i, of T stages; row 0 is the untouched model, which
stands for the random one of the papers. Lopez-Paz & Ranzato 2017 (arXiv:1706.08840, section 2):
ACC = mean of R[T, j]; BWT = mean over j < T of R[T, j] - R[j, j]; FWT = mean over j > 1 of
R[j - 1, j] - R[0, j]. Chaudhry et al. 2018 (arXiv:1801.10112, equation 3): F = mean over j < T of
(the largest R[l, j] with 1 <= l < T) - R[T, j]. Tasks weigh alike, whatever their sizes.

Every one but ACC is a mean of paired differences: on the same items, of the same trainings. Items
of different tasks are independent, seeds are shared by all (`crossed.estimate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from holdfast.analysis.stats.crossed import Values
from holdfast.analysis.stats.intervals import (
    Interval,
    mean_of,
    mean_of_each,
    mean_over_seeds,
    paired_difference,
)

Row = Sequence[Values | None]
"""Tables (seeds, items) of every task, in the order in which they are learned; None: not measured.
All tables of a task have the same items, and all of an arm the same seeds."""


def average_accuracy(last: Row) -> Interval | None:
    """ACC: the mean share over all tasks after the last stage; None where one is not measured."""
    tables = [one for one in last if one is not None]
    if len(tables) < len(last):
        return None
    if len(tables) == 1:
        return mean_over_seeds(tables[0])
    alone = all(len(one) == 1 for one in tables)
    found = mean_of_each([mean_over_seeds(one) for one in tables]) if alone else mean_of(tables)
    return found._replace(low=None if found.low is None else max(0.0, found.low))


def average_difference(last: Row, other: Row) -> Interval | None:
    """The difference of two arms' average accuracies, on the same items and seeds."""
    return _differences(zip(other, last, strict=True))


def stage_backward_transfer(after: Sequence[Row]) -> Interval | None:
    """BWT: what later stages did to what was learned; negative is forgetting.

    Args:
        after: a row for each stage; of earlier ones the task's own entry is needed.
    """
    last = after[-1]
    return _differences((after[j][j], last[j]) for j in range(len(last) - 1))


def difference(first: Values | None, second: Values | None) -> Interval | None:
    """One task's second - first; None where one is not measured."""
    return _differences([(first, second)])


def forward_transfer(base: Row, after: Sequence[Row]) -> Interval | None:
    """FWT: what earlier stages did to tasks that were still to be learned.

    Args:
        base: of the untouched model, tables of one row.
        after: as of `stage_backward_transfer`.
    """
    return _differences((base[j], after[j - 1][j]) for j in range(1, len(base)))


def stage_forgetting(after: Sequence[Row]) -> Interval | None:
    """F: the best that an earlier stage had, less what is left of it; positive is forgetting.

    Which stage was best is read off the same items, so with more than two stages a task that stays
    as it is looks forgotten by a little. With two it is BWT with the sign turned.
    """
    last = after[-1]
    best = [_best([row[j] for row in after[:-1]]) for j in range(len(last) - 1)]
    return _differences(zip(last, best, strict=False))


def _best(tables: Sequence[Values | None]) -> Values | None:
    there = [one for one in tables if one is not None]
    if len(there) < len(tables) or any(np.isnan(one).all() for one in there):
        return None
    return max(there, key=lambda one: float(np.nanmean(one)))


def _differences(pairs: Iterable[tuple[Values | None, Values | None]]) -> Interval | None:
    """The mean over tasks of second - first; None where one is not measured."""
    tables: list[tuple[Values, Values]] = []
    for first, second in pairs:
        if first is None or second is None:
            return None
        tables.append((first, second))
    if tables and all(len(first) == 1 == len(second) for first, second in tables):
        each = [paired_difference(first[0], second) for first, second in tables]
        return each[0] if len(each) == 1 else mean_of_each(each)
    return mean_of([second - first for first, second in tables])
