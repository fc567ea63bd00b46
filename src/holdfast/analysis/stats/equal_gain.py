"""What a training had cost by the time that it had gained so much: curves read at a common gain.

Two trainings that stop at one budget have not gained alike, and the one that gained less forgets
less for that reason alone. So each arm's curve over its checkpoints, from the untouched model on,
is followed to where the target's gain first reaches a common value, and what it had lost by then is
read off between the two checkpoints around it, in a straight line. The other way round, a curve is
followed to where its loss first reaches a common value, and the most that was gained by then is
read off.

The variance over items is that of resampling them (Efron & Tibshirani 1993, ch. 6), the same items
for all arms, so that two arms are compared in pairs; that over seeds is the jackknife's, whose
curves are the means of the others (same, ch. 11). Both make an interval as everywhere else
(`crossed.Estimate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from holdfast.analysis.stats.crossed import Estimate, Values
from holdfast.analysis.stats.intervals import Interval

RESAMPLES = 1000
REACHES = 0.95
"""Share of the resamples in which an arm must gain so much, for an interval to be told."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One arm's checkpoints in their order, without the untouched model.

    Attributes:
        target: differences to the untouched model, of shape (checkpoints, seeds, items), NaN where
            unscored.
        retained: the same on a retained task, whose items are others.
        bounded: the retained task is a share, so that no change is beyond 1.
        gains: the target is one.
    """

    target: Values
    retained: Values
    bounded: bool = True
    gains: bool = True

    @property
    def most(self) -> float:
        """The largest mean gain of a checkpoint; NaN where none could be scored."""
        means = _means(self.target, None)
        return float(np.nanmax(means)) if np.isfinite(means).any() else math.nan

    @property
    def worst(self) -> float:
        """The largest mean loss of a checkpoint; NaN where none could be scored."""
        means = -_means(self.retained, None)
        return float(np.nanmax(means)) if np.isfinite(means).any() else math.nan


@dataclass(frozen=True, slots=True)
class AtCommon:
    """One arm's change on one task where it had come as far on another as all are compared at.

    Attributes:
        change: the change; NaN where the arm never comes that far.
        reached: share of the resamples in which it does.
        draws: the change in every resample, shape (resamples,).
        without: the change without each seed, shape (seeds,); empty for one seed.
        n: items of the task whose change it is.
        bounded: see `Curve`.
    """

    change: float
    reached: float
    draws: Values
    without: Values
    n: int
    bounded: bool = True

    @property
    def interval(self) -> Interval:
        """The change with its interval; without ends where too few resamples gain that much."""
        return _interval(self)

    def less(self, other: AtCommon) -> Interval:
        """The difference between two arms at the same gain, on the same items and seeds."""
        alike = len(self.without) == len(other.without)
        without = self.without - other.without if alike else np.array([math.nan])
        both = AtCommon(
            self.change - other.change, min(self.reached, other.reached),
            self.draws - other.draws, without, min(self.n, other.n), self.bounded,
        )  # fmt: skip
        return _interval(both)


Read = Callable[[Values, Values], tuple[Values, Values]]
"""Gains and changes, each of shape (rows, checkpoints), to what is read of each row, and to whether
it comes that far."""


def at_gain(curve: Curve, gain: float, seed: int = 0) -> AtCommon:
    """What an arm had lost or won on a retained task by the time that it had gained `gain`.

    Args:
        curve: of the arm.
        gain: on the target, above 0.
        seed: of the resampling; the same for all arms that are compared.
    """

    def read(gains: Values, changes: Values) -> tuple[Values, Values]:
        found = _read(gains, changes, gain)
        return found, np.isfinite(found)

    return _along(curve, read, curve.retained, seed)


def at_loss(curve: Curve, loss: float, seed: int = 0) -> AtCommon:
    """The most that an arm had gained by the time that it had lost `loss` of a retained task.

    An arm that never loses so much is read to its end: that much can be had for less.

    Args:
        curve: of the arm.
        loss: on the retained task, above 0.
        seed: see `at_gain`.
    """

    def read(gains: Values, changes: Values) -> tuple[Values, Values]:
        return _within(gains, -changes, loss)

    return _along(curve, read, curve.target, seed)


def _along(curve: Curve, read: Read, of: Values, seed: int) -> AtCommon:
    rng = np.random.default_rng(seed)
    weights = [_weights(rng, one.shape[-1]) for one in (curve.target, curve.retained)]
    draws, reached = read(_means(curve.target, weights[0]), _means(curve.retained, weights[1]))
    count = curve.target.shape[1]
    without = [
        read(
            _means(_others(curve.target, left), None),
            _means(_others(curve.retained, left), None),
        )[0]
        for left in range(count if count > 1 else 0)
    ]
    change, _ = read(_means(curve.target, None), _means(curve.retained, None))
    n = int((~np.isnan(of)).any(axis=(0, 1)).sum())
    each = np.array([one[0] for one in without])
    bounded = curve.gains if of is curve.target else curve.bounded
    return AtCommon(float(change[0]), float(reached.mean()), draws, each, n, bounded)


def _others(table: Values, seed: int) -> Values:
    """The table without one seed."""
    return np.asarray(np.delete(table, seed, axis=1), dtype=np.float64)


def _weights(rng: np.random.Generator, items: int) -> Values:
    """How often each item is drawn, of shape (resamples, items)."""
    return rng.multinomial(items, np.full(items, 1 / items), size=RESAMPLES).astype(np.float64)


def _means(table: Values, weights: Values | None) -> Values:
    """Mean over seeds and items of each checkpoint, of shape (resamples, checkpoints)."""
    scored = ~np.isnan(table)
    filled = np.where(scored, table, 0.0)
    drawn = np.ones((1, table.shape[-1])) if weights is None else weights
    count = np.einsum("ri,csi->rcs", drawn, scored.astype(np.float64))
    total = np.einsum("ri,csi->rcs", drawn, filled)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = total / count
    known = np.isfinite(each)
    rows = known.sum(axis=-1)
    mean = np.where(known, each, 0.0).sum(axis=-1) / np.maximum(rows, 1)
    return np.asarray(np.where(rows > 0, mean, math.nan), dtype=np.float64)


def _read(gains: Values, changes: Values, gain: float) -> Values:
    """The change where each row's gain first reaches a value, NaN where it never does.

    A checkpoint that could not be scored is passed over: the line goes on to the next.

    Args:
        gains: of shape (rows, checkpoints).
        changes: of the same shape.
        gain: above 0, where every curve begins.
    """
    start = np.zeros((len(gains), 1))
    gains, changes = np.hstack([start, gains]), np.hstack([start, changes])
    known = np.isfinite(gains) & np.isfinite(changes)
    for place in range(1, gains.shape[1]):
        for table in (gains, changes):
            table[:, place] = np.where(known[:, place], table[:, place], table[:, place - 1])
    there = gains >= gain
    at = there.argmax(axis=1)
    rows = np.arange(len(gains))
    found = there[rows, at]
    before = np.maximum(at - 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (gain - gains[rows, before]) / (gains[rows, at] - gains[rows, before])
        change = changes[rows, before] + part * (changes[rows, at] - changes[rows, before])
    return np.asarray(np.where(found, change, math.nan), dtype=np.float64)


def _within(gains: Values, losses: Values, loss: float) -> tuple[Values, Values]:
    """The largest gain of each row until its loss first reaches a value, and whether it does.

    Args:
        gains: of shape (rows, checkpoints).
        losses: of the same shape.
        loss: above 0, where every curve begins.
    """
    known = np.isfinite(gains) & np.isfinite(losses)
    crossing = _read(np.where(known, losses, math.nan), gains, loss)
    reached = np.isfinite(crossing)
    over = known & (losses >= loss)
    at = np.where(over.any(axis=1), over.argmax(axis=1), gains.shape[1])
    before = np.arange(gains.shape[1])[None, :] < at[:, None]
    most = np.where(known & before, gains, 0.0).max(axis=1, initial=0.0)
    most = np.maximum(most, np.where(reached, crossing, 0.0))
    scored = known.any(axis=1)
    return np.asarray(np.where(scored, most, math.nan), dtype=np.float64), reached


def _interval(found: AtCommon) -> Interval:
    if not math.isfinite(found.change):
        return Interval(None, None, None, found.n, 0)
    seeds = len(found.without)
    known = found.draws[np.isfinite(found.draws)]
    short = len(known) < REACHES * len(found.draws)
    if short or not np.isfinite(found.without).all():
        return Interval(found.change, None, None, found.n, 0)
    pulls = found.without - found.without.mean() if seeds else np.zeros(0)
    over_seeds = float((pulls**2).sum()) * (seeds - 1) / seeds if seeds else 0.0
    over_items = float(known.var(ddof=1))
    df = max(0, seeds - 1)
    made = Estimate(found.change, over_seeds, over_items, df, max(1, found.n - 1), found.n, 0)
    alike = -math.log(0.05) / max(1, found.n) if found.bounded else 0.0
    half = made.half_width(0.95) if made.variance > 0 else alike
    low, high = found.change - half, found.change + half
    if found.bounded:
        low, high = max(-1.0, low), min(1.0, high)
    return Interval(found.change, low, high, found.n, 0)
