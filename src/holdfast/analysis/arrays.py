"""Readings as arrays that statistics take, and intervals as results keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.analysis.findings import Share
from holdfast.analysis.stats import Interval, Values, mean_over_seeds
from holdfast.types import Reading


@dataclass(frozen=True, slots=True)
class Measured:
    """All readings of one arm at one checkpoint on one task, a list per training seed."""

    arm: str
    step: int
    task: str
    readings: Sequence[Sequence[Reading]]
    cut_off: int = 0  # replies that reached the limit of new tokens
    scale: float = 1.0  # share of the training's change that is applied
    seeds: Sequence[int | None] = (None,)  # one for each list of readings
    repeated: Sequence[bool] = (False,)  # the same model as at an earlier step, one for each seed
    unread: Sequence[tuple[str, int]] = ()  # what the judge said where it was unsure, most often
    thinking_cut: int = 0  # replies that ended before any answer, in thinking
    thinking_tokens: float | None = 0.0  # a reply, on average; None: nobody counted them

    @property
    def key(self) -> tuple[str, int, float, str]:
        """What it shares with no other: arm, step, scale and task."""
        return self.arm, self.step, self.scale, self.task

    @property
    def replies(self) -> list[Reading]:
        """The readings of all seeds, one after another."""
        return [reading for readings in self.readings for reading in readings]


def item_ids(readings: Sequence[Reading]) -> list[str]:
    """The items that readings speak of, each once, in their order."""
    return list(dict.fromkeys(reading.example_id for reading in readings))


def values(readings: Sequence[Reading], ids: Sequence[str]) -> Values:
    """One value per item in the order of `ids`: the mean over samples, NaN where unscored.

    Args:
        readings: of one run on one task.
        ids: of the items, shape (items,).

    Returns:
        Shape (items,).
    """
    scored: dict[str, list[float]] = {}
    for reading in readings:
        if reading.value is not None:
            scored.setdefault(reading.example_id, []).append(reading.value)
    return np.array([float(np.mean(scored[name])) if name in scored else np.nan for name in ids])


def by_way(readings: Sequence[Sequence[Reading]], ids: Sequence[str]) -> dict[str, Share]:
    """The share under every way of reading that the task knows, over all seeds."""
    names = dict.fromkeys(way for run in readings for reading in run for way in reading.read_as)
    found = {}
    for way in names:
        read = [[replace(o, value=o.read_as.get(way)) for o in run] for run in readings]
        found[way] = as_share(mean_over_seeds(np.stack([values(run, ids) for run in read])))
    return found


def breakdowns(readings: Sequence[Reading], ids: Sequence[str]) -> list[dict[str, list[int]]]:
    """The columns of every group, for each of the breakdowns that the readings have.

    Returns:
        One mapping from name to places in `ids` per breakdown, names in order.
    """
    found = []
    for parts in (
        {reading.example_id: reading.group for reading in readings},
        {reading.example_id: reading.also for reading in readings},
    ):
        names = sorted({name for name in parts.values() if name})
        found.append({n: [i for i, name in enumerate(ids) if parts[name] == n] for n in names})
    return [groups for groups in found if groups]


def as_share(interval: Interval) -> Share:
    """An interval as results keep it, rounded to six decimals."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    mean, low, high, n, unscored = interval
    return Share(rounded(mean), rounded(low), rounded(high), n, unscored)
