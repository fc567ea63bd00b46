"""How sure are we of a figure, and of a difference?

Values are shares of ones: 1 is good, 0 is bad, NaN is unscored and takes no part. All intervals are
95 % unless `level` says otherwise, all randomness is seeded.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its interval; `n` items took part, `unscored` did not."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int


def wilson(values: Values, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927, JASA 22:209-212).

    Args:
        values: shape (items,), ones, zeros and NaN; fractions count as parts of a success.
        level: confidence.
    """
    scored = values[~np.isnan(values)]
    n, unscored = len(scored), len(values) - len(scored)
    if n == 0:
        return Interval(None, None, None, 0, unscored)
    z = _normal_quantile(level)
    share = float(scored.mean())
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n, unscored)


def mean_over_seeds(values: Values, level: float = 0.95, seed: int = 0) -> Interval:
    """A share measured with several training seeds on the same items.

    One seed: Wilson's interval. Several: percentile bootstrap that resamples items and seeds.

    Args:
        values: shape (seeds, items), NaN where unscored.
        level: confidence.
        seed: of the bootstrap.
    """
    if len(values) == 1:
        return wilson(values[0], level)
    mean, low, high, n, unscored = _bootstrap(values, level, seed)
    if low is None or high is None:
        return Interval(mean, low, high, n, unscored)
    return Interval(mean, max(0.0, low), min(1.0, high), n, unscored)


def paired_difference(base: Values, tuned: Values, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of tuned - base over items that both sides scored.

    One training seed and plain ones and zeros: the score interval for paired proportions (Newcombe
    1998, Stat. Med. 17:2635-2650, method 10), which holds its level even when few items flip.
    Otherwise a percentile bootstrap (Efron 1979) that resamples items, and seeds when there are
    several; with two or three seeds it understates how much training again would change.

    Args:
        base: shape (items,).
        tuned: shape (seeds, items), the same items in the same order.
        level: confidence.
        seed: of the bootstrap.
    """
    if len(tuned) == 1 and _binary(base) and _binary(tuned):
        return _paired_score(base, tuned[0], level)
    return _bootstrap(tuned - base[None, :], level, seed)


def _binary(values: Values) -> bool:
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())


def _paired_score(base: Values, tuned: Values, level: float) -> Interval:
    scored = ~np.isnan(base) & ~np.isnan(tuned)
    n, unscored = int(scored.sum()), int((~scored).sum())
    if n == 0:
        return Interval(None, None, None, 0, unscored)
    before, after = base[scored], tuned[scored]
    one, two = wilson(before, level), wilson(after, level)
    p, low_p, high_p = (float(x or 0.0) for x in one[:3])
    q, low_q, high_q = (float(x or 0.0) for x in two[:3])
    both, neither = float((before * after).sum()), float(((1 - before) * (1 - after)).sum())
    lost, won = float((before * (1 - after)).sum()), float(((1 - before) * after).sum())
    margins = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    agreement = both * neither - lost * won
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)
    phi = agreement / math.sqrt(margins) if margins > 0 else 0.0

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    low = q - p - half(q - low_q, high_p - p)
    high = q - p + half(high_q - q, p - low_p)
    return Interval(q - p, max(-1.0, low), min(1.0, high), n, unscored)


def _bootstrap(values: Values, level: float, seed: int, draws: int = 4000) -> Interval:
    """Percentile bootstrap of the mean of a (seeds, items) table with NaN holes."""
    scored = ~np.isnan(values)
    used = scored.any(axis=0)
    n, unscored = int(used.sum()), int((~scored).sum())
    if n == 0:
        return Interval(None, None, None, 0, unscored)
    table = np.where(scored, values, 0.0)[:, used]
    weight = scored[:, used].astype(np.float64)
    mean = float(table.sum() / weight.sum())
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=draws)
    columns = rng.multinomial(n, np.full(n, 1 / n), size=draws)
    sums = ((rows @ table) * columns).sum(axis=1)
    totals = ((rows @ weight) * columns).sum(axis=1)
    means = sums[totals > 0] / totals[totals > 0]
    tail = (1 - level) / 2
    low, high = (float(x) for x in np.quantile(means, [tail, 1 - tail]))
    if np.ptp(table[weight > 0]) == 0:
        slack = -math.log(1 - level) / n
        low, high = mean - slack, mean + slack
    return Interval(mean, max(-1.0, low), min(1.0, high), n, unscored)


def _normal_quantile(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)
