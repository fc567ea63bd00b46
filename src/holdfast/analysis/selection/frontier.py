"""The candidates, the two halves of the items, the Pareto frontier and each arm's hypervolume.

A model is on the frontier when no other is at least as good on every task and better on one. Arms
are compared by the area that their models dominate (the hypervolume of Zitzler and Thiele 1998,
PPSN V:292-301). The area of many noisy points is flattered, and the more so the more points there
are: an arm of 20 equal checkpoints looks better than one of 5. The models at the edge are therefore
picked on one half of the items and their area is taken on the other, both ways round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.analysis.stats import Interval, Values
from holdfast.types import Point

REFERENCE = (0.0, -1.0)
"""No gain on the target, everything lost of a retained task: from here areas are measured."""
DRAWS = 1000

Halves = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Two masks over a task's items: those that choose, those that report; no item is in both."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One trained model and what it scored.

    Attributes:
        point: whose weights; one seed, because one model is what is shipped.
        readings: shape (items,) by task, the base's items in the base's order.
    """

    point: Point
    readings: Mapping[str, Values]


@dataclass(frozen=True, slots=True)
class Front:
    """How much of the plane one arm's models dominate.

    Attributes:
        arm: its name.
        volume: area between the reference point and the arm's models, in shares squared.
        points: (step, scale) of its models on the frontier of all arms and the base.
    """

    arm: str
    volume: Interval
    points: tuple[tuple[int, float], ...]


def split_halves(ids: Sequence[str], groups: Sequence[str], seed: int) -> Halves:
    """Split a task's items in two, the same way whatever their order.

    Every group is halved too: its items, sorted by a hash, go to the two halves in turn. Halves
    differ by one item at most, in all and within each group.

    Args:
        ids: of the items.
        groups: of the same items, e.g. their hazard; "" where a task has none.
        seed: another seed, another split.

    Returns:
        The items that choose and those that report, two masks of shape (items,).
    """

    def place(index: int) -> tuple[str, str]:
        text = f"{seed}:{ids[index]}"
        return groups[index], hashlib.sha256(text.encode()).hexdigest()

    choosing = np.zeros(len(ids), dtype=np.bool_)
    choosing[sorted(range(len(ids)), key=place)[::2]] = True
    return choosing, ~choosing


