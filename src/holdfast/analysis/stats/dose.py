"""Dose and response: tests whether a larger gain on the target goes with more forgetting.

Each measured set of weights (a checkpoint, a learning rate, a scale) is a point: what it gained on
the target, and what it lost on a retained task. Two figures say whether the two rise together:
Spearman's rank correlation, and the rise of a monotone fit.

`rank_correlation` and `net_rise` take lists with one entry per arm, of shape (draws, points of the
arm) or (1, points), so that thousands of bootstrap draws are computed at once; nothing compares
points of different arms. Weights count a point several times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.analysis.stats.crossed import Estimate, Values
from holdfast.analysis.stats.intervals import Interval

Figure = Callable[[Sequence[Values], Sequence[Values], Sequence[Values]], Values]
ENOUGH = 5  # distinct points
POOLED = ""  # the arm's name where all arms are taken together


@dataclass(frozen=True, slots=True)
class DosePoint:
    """The readings of one set of weights.

    Attributes:
        arm: the arm of the study; its learning rates, checkpoints and scales are points of it.
        seed: of the training; points of one arm and seed are drawn together.
        target: shape (items_t,), NaN where unscored; items as in `base_target`.
        retained: shape (items_r,), NaN where unscored; items as in `base_retained`.
    """

    arm: str
    seed: int | None
    target: Values
    retained: Values


@dataclass(frozen=True, slots=True)
class DoseResponse:
    """Gain against loss, of one arm or pooled within arms (arm "").

    Attributes:
        points: sets of weights that took part.
        rho: Spearman's, with its interval; None where gains or losses are all alike.
        rise: loss at the largest gain less that at the smallest, by monotone fits.
        curve: the rising monotone fit, (gain, loss) by gain.
        words: supported | not supported | too little data.
    """

    arm: str
    points: int
    rho: Interval | None
    rise: Interval | None
    curve: tuple[tuple[float, float], ...]
    words: str


def dose_response(
    points: Sequence[DosePoint],
    base_target: Values,
    base_retained: Values,
    seed: int = 0,
    draws: int = 2000,
    level: float = 0.95,
) -> list[DoseResponse]:
    """Gain (tuned - base on the target) against loss (base - tuned on the retained task).

    rho: Spearman 1904 (Am. J. Psychol. 15:72-101). Pooled: ranks within each arm and never across,
    the arms' rho weighted by their points. The curve: isotonic regression (Barlow et al. 1972) of
    loss on gain; pooled, on distances to the arm's own mean, put back to the overall mean. A rising
    fit finds a rise in mere noise; so `rise` is the rise of the rising fit less the fall of the
    falling fit, which is 0 on average where loss does not depend on gain, and the rise itself where
    loss rises throughout.

    Intervals: estimate ± quantile x standard error, from a bootstrap (Efron 1979) in two parts: the
    items of both tasks, drawn independently of each other, and the seeds within each arm, enlarged
    by S/(S - 1), with the quantile of `crossed.Estimate`. One joint percentile interval would not
    reach beyond the few seeds there are. With one seed the interval speaks of that run only: where
    losses wander at random as a run goes on, 17 % of arms with one seed come out as supported, and
    0.8 % with three (`benchmarks/coverage.py`).

    "supported": both intervals lie above 0. "too little data": fewer than five distinct points, or
    gains or losses range no further than noise alone would in one study of twenty. Otherwise "not
    supported".

    Args:
        points: measured weights, in any order.
        base_target: shape (items_t,), the untouched model.
        base_retained: shape (items_r,), the untouched model.
        seed: of the bootstrap.
        draws: of each part of the bootstrap.
        level: confidence.

    Returns:
        One result per arm, in the order of their first points, then the pooled one.
    """
    rng = np.random.default_rng(seed)
    gains = _Means([one.target - base_target for one in points])
    losses = _Means([base_retained - one.retained for one in points])
    gains.draw(rng, draws)
    losses.draw(rng, draws)
    arms = list(dict.fromkeys(one.arm for one in points))
    names = np.array([one.arm for one in points])
    runs = np.array([f"{one.arm}\0{one.seed}" for one in points])
    scored = ~np.isnan(gains.mean) & ~np.isnan(losses.mean)
    members = [np.flatnonzero((names == arm) & scored) for arm in arms]
    weights = _draw_runs(rng, [runs[one] for one in members], draws)
    found = [
        _respond(arm, gains, losses, [mine], [drawn], [len(set(runs[mine]))], level)
        for arm, mine, drawn in zip(arms, members, weights, strict=True)
    ]
    counts = [len(set(runs[mine])) for mine in members]
    return [*found, _respond(POOLED, gains, losses, members, weights, counts, level)]


class _Means:
    """Mean change of every point, and its means over drawn items."""

    def __init__(self, changes: Sequence[Values]) -> None:
        self.table = np.array(changes)
        self.scored = ~np.isnan(self.table)
        self.filled = np.where(self.scored, self.table, 0.0)
        count = self.scored.sum(axis=1)
        self.mean = np.where(count, self.filled.sum(axis=1) / np.maximum(count, 1), np.nan)
        self.drawn = np.empty((0, len(self.table)))

    def draw(self, rng: np.random.Generator, draws: int) -> None:
        items = self.table.shape[1]
        weights = rng.multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)
        count = weights @ self.scored.T
        sums = weights @ self.filled.T
        self.drawn = np.where(count > 0, sums / np.maximum(count, 1), self.mean)


def _draw_runs(
    rng: np.random.Generator, runs: Sequence[NDArray[np.str_]], draws: int
) -> list[Values]:
    """How often each point's run is drawn, within each arm; shape (draws, points) each."""
    drawn = []
    for mine in runs:
        names, which = np.unique(mine, return_inverse=True)
        count = max(1, len(names))
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws)
        drawn.append(times[:, which].astype(np.float64))
    return drawn


