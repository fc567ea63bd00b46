"""How do readings become arrays, and intervals what results keep?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from holdfast.analysis.results import Share
from holdfast.analysis.stats import Interval, Values, mean_over_seeds
from holdfast.types import Reading


def item_ids(readings: Sequence[Reading]) -> list[str]:
    """The items that readings speak of, each once, in their order."""
    return list(dict.fromkeys(reading.example_id for reading in readings))


def values(readings: Sequence[Reading], ids: Sequence[str]) -> Values:
    """One value per item in the order of `ids`: the mean over samples, NaN where unscored."""
    scored: dict[str, list[float]] = {}
    for reading in readings:
        if reading.value is not None:
            scored.setdefault(reading.example_id, []).append(reading.value)
    return np.array([float(np.mean(scored[one])) if one in scored else np.nan for one in ids])


def by_way(readings: Sequence[Sequence[Reading]], ids: Sequence[str]) -> dict[str, Share]:
    """The share under every way of reading that the task knows, over all seeds."""
    names = dict.fromkeys(way for one in readings for reading in one for way in reading.read_as)
    found = {}
    for way in names:
        read = [[replace(o, value=o.read_as.get(way)) for o in one] for one in readings]
        found[way] = as_share(mean_over_seeds(np.stack([values(one, ids) for one in read])))
    return found


def breakdowns(readings: Sequence[Reading], ids: Sequence[str]) -> list[dict[str, list[int]]]:
    """The columns of every group, for each of the breakdowns that the readings have.

    Returns:
        One mapping from name to places in `ids` per breakdown, names in order.
    """
    found = []
    for parts in (
        {one.example_id: one.group for one in readings},
        {one.example_id: one.also for one in readings},
    ):
        names = sorted({name for name in parts.values() if name})
        found.append({n: [i for i, one in enumerate(ids) if parts[one] == n] for n in names})
    return [one for one in found if one]


def as_share(interval: Interval) -> Share:
    """An interval as results keep it."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    mean, low, high, n, unscored = interval
    return Share(rounded(mean), rounded(low), rounded(high), n, unscored)
