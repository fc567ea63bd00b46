"""Do two figures of many points rise together? For one table of points, or thousands at once.

All take lists with one entry per arm, of shape (draws, points of the arm) or (1, points); what is
computed within an arm never compares points of different arms. Weights count a point several times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.analysis.stats.crossed import Values


def rank_correlation(x: Sequence[Values], y: Sequence[Values], weights: Sequence[Values]) -> Values:
    """Spearman's rho with mid-ranks, mean over the arms, which count by their points.

    Returns:
        Shape (draws,); NaN where in every arm all of `x` or all of `y` are alike.
    """
    sums, counts = np.zeros(1), np.zeros(1)
    for one, other, weight in zip(x, y, weights, strict=True):
        rho = _correlation(_ranks(one, weight), _ranks(other, weight), weight)
        known = ~np.isnan(rho)
        sums = sums + np.where(known, rho, 0.0) * one.shape[1]
        counts = counts + known * one.shape[1]
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