def _respond(
    arm: str,
    gains: _Means,
    losses: _Means,
    members: Sequence[NDArray[np.intp]],
    weights: Sequence[Values],
    runs: Sequence[int],
    level: float,
) -> DoseResponse:
    """One arm, or several taken together: an entry of `members`, `weights`, `runs` for each."""
    count = sum(len(mine) for mine in members)
    used = [i for i, mine in enumerate(members) if len(mine) > 1]
    if not used:
        return DoseResponse(arm, count, None, None, (), "too little data")
    ones = [np.ones((1, len(members[i]))) for i in used]

    def split(values: Values) -> list[Values]:
        return [np.atleast_2d(values)[:, members[i]] for i in used]

    gain, loss = split(gains.mean), split(losses.mean)
    drawn_gain, drawn_loss = split(gains.drawn), split(losses.drawn)

    def measure(figure: Figure) -> Interval | None:
        at = float(figure(gain, loss, ones)[0])
        if math.isnan(at):
            return None
        items = _variance(figure(drawn_gain, drawn_loss, ones))
        seeds = 0.0
        for place, i in enumerate(used):  # arms are trained apart, so their variances add up
            if runs[i] > 1:
                drawn = [*ones[:place], weights[i], *ones[place + 1 :]]
                seeds += _variance(figure(gain, loss, drawn)) * runs[i] / (runs[i] - 1)
        seed_df = sum(runs[i] - 1 for i in used)
        half = Estimate(at, seeds, items, seed_df, items_df, count, 0).half_width(level)
        return Interval(at, at - half, at + half, count, 0)

    items_df = max(1, min(gains.table.shape[1], losses.table.shape[1]) - 1)
    rho, rise = measure(rank_correlation), measure(net_rise)
    if rho is not None:
        rho = rho._replace(low=max(-1.0, rho.low or 0.0), high=min(1.0, rho.high or 0.0))
    distinct = {pair for g, p in zip(gain, loss, strict=True) for pair in zip(*g, *p, strict=True)}
    words = "not supported"
    within = _within_noise(gain, drawn_gain, level) or _within_noise(loss, drawn_loss, level)
    if len(distinct) < ENOUGH or rho is None or rise is None or within:
        words = "too little data"
    elif (rho.low or 0.0) > 0 and (rise.low or 0.0) > 0:
        words = "supported"
    return DoseResponse(arm, count, rho, rise, rising_fit(gain, loss), words)


def _variance(values: Values) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.var()) if len(kept) > 1 else 0.0


def _within_noise(seen: Sequence[Values], drawn: Sequence[Values], level: float) -> bool:
    """Whether points of an arm lie no further apart than drawing other items moves them."""
    ranges = max(float(np.ptp(one)) for one in seen)
    moved = np.max(
        [np.ptp(many - one, axis=1) for one, many in zip(seen, drawn, strict=True)], axis=0
    )
    return ranges <= float(np.quantile(moved, level))


