"""The candidates, the Pareto frontier and each arm's hypervolume.

A model is on the frontier when no other is at least as good on every task and better on one. Arms
are compared by the area that their models dominate (`selection.area`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.analysis.selection.area import (
    PARTS,
    REFERENCE,
    area_of,
    means_of,
    spread_of,
    undominated,
)
from holdfast.analysis.selection.rule import Target, names_of
from holdfast.analysis.stats import Interval, Values
from holdfast.analysis.targets import pooled
from holdfast.types import Point


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


def fronts(
    candidates: Sequence[Candidate],
    base: Mapping[str, Values],
    target: Target,
    *,
    reference: tuple[float, float] = REFERENCE,
    seed: int = 0,
) -> list[Front]:
    """Every arm's hypervolume, in the order of the candidates.

    The plane: the gain on the target (of several their mean), and the worst change on any retained
    task, both paired with the untouched model (without a retained task the change is 0); of a
    measure in a unit of its own, a hundredth counts as a point. What is estimated is the area that
    the arm's steps dominate with their true means, over all items and all training seeds.

    Args:
        candidates: all models.
        base: the untouched model's readings by task; their order is the order of the items.
        target: the task that training is for, or several; all others are retained.
        reference: (gain, change) from which the area is measured.
        seed: of the dealing into parts.
    """
    if not candidates:
        return []
    aims = names_of(target)
    changed = {
        task: np.stack([one.readings[task] for one in candidates]) - base[task] for task in base
    }
    kept = [change for task, change in changed.items() if task not in aims]
    changes = [pooled([changed[aim] for aim in aims]), *kept]
    sizes = [change.shape[-1] for change in changes]
    rng = np.random.default_rng(seed)
    count = max(1, min(PARTS, *sizes))
    parts = [rng.permutation(size) % count for size in sizes]
    areas, kinds = {}, {}
    for arm in dict.fromkeys(one.point.arm for one in candidates):
        mine = [i for i, one in enumerate(candidates) if one.point.arm == arm]
        kinds[arm] = list(dict.fromkeys(_kind(candidates[i])[1:] for i in mine))
        cells = [_by_seed(candidates, mine, kinds[arm], change) for change in changes]
        areas[arm] = area_of(cells, parts, reference)
        if all(candidates[i].point.seed is None for i in mine):  # not trained, so sure of its seed
            areas[arm] = areas[arm]._replace(unit=0.0)
    items, best, found = sum(map(len, parts)), _on_frontier(candidates, changes), []
    for arm, area in areas.items():
        spread = spread_of([other for name, other in areas.items() if name != arm])
        low, high = area.ends(spread, items - len(changes))
        volume = Interval(max(0.0, area.mean), low, high, items, 0)
        found.append(Front(arm, volume, tuple(k for k in kinds[arm] if (arm, *k) in best)))
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


def _by_seed(
    candidates: Sequence[Candidate],
    mine: Sequence[int],
    kinds: Sequence[tuple[int, float]],
    change: Values,
) -> Values:
    """One task's changes, shape (seeds, kinds, items).

    Where a seed did not reach a step, the mean of the others stands in.
    """
    seeds = list(dict.fromkeys(candidates[i].point.seed for i in mine))
    cells = np.full((len(seeds), len(kinds), change.shape[1]), np.nan)
    there = np.zeros((len(seeds), len(kinds), 1), dtype=np.bool_)
    for i in mine:
        at = seeds.index(candidates[i].point.seed), kinds.index(_kind(candidates[i])[1:])
        cells[at], there[at] = change[i], True
    return cells if there.all() else np.where(there, cells, means_of(cells, 0))


def _on_frontier(
    candidates: Sequence[Candidate], changes: Sequence[Values]
) -> set[tuple[str, int, float]]:
    """Kinds on the frontier by their mean over seeds; the base takes part as no change at all."""
    kinds: dict[tuple[str, int, float], list[int]] = {}
    for i, one in enumerate(candidates):
        kinds.setdefault(_kind(one), []).append(i)
    scores = np.stack([means_of(change, 1) for change in changes], axis=1)
    means = [scores[rows].mean(axis=0) for rows in kinds.values()]
    kept = undominated(np.stack([*means, np.zeros(len(changes))]))
    return {kind for kind, keep in zip(kinds, kept[:-1], strict=True) if keep}


def _mean(values: Values) -> float:
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else float("nan")
