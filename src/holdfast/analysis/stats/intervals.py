"""95 % intervals of shares and of paired differences, with p-values.

One training seed: score intervals for ones and zeros. Several: the variance of a crossed table of
seeds and items (`crossed`). What they cover is measured by `benchmarks/coverage.py`. Values that
leave 0 to 1 are no shares but a measure with a unit of its own, as bits per byte are: their mean
has the interval of the crossed table, with one seed as with several, and no bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from holdfast.analysis.stats.crossed import Values, estimate
from holdfast.analysis.stats.flips import Flips, flips

HALVINGS = 50
FEW, HEAVY = 30, 6
"""Where a difference is carried by fewer items than `FEW` and by less than one in `HEAVY`, the mean
of fractions is not normal yet."""


class _Moved(NamedTuple):
    """Like `Flips`, for fractions: how much was lost and won in all."""

    lost: float
    won: float
    n: int


class Interval(NamedTuple):
    """An estimate and its interval; `n` items took part, `unscored` cells did not."""

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
    if not is_share(values):
        return mean_of([values[None, :]], level, bounded=False)
    scored = values[~np.isnan(values)]
    n, unscored = len(scored), len(values) - len(scored)
    if n == 0:
        return Interval(None, None, None, 0, unscored)
    share = float(scored.mean())
    return Interval(share, *_score(share, n, _normal_quantile(level)), n, unscored)


def mean_over_seeds(values: Values, level: float = 0.95) -> Interval:
    """A share measured with several training seeds on the same items.

    One seed: Wilson's interval. Several: Wilson's interval at the effective number of items that
    the crossed variance implies, with its quantile (Korn & Graubard 1998, Survey Methodology
    24:193-201), which stays within 0 and 1 and leaves room where all replies are alike.

    Args:
        values: shape (seeds, items), NaN where unscored.
        level: confidence.
    """
    if len(values) == 1:
        return wilson(values[0], level)
    if not is_share(values):
        return mean_of([values], level, bounded=False)
    found = estimate([values])
    if found is None:
        return Interval(None, None, None, 0, values.size)
    share, spread = found.mean, found.mean * (1 - found.mean)
    cells = values.size - found.unscored
    if found.variance <= 0 or spread <= 0:
        low, high = _score(share, found.n, _normal_quantile(level))
    else:
        low, high = _score(share, min(cells, spread / found.variance), found.quantile(1 - level))
    return Interval(share, low, high, found.n, found.unscored)


def paired_difference(base: Values, tuned: Values, level: float = 0.95) -> Interval:
    """The mean of tuned - base over items that both sides scored.

    One training seed and plain ones and zeros: the score interval for paired shares (Tango 1998,
    Stat. Med. 17:891-908), which looks at the flips alone. Newcombe's (1998, method 10) is too
    narrow where few items flip and the base is right on about half of them
    (`benchmarks/coverage.py` has both). It speaks of this one run: where runs differ by their seeds
    by 4 points (standard deviation) and 1,000 items are asked, it covers the mean over trainings in
    half of the studies, and nothing short of more seeds can mend that.

    Otherwise mean ± quantile x standard error of the crossed table of seeds and items; where
    nothing differs between any two cells, the rule of three (Hanley & Lippman-Hand 1983, JAMA
    249:1743-1745). One seed and fractions, where few items carry the difference (`FEW`): the
    wider one of that and of the score interval for whole flips of the same sums, than which
    nothing between -1 and 1 varies more. `benchmarks/coverage.py` measures what it covers
    (docs/benchmarks.md). Two seeds are too few to hold 95 % closely: 94.1 to 97.5 % in theory.

    Args:
        base: shape (items,).
        tuned: shape (seeds, items), the same items in the same order.
        level: confidence.
    """
    if len(tuned) == 1 and is_binary(base) and is_binary(tuned):
        return _paired_score(base, tuned[0], level)
    if not is_share(base, tuned):
        return mean_of([tuned - base[None, :]], level, bounded=False)
    usual = mean_of([tuned - base[None, :]], level)
    moved = _few(tuned - base[None, :])
    if moved is None or usual.mean is None or usual.low is None or usual.high is None:
        return usual
    z = _normal_quantile(level)
    low, high = _where(moved, z, -1.0, usual.mean), _where(moved, -z, usual.mean, 1.0)
    return usual._replace(low=min(usual.low, low), high=max(usual.high, high))


def worse_end(lost: int, won: int, n: int, level: float = 0.95) -> float:
    """The lower end of `paired_difference` by the flips of one training alone, no data needed."""
    return _where(Flips(lost, won, n, 0.0), _normal_quantile(level), -1.0, (won - lost) / n)


def keeps(lost: int, won: int, n: int, margin: float, level: float = 0.95) -> bool:
    """Whether that lower end is not below a margin; without looking for it."""
    return _tango(Flips(lost, won, n, 0.0), margin) >= _normal_quantile(level)


def paired_p(base: Values, tuned: Values) -> float:
    """Two-sided p-value for "the mean difference is 0".

    One training seed: exact McNemar (`flips`), which speaks of this one run: where
    runs differ by their seeds by 4 points and training does nothing on average, one of six such
    runs is said to forget in 63 % of simulated studies of 1,000 items, Holm's correction included.
    Several: the t statistic of `paired_difference` with a quantile that is never too small, so that
    p < 0.05 implies that its interval leaves out 0.

    Args:
        base: shape (items,).
        tuned: shape (seeds, items), the same items in the same order.
    """
    if len(tuned) == 1 and is_binary(base) and is_binary(tuned):
        return flips(base, tuned).p
    found = estimate([tuned - base[None, :]])
    if found is None:
        return 1.0
    moved = _few(tuned - base[None, :]) if is_share(base, tuned) else None
    if moved is None:
        return found.p_value()
    reach = abs(moved.won - moved.lost) / math.sqrt(max(moved.won + moved.lost, 1e-12))
    return max(found.p_value(), math.erfc(reach / math.sqrt(2)))


def mean_of(tables: list[Values], level: float = 0.95, bounded: bool = True) -> Interval:
    """The mean of the means of tables (seeds, items).

    Args:
        tables: of differences of shares, whose mean lies within -1 and 1; or of a measure.
        level: confidence.
        bounded: they are differences of shares. Of a measure of which all cells are alike the
            interval is that point.
    """
    found = estimate(tables)
    if found is None:
        return Interval(None, None, None, 0, sum(one.size for one in tables))
    alike = -math.log(1 - level) / found.n if bounded else 0.0
    half = found.half_width(level) if found.variance > 0 else alike
    low, high = found.mean - half, found.mean + half
    if bounded:
        low, high = max(-1.0, low), min(1.0, high)
    return Interval(found.mean, low, high, found.n, found.unscored)


def mean_of_each(found: Sequence[Interval]) -> Interval:
    """The mean of independent figures, each with an interval of its own that suits it.

    Of one training, tasks may differ much in size, and hardly an item of one may move: then their
    variances, added up, promise too much. Distances to the ends are added up instead, squared
    (MOVER: Zou & Donner 2008, Stat. Med. 27:1693-1702).

    Args:
        found: of different items; one without a mean leaves all without.
    """
    n, unscored = sum(one.n for one in found), sum(one.unscored for one in found)
    known = [(one.mean, one.low, one.high) for one in found]
    ends = [(m, lo, hi) for m, lo, hi in known if None not in (m, lo, hi)]
    if len(ends) < len(found):
        return Interval(None, None, None, n, unscored)
    values = np.array(ends, dtype=np.float64)
    mean = float(values[:, 0].mean())
    below, above = (
        math.sqrt(float(((values[:, 0] - values[:, end]) ** 2).sum())) / len(found)
        for end in (1, 2)
    )
    return Interval(mean, mean - below, mean + above, n, unscored)


def is_share(*tables: Values) -> bool:
    """Whether all scored values lie within 0 and 1; others are a measure with a unit of its own."""
    return not any(bool(((one < 0) | (one > 1)).any()) for one in tables)


def _few(change: Values) -> _Moved | None:
    """What one training lost and won, where too few items carry it; None: enough do."""
    moved = change[~np.isnan(change)]
    squares = moved**2
    carried = squares.sum() ** 2 / max(1e-300, (squares**2).sum())  # by about so many items
    if len(change) > 1 or carried >= min(FEW, len(moved) / HEAVY):
        return None
    return _Moved(float(-moved[moved < 0].sum()), float(moved[moved > 0].sum()), len(moved))


def is_binary(values: Values) -> bool:
    """Whether all scored values are ones and zeros."""
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())


def _score(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _paired_score(base: Values, tuned: Values, level: float) -> Interval:
    """Tango's interval; it takes in 0 wherever McNemar's exact test does not rule it out."""
    found = flips(base, tuned[None, :])
    unscored = len(base) - found.n
    if found.n == 0:
        return Interval(None, None, None, 0, unscored)
    mean, z = (found.won - found.lost) / found.n, _normal_quantile(level)
    low = _where(found, z, -1.0, mean)
    high = _where(found, -z, mean, 1.0)
    if found.p >= 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(mean, low, high, found.n, unscored)


def _where(found: Flips | _Moved, z: float, low: float, high: float) -> float:
    """The difference in `low`..`high` at which the score is `z`; the score falls all along."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if _tango(found, middle) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _tango(found: Flips | _Moved, difference: float) -> float:
    """The score statistic of "the difference is this", with the losses' likeliest share."""
    won, lost, n = found.won, found.lost, found.n
    b = (2 * n - won + lost) * difference - won - lost
    c = -lost * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    off = won - lost - n * difference
    return off / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, off)


def _normal_quantile(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)