def rank_correlation(x: Sequence[Values], y: Sequence[Values], weights: Sequence[Values]) -> Values:
    """Spearman's rho with mid-ranks, mean over the arms, which count by their points.

    Returns:
        Shape (draws,); NaN where in every arm all of `x` or all of `y` are alike.
    """
    sums, counts = np.zeros(1), np.zeros(1)
    for across, other, weight in zip(x, y, weights, strict=True):
        rho = _correlation(_ranks(across, weight), _ranks(other, weight), weight)
        known = ~np.isnan(rho)
        sums = sums + np.where(known, rho, 0.0) * across.shape[1]
        counts = counts + known * across.shape[1]
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(counts > 0, sums / counts, np.nan), dtype=np.float64)


def net_rise(x: Sequence[Values], y: Sequence[Values], weights: Sequence[Values]) -> Values:
    """Rise of the rising monotone fit of `y` on `x` less the fall of the falling one.

    The value of an isotonic fit at its last point is the largest mean of a tail of `y`, at its
    first the smallest mean of a head (min-max formula: Barlow et al. 1972); falling, the other way
    round. So no fit is needed. With several arms, x and y are distances to the arm's own mean.

    Returns:
        Shape (draws,).
    """
    at, height, weight = _centred(x, y, weights)
    order = np.argsort(at, axis=1, kind="stable")
    at, height, weight = (np.take_along_axis(one, order, axis=1) for one in (at, height, weight))
    full = np.ones((len(at), 1), dtype=bool)
    steps = at[:, 1:] > at[:, :-1]  # points at the same x belong to the same head or tail
    heads = _means(np.cumsum(weight, 1), np.cumsum(weight * height, 1), np.hstack([steps, full]))
    weight, height = weight[:, ::-1], height[:, ::-1]
    ends = np.hstack([full, steps])[:, ::-1]
    tails = _means(np.cumsum(weight, 1), np.cumsum(weight * height, 1), ends)
    rise = np.nanmax(tails, axis=1) - np.nanmin(heads, axis=1)
    fall = np.nanmax(heads, axis=1) - np.nanmin(tails, axis=1)
    return np.asarray(rise - fall, dtype=np.float64)


def rising_fit(x: Sequence[Values], y: Sequence[Values]) -> tuple[tuple[float, float], ...]:
    """The isotonic regression of `y` on `x`, a pair for each distinct x; see `net_rise`."""
    from scipy.optimize import isotonic_regression

    ones = [np.ones_like(one) for one in x]
    at, height, _ = (one[0] for one in _centred(x, y, ones))
    at = at + float(np.concatenate([one[0] for one in x]).mean())
    height = height + float(np.concatenate([one[0] for one in y]).mean())
    places, which, counts = np.unique(at, return_inverse=True, return_counts=True)
    means = np.bincount(which, weights=height) / counts
    fit = isotonic_regression(means, weights=counts.astype(np.float64)).x
    return tuple((float(a), float(b)) for a, b in zip(places, fit, strict=True))


def _ranks(values: Values, weight: Values) -> Values:
    from scipy.stats import rankdata

    if len(values) > 1:  # points are drawn once each; their values differ from draw to draw
        return np.asarray(rankdata(values, axis=1), dtype=np.float64)
    row = values[0]
    below = (row[:, None] < row[None, :]) + 0.5 * (row[:, None] == row[None, :])
    return np.asarray(weight @ below, dtype=np.float64)


def _correlation(x: Values, y: Values, weight: Values) -> Values:
    total = weight.sum(axis=1, keepdims=True)
    x = x - (weight * x).sum(axis=1, keepdims=True) / total
    y = y - (weight * y).sum(axis=1, keepdims=True) / total
    spread = (weight * x * x).sum(axis=1) * (weight * y * y).sum(axis=1)
    together = (weight * x * y).sum(axis=1)
    alike = spread <= 1e-12
    return np.where(alike, np.nan, together / np.sqrt(np.where(alike, 1.0, spread)))


def _centred(
    x: Sequence[Values], y: Sequence[Values], weights: Sequence[Values]
) -> tuple[Values, Values, Values]:
    rows = max(len(one) for lists in (x, y, weights) for one in lists)
    parts = []
    for arm in zip(x, y, weights, strict=True):
        at, height, weight = (np.broadcast_to(one, (rows, one.shape[1])) for one in arm)
        total = weight.sum(axis=1, keepdims=True)
        at = at - (weight * at).sum(axis=1, keepdims=True) / total
        height = height - (weight * height).sum(axis=1, keepdims=True) / total
        parts.append((at, height, weight))
    at, height, weight = (np.hstack(one) for one in zip(*parts, strict=True))
    return at, height, weight


def _means(weights: Values, sums: Values, ends: Values) -> Values:
    kept = (weights > 0) & ends.astype(bool)
    return np.where(kept, sums / np.where(kept, weights, 1.0), np.nan)
