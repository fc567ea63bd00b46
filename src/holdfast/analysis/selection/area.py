"""The area that an arm's models dominate: the hypervolume of Zitzler and Thiele (1998, PPSN V).

The area of many noisy points is flattered, and the more so the more points there are: an arm of 20
equal checkpoints looks better than one of 5. The items are therefore dealt into parts; the models
at the edge are picked on all parts and seeds but one, and their area is taken on that one
(cross-fitting: Chernozhukov et al. 2018, Econom. J. 21:C1-C68).

The interval is around the area of the true means, over all items and all trainings. It is not a
bootstrap: drawing again what is a maximum repeats its flattery, and two seeds drawn again say
nothing of a third (`stats.crossed`). To its upper end is added how much larger the area would be if
nothing had been held back: steps picked by chance dominate less than the best ones, never more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from holdfast.analysis.stats import Values

REFERENCE = (0.0, -1.0)
"""No gain on the target, everything lost of a retained task: from here areas are measured."""
PARTS = 10
"""Into how many the items are dealt: nine choose the edge, one measures it."""
SEEDS, WORTH = 0.03, 4
"""How much a task's mean is taken to differ between seeds, and the seeds that this is worth.

Three points are what trainings that differ in nothing else show; a single run cannot tell."""

Reference = tuple[float, float]


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
    points: NDArray[np.float64], reference: Reference = REFERENCE
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


class Area(NamedTuple):
    """One arm's area and what its interval is made of, all variances in squared units of the area.

    Attributes:
        mean: over the parts and seeds that it was measured on.
        flattered: the area where all items both choose and measure, at least `mean`.
        items: variance of the mean from the items.
        seeds: variance between the areas of single seeds, chance of single answers included.
        chance: how much of `seeds` is such chance.
        unit: variance of a single seed's area if every task's mean varied by 1 from seed to seed.
        runs: how many seeds there are.
    """

    mean: float
    flattered: float
    items: float
    seeds: float
    chance: float
    unit: float
    runs: int

    def ends(self, spread: float, df: int) -> tuple[float, float]:
        """Of the interval of 95 %, none below 0.

        Each part of the variance has its own quantile (Banerjee 1961, Sankhya 23:359-378). Seeds
        are too few to say by themselves how much they differ: their variance is moderated by an
        expected one (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3), which stands alone where
        there is one seed.

        Args:
            spread: expected standard deviation of a task's mean between seeds.
            df: degrees of freedom of the items.
        """
        from scipy.special import stdtrit

        known = self.runs - 1
        between = (WORTH * spread**2 * self.unit + known * self.seeds) / (WORTH + known)
        quantiles = stdtrit(np.array([max(1, df), WORTH + known]), 0.975) ** 2
        down = float(quantiles @ [self.items, between / self.runs])
        up = down + max(0.0, self.flattered - self.mean) ** 2
        return max(0.0, self.mean - math.sqrt(down)), max(0.0, self.mean + math.sqrt(up))


def means_of(values: Values, axis: int | tuple[int, ...]) -> Values:
    """Means of what is scored, NaN where nothing is."""
    scored = ~np.isnan(values)
    return _ratio(np.where(scored, values, 0.0).sum(axis=axis), scored.sum(axis=axis))


def _ratio(total: Values, count: NDArray[np.int_] | Values) -> Values:
    mean: Values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def area_of(
    cells: Sequence[Values], parts: Sequence[NDArray[np.int_]], reference: Reference
) -> Area:
    """One arm's area, every part of the items and every seed measured along steps others chose.

    For a part and a seed, the edge and the worst task of each of its steps are chosen on the other
    parts of the other seeds (of the same, where there is one). Along them the area is a sum of
    products of means without a maximum, and its slopes say how much each answer pulls it.

    Args:
        cells: of every task, the target first; shape (seeds, kinds, items), NaN where unscored.
        parts: of every task, the part that an item is in, shape (items,).
        reference: (gain, change) from which the area is measured.
    """
    mean = np.stack([means_of(cell, (0, 2)) for cell in cells], axis=-1)  # (kinds, tasks)
    inside, outside = _in_parts(cells, parts, mean)
    areas = np.zeros(inside.shape[:2])
    pulls = [np.zeros((len(cell), cell.shape[2])) for cell in cells]
    units = []
    for seed, part in np.ndindex(*areas.shape):
        others = [one for one in range(len(areas)) if one != seed] or [seed]
        edge, worst = _edge(outside[others, part].mean(axis=0), reference)
        areas[seed, part], _ = _along(inside[seed, part], edge, worst, reference)
        _, slopes = _along(mean, edge, worst, reference)
        units.append(float((slopes.sum(axis=0) ** 2).sum()))
        for task, cell in enumerate(cells):
            here = np.flatnonzero(parts[task] == part)
            off = np.nan_to_num(cell[seed][edge][:, here] - mean[edge, task, None], nan=0.0)
            scored = (~np.isnan(cell[seed][edge])).mean(axis=1)
            pulls[task][seed, here] = (slopes[edge, task] / np.maximum(scored, 1e-9)) @ off
    known = mean[~np.isnan(mean).any(axis=1)]
    return Area(
        float(areas.mean()),
        float(hypervolume(_plane(known), reference)) if len(known) else 0.0,
        sum(_variance(pull.mean(axis=0)) / max(1, pull.shape[1]) for pull in pulls),
        _variance(areas.mean(axis=1)),
        sum(_chance(pull) for pull in pulls),
        float(np.mean(units)),
        len(areas),
    )


def _in_parts(
    cells: Sequence[Values], parts: Sequence[NDArray[np.int_]], mean: Values
) -> tuple[Values, Values]:
    """Means of every part, and of all items but that part; shape (seeds, parts, kinds, tasks).

    Where nothing is scored the mean over everything stands in.
    """
    inside, outside = [], []
    for cell, part in zip(cells, parts, strict=True):
        dealt = np.eye(max(part, default=0) + 1)[part]
        scored = ~np.isnan(cell)
        total, count = np.where(scored, cell, 0.0) @ dealt, scored.astype(float) @ dealt
        inside.append(_ratio(total, count))
        outside.append(
            _ratio(total.sum(-1, keepdims=True) - total, count.sum(-1, keepdims=True) - count)
        )
    found = [np.stack(one, axis=-1).swapaxes(1, 2) for one in (inside, outside)]
    first, second = (np.where(np.isnan(one), mean, one) for one in found)
    return first, second


def _plane(means: Values) -> Values:
    """(gain, worst change) of means per task, the target first; without a second task 0."""
    worst = means[:, 1:].min(axis=1) if means.shape[1] > 1 else np.zeros(len(means))
    return np.stack([means[:, 0], worst], axis=1)


def _edge(means: Values, reference: Reference) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The steps along which an area is measured, from the least gain to the most.

    Undominated ones above the reference; where none gains, the one that gains most, so that noise
    does not end at 0. With each its worst retained task (0 where none is retained).

    Args:
        means: shape (kinds, tasks), the target first; kinds with NaN take no part.
        reference: (gain, change) from which the area is measured.
    """
    points = _plane(means)
    valid = np.flatnonzero(~np.isnan(points).any(axis=1) & (points[:, 1] > reference[1]))
    kept = valid[undominated(points[valid])]
    kept = kept[np.lexsort((-points[kept, 1], points[kept, 0]))]
    gaining = kept[points[kept, 0] > reference[0]]
    edge = gaining if len(gaining) else kept[-1:]
    worst = means[edge, 1:].argmin(axis=1) + 1 if means.shape[1] > 1 else np.zeros_like(edge)
    return edge, worst


