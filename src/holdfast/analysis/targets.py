"""Several targets as one: their items in one table, and what each model gained on average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.analysis.arrays import Measured, as_share, item_ids, values
from holdfast.analysis.findings import MeanGain, TaskInfo
from holdfast.analysis.stats import Values, is_share, mean_of, mean_of_each, paired_difference
from holdfast.types import BASE


def pooled(tables: Sequence[Values]) -> Values:
    """Tables side by side, weighted such that a row's mean is the mean of its means in each.

    Tasks weigh alike, whatever their sizes. Resampled items of all tasks are drawn together, which
    makes intervals a little wider than drawing task by task.

    Args:
        tables: each of shape (..., items), NaN where unscored, alike but for the items.

    Returns:
        Shape (..., all items); of one table the table itself.
    """
    if len(tables) == 1:
        return tables[0]
    counts = [(~np.isnan(one)).sum(axis=-1, keepdims=True) for one in tables]
    every = sum(counts)
    weights = [every / (len(tables) * np.maximum(count, 1)) for count in counts]
    parts = [one * weight for one, weight in zip(tables, weights, strict=True)]
    return np.asarray(np.concatenate(parts, axis=-1), dtype=np.float64)


def mean_gains(tasks: Sequence[TaskInfo], measured: Sequence[Measured]) -> list[MeanGain]:
    """One for every model that was measured on all of several targets; none of a single one.

    The interval is of the crossed table of seeds and items: the same seeds trained all targets,
    whose items are others. Of a measure in a unit of its own a hundredth counts as a point.

    Args:
        tasks: that were measured.
        measured: all readings, the untouched model's among them.
    """
    aims = [task.name for task in tasks if task.role == "target"]
    if len(aims) < 2:
        return []
    before = {one.task: one.readings[0] for one in measured if one.arm == BASE}
    pairs: dict[tuple[str, int, float], dict[str, tuple[Values, Values]]] = {}
    bounded: dict[tuple[str, int, float], bool] = {}
    for one in measured:
        if one.arm == BASE or one.task not in aims or one.task not in before:
            continue
        ids = item_ids(before[one.task])
        base = values(before[one.task], ids)
        table = np.stack([values(readings, ids) for readings in one.readings])
        key = one.arm, one.step, one.scale
        pairs.setdefault(key, {})[one.task] = base, table
        bounded[key] = bounded.get(key, True) and is_share(base, table)
    found = []
    for key, some in pairs.items():
        rows = {len(table) for _, table in some.values()}
        if len(some) == len(aims) and len(rows) == 1:
            if rows == {1}:
                change = mean_of_each([paired_difference(*some[aim]) for aim in aims])
            else:
                tables = [table - base[None, :] for base, table in map(some.__getitem__, aims)]
                change = mean_of(tables, bounded=bounded[key])
            found.append(MeanGain(*key, as_share(change)))
    return found
