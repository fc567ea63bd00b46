"""The items of several tasks in one table, so that what is said of a task is said of their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.analysis.stats.crossed import Values


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
