"""How do readings become arrays, and intervals what results keep?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.report.results import Share
from holdfast.stats import Interval, Values
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


def as_share(interval: Interval) -> Share:
    """An interval as results keep it."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    mean, low, high, n, unscored = interval
    return Share(rounded(mean), rounded(low), rounded(high), n, unscored)