def _along(
    means: Values, edge: NDArray[np.intp], worst: NDArray[np.intp], reference: Reference
) -> tuple[float, Values]:
    """The area below given steps, and its slope in every mean.

    The steps keep their order whatever these means say of it, so that no maximum is taken here:
    for independent tasks the area is unbiased for that of the steps, which is at most that of
    all models.
    """
    slopes = np.zeros_like(means)
    gain = means[edge, 0] - reference[0]
    kept = (means[edge, worst] if worst.any() else np.zeros(len(edge))) - reference[1]
    widths = np.diff(gain, prepend=0.0)
    slopes[edge, 0] = kept - np.append(kept[1:], 0.0)
    if worst.any():
        slopes[edge, worst] = widths
    return float(widths @ kept), slopes


def _variance(values: Values) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _chance(pulls: Values) -> float:
    """What chance in single answers adds to the variance between seeds.

    Args:
        pulls: shape (seeds, items).
    """
    seeds, items = pulls.shape
    if min(seeds, items) < 2:
        return 0.0
    left = pulls - pulls.mean(axis=0)
    left -= left.mean(axis=1, keepdims=True)
    return float((left**2).sum() / (seeds - 1) / (items - 1) / items)


def spread_of(areas: Sequence[Area]) -> float:
    """How much a task's mean is expected to differ between seeds, a standard deviation.

    What other arms of several seeds show, less the chance in single answers; at least `SEEDS`, as
    few seeds can look alike by chance.
    """
    several = [area for area in areas if area.runs > 1 and area.unit > 0]
    if not several:
        return SEEDS
    shown = sum((one.runs - 1) * (one.seeds - one.chance) / one.unit for one in several)
    return max(SEEDS, math.sqrt(max(0.0, shown / sum(one.runs - 1 for one in several))))
