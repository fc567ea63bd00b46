"""Foretells from a training's first meters what it will have lost at its end, as far as that goes.

A falling line (isotonic: the further a model has moved by the first tenth, the more is lost) is
laid through recorded trainings of the same task; the interval is that of CV+ (arXiv:1905.02928),
whose folds are arms, so that seeds of one arm never vouch for one another. `skill` says what such
forecasts were worth on arms that were left out: one without skill is to be shown to nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.analysis.stats.dose import rank_correlation

Meter = Literal["kl", "cross_entropy", "norm"]
LEVEL = 0.9
FEWEST = 10
"""Arms below which nothing is foretold; below 19 trainings an interval of this level has no end."""
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Between:
    """An estimate and its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Past:
    """A training that is over: what its first meters read, and what was lost at its end.

    Attributes:
        arm: whose training; alike in all of its seeds.
        read: by meter, at the first checkpoint.
        change: of a retained task at the last checkpoint, paired with the untouched model; below
            0: lost.
    """

    arm: str
    read: dict[Meter, float]
    change: float


@dataclass(frozen=True, slots=True)
class Skill:
    """What forecasts were worth on arms that they had not seen.

    Attributes:
        trainings: that were foretold.
        arms: they are of.
        rank: Spearman's correlation of forecast and truth, with its interval over arms.
        covered: share of the truths inside their interval of `LEVEL`.
        width: of these intervals, on average.
        error: mean size of the error, as a share of that of foretelling everybody's mean.
    """

    trainings: int
    arms: int
    rank: Between
    covered: float
    width: float
    error: float

    @property
    def any(self) -> bool:
        """Whether they order trainings for more than chance, and err less than a mean does."""
        return bool(self.rank.low > 0 and self.error < 1)


def foretold(past: Sequence[Past], meter: Meter, read: float) -> Between | None:
    """The change at the end of a training whose meter reads this now; None: too few arms.

    Args:
        past: trainings of the same model and task.
        meter: that is read.
        read: its value at the first checkpoint, in nats per token (a norm: in its own unit).
    """
    usable = _usable(past, meter)
    arms = {one.arm for one in usable}
    if len(arms) < FEWEST:
        return None
    highs, lows = [], []
    for arm in sorted(arms):
        others = [one for one in usable if one.arm != arm]
        at = _Falling(others, meter)
        for one in usable:
            if one.arm == arm:
                missed = abs(one.change - at(one.read[meter]))
                lows.append(at(read) - missed)
                highs.append(at(read) + missed)
    places = (1 - LEVEL) / 2 * (len(lows) + 1)  # of the n + 1 among the n
    least = math.floor(places + 1e-9)
    if least < 1:
        return None
    low, high = np.sort(lows)[least - 1], np.sort(highs)[-least]
    middle = float(np.clip(_Falling(usable, meter)(read), -1, 1))
    low, high = np.clip([min(middle, low), max(middle, high)], -1, 1)
    return Between(middle, float(low), float(high))


def _usable(past: Sequence[Past], meter: Meter) -> list[Past]:
    """The trainings of which the meter and what was lost are known."""
    return [o for o in past if np.isfinite(o.read.get(meter, np.nan)) and np.isfinite(o.change)]


def skill(past: Sequence[Past], meter: Meter, seed: int = 0) -> Skill | None:
    """How good forecasts from a meter are; None: too few arms to leave one out.

    Args:
        past: trainings of one model and task.
        meter: that is read.
        seed: of the resampling of arms.
    """
    usable = _usable(past, meter)
    names = np.array([one.arm for one in usable])
    said, truth, means, inside, widths = [], [], [], [], []
    for one in usable:
        others = [other for other in usable if other.arm != one.arm]
        found = foretold(others, meter, one.read[meter])
        if found is None:
            return None
        said.append(found.mean)
        truth.append(one.change)
        means.append(float(np.mean([other.change for other in others])))
        inside.append(found.low <= one.change <= found.high)
        widths.append(found.high - found.low)
    x, y = np.array(said), np.array(truth)
    error, plain = np.abs(x - y).mean(), np.abs(np.array(means) - y).mean()
    return Skill(
        len(usable), len(set(names)), _rank(x, y, names, seed), float(np.mean(inside)),
        float(np.mean(widths)), float(error / plain) if plain else float("inf"),
    )  # fmt: skip


class _Falling:
    """A falling line through what was lost, over the logarithm of a meter."""

    def __init__(self, past: Sequence[Past], meter: Meter) -> None:
        from scipy.optimize import isotonic_regression

        points = sorted((_log(one.read[meter]), one.change) for one in past)
        self._x = np.array([x for x, _ in points])
        self._y = isotonic_regression([y for _, y in points], increasing=False).x

    def __call__(self, read: float) -> float:
        return float(np.interp(_log(read), self._x, self._y))


def _log(read: float) -> float:
    return float(np.log(max(read, 1e-9)))


def _rank(x: np.ndarray, y: np.ndarray, arms: np.ndarray, seed: int) -> Between:
    """Spearman's correlation and its 95 % interval, arms drawn again with all they have."""
    names, arm_of = np.unique(arms, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=DRAWS
    )
    weights = np.vstack([np.ones(len(x)), drawn[:, arm_of]])
    found = rank_correlation([x[None]], [y[None]], [weights])
    mean, low, high = found[0], *np.quantile(np.nan_to_num(found[1:]), [0.025, 0.975])
    return Between(float(np.nan_to_num(mean)), float(low), float(high))