def undominated(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row dominates.

    Args:
        scores: shape (models, tasks), higher is better; NaN counts as worst.

    Returns:
        A mask of shape (models,); equal rows stand or fall together.
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    at_least = (scores[:, None, :] >= scores[None, :, :]).all(axis=2)
    better = (scores[:, None, :] > scores[None, :, :]).any(axis=2)
    dominated = (at_least & better).any(axis=0)
    return np.logical_not(dominated)


def hypervolume(
    points: NDArray[np.float64], reference: tuple[float, float] = REFERENCE
) -> NDArray[np.float64]:
    """The area that points dominate above a reference point.

    Args:
        points: shape (..., points, 2), higher is better in both.
        reference: points that are not above it in both add nothing.

    Returns:
        Shape (...), in the product of both units.
    """
    x = np.maximum(points[..., 0], reference[0])
    y = np.maximum(points[..., 1], reference[1]) - reference[1]
    order = np.argsort(-x, axis=-1)
    x, y = np.take_along_axis(x, order, -1), np.take_along_axis(y, order, -1)
    edge = np.full((*x.shape[:-1], 1), reference[0])
    widths = -np.diff(np.concatenate([x, edge], axis=-1), axis=-1)
    area: NDArray[np.float64] = (widths * np.maximum.accumulate(y, axis=-1)).sum(axis=-1)
    return area


def fronts(
    candidates: Sequence[Candidate],
    base: Mapping[str, Values],
    target: str,
    halves: Mapping[str, Halves],
    *,
    reference: tuple[float, float] = REFERENCE,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[Front]:
    """Every arm's hypervolume, in the order of the candidates.

    The plane: the gain on the target, and the worst change on any retained task, both paired with
    the untouched model and averaged over seeds (without a retained task the change is 0). The
    interval is a percentile bootstrap over items, which all models share, and over seeds.

    Args:
        candidates: all models.
        base: the untouched model's readings by task; their order is the order of the items.
        target: the task that training is for; all others are retained.
        halves: of every task, from `split_halves`.
        reference: (gain, change) from which the area is measured.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    tasks = [target, *(name for name in base if name != target)]
    rng = np.random.default_rng(seed)

    def changes(number: int | None, count: int) -> Values:
        """Shape (1 + count, models, tasks), on one half or on all items."""
        found = []
        for task in tasks:
            mask = slice(None) if number is None else halves[task][number]
            table = np.stack([one.readings[task][mask] for one in candidates])
            found.append(_resampled(table - base[task][mask], count, rng))
        return np.stack(found, axis=-1)

    sides = [changes(0, draws), changes(1, draws)]
    on_frontier = _on_frontier(candidates, changes(None, 0)[0])
    found = []
    for arm in dict.fromkeys(one.point.arm for one in candidates):
        mine = [i for i, one in enumerate(candidates) if one.point.arm == arm]
        kinds = list(dict.fromkeys(_kind(candidates[i]) for i in mine))
        first, second = _planes(candidates, mine, kinds, sides, rng)
        areas = _along(second, _edge(first[0], reference), reference)
        areas = (areas + _along(first, _edge(second[0], reference), reference)) / 2
        low, high = (float(one) for one in np.quantile(areas[1:], [0.025, 0.975]))
        items = sum(len(base[task]) for task in tasks)
        points = tuple(
            (step, scale) for _, step, scale in kinds if (arm, step, scale) in on_frontier
        )
        found.append(Front(arm, Interval(float(areas[0]), low, high, items, 0), points))
    return found


def keepers(
    candidates: Sequence[Candidate], also: Iterable[Point] = ()
) -> frozenset[tuple[str, int | None, int]]:
    """Checkpoints that a limit on saved ones must not delete.

    Args:
        candidates: all models, each judged by itself on all its items.
        also: points to keep whatever they score, e.g. the chosen one and the runner-up.

    Returns:
        (arm, seed, step) of every checkpoint that is on the frontier, at any scale.
    """
    points = list(also)
    if candidates:
        tasks = list(candidates[0].readings)
        scores = np.array([[_mean(one.readings[t]) for t in tasks] for one in candidates])
        kept = undominated(scores)
        points += [one.point for one, keep in zip(candidates, kept, strict=True) if keep]
    return frozenset((one.arm, one.seed, one.step) for one in points)


def _kind(candidate: Candidate) -> tuple[str, int, float]:
    """What is the same for all seeds."""
    return candidate.point.arm, candidate.point.step, candidate.point.scale


def _resampled(change: Values, draws: int, rng: np.random.Generator) -> Values:
    """Means over items of a (models, items) table: as measured, then resampled."""
    scored, n = ~np.isnan(change), change.shape[1]
    counts = np.ones((1 + draws, n))
    if n:
        counts[1:] = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    sums, totals = counts @ np.where(scored, change, 0.0).T, counts @ scored.T.astype(float)
    return np.where(totals > 0, sums / np.maximum(totals, 1), np.nan)


def _planes(
    candidates: Sequence[Candidate],
    mine: Sequence[int],
    kinds: Sequence[tuple[str, int, float]],
    sides: Sequence[Values],
    rng: np.random.Generator,
) -> list[Values]:
    """One arm's (gain, worst change) on each side; shape (1 + draws, kinds, 2), NaN if unknown."""
    seeds = list(dict.fromkeys(candidates[i].point.seed for i in mine))
    draws = len(sides[0]) - 1
    weights = np.ones((1 + draws, len(seeds)))
    weights[1:] = rng.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), size=draws)
    rows = [
        {seeds.index(candidates[i].point.seed): i for i in mine if _kind(candidates[i]) == kind}
        for kind in kinds
    ]
    planes = []
    for side in sides:
        mean = np.stack([_mean_over_seeds(side, weights, one) for one in rows], axis=1)
        kept = mean[..., 1:].min(axis=-1) if mean.shape[-1] > 1 else np.zeros(mean.shape[:2])
        planes.append(np.stack([mean[..., 0], kept], axis=-1))
    return planes


def _edge(points: Values, reference: tuple[float, float]) -> NDArray[np.intp]:
    """The undominated points above the reference, from the least gain to the most."""
    above = (points > reference).all(axis=1) & undominated(points)
    kept = np.flatnonzero(above)
    return kept[np.lexsort((-points[kept, 1], points[kept, 0]))]


def _along(plane: Values, edge: NDArray[np.intp], reference: tuple[float, float]) -> Values:
    """The area below given steps, shape (1 + draws,).

    The steps keep their order whatever these items say of it, so that no maximum is taken here:
    for two independent tasks the area is unbiased for that of the steps, which is at most that of
    all models.
    """
    x, y = (np.nan_to_num(plane[:, edge, i] - reference[i], nan=0.0) for i in (0, 1))
    area: Values = (np.diff(x, axis=1, prepend=0.0) * y).sum(axis=1)
    return area


def _mean_over_seeds(drawn: Values, weights: Values, rows: Mapping[int, int]) -> Values:
    """The drawn seeds' mean; shape (1 + draws, tasks). A draw without any of them is as measured.

    Args:
        drawn: shape (1 + draws, models, tasks).
        weights: how often a draw took each seed, shape (1 + draws, seeds).
        rows: place of the model by place of its seed; not every seed reached every step.
    """
    shares = weights[:, list(rows)].copy()
    shares[shares.sum(axis=1) == 0] = 1.0
    shares /= shares.sum(axis=1, keepdims=True)
    mean: Values = np.einsum("ds,dst->dt", shares, drawn[:, list(rows.values())])
    return mean


def _on_frontier(candidates: Sequence[Candidate], changes: Values) -> set[tuple[str, int, float]]:
    """Kinds on the frontier by their mean over seeds; the base takes part as no change at all."""
    kinds: dict[tuple[str, int, float], list[int]] = {}
    for i, one in enumerate(candidates):
        kinds.setdefault(_kind(one), []).append(i)
    means = [changes[rows].mean(axis=0) for rows in kinds.values()]
    kept = undominated(np.stack([*means, np.zeros(changes.shape[1])]))
    return {kind for kind, keep in zip(kinds, kept[:-1], strict=True) if keep}


def _mean(values: Values) -> float:
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else float("nan")
