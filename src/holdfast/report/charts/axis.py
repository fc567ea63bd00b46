"""Axes: the pixel of a value, and round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["share", "points", "root", "step", "any"]
LEAST = {"share": 0.1, "points": 0.02, "root": 0.02, "step": 1.0}
ROOTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # ticks of an axis spaced by roots


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: values `low`..`high` on pixels `start`..`end`, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]  # value and text
    root: bool = False  # spaced by the square root of the distance from 0, on either side

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (
            math.copysign(math.sqrt(abs(one)), one) if self.root else one
            for one in (self.low, self.high, value)
        )
        part = (value - low) / (high - low)
        return round(self.start + part * (self.end - self.start), 1)


def fit_axis(values: Iterable[float], start: float, end: float, kind: Kind, count: int) -> Axis:
    """An axis that holds `values` with air around them and about `count` round ticks.

    Args:
        values: what must be visible.
        start: pixel of the low end.
        end: pixel of the high end.
        kind: of a share, which is never zoomed in on less than 10 points and has no tick outside
            0..1; of a difference of shares, shown in points, or
            ``root``, spaced so that small ones can be told apart; of training steps, which are
            whole and not negative; or any number.
        count: about how many ticks.
    """
    finite = sorted(value for value in values if math.isfinite(value)) or [0.0, 1.0]
    low, high = finite[0], finite[-1]
    least = LEAST.get(kind, 0.05 * abs(high) or 1.0)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
        shift = max(0.0, -low) - max(0.0, high - 1) if kind == "share" else 0.0
        low, high = low + shift, high + shift
    if kind == "root":
        return _rooted(low, high, start, end, count)
    rough = max((high - low) / count, 1.0 if kind == "step" else 0.0)
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    marks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if kind == "share":
        texts = [(m, f"{100 * m:.0f}\u202f%") for m in marks if -1e-9 <= m <= 1 + 1e-9]
    elif kind == "points":
        texts = [(m, _points(m)) for m in marks]
    else:
        texts = [(m, f"{m:,.6g}") for m in marks if m >= 0 or kind == "any"]
    return Axis(low, high, start, end, tuple(texts))


def _points(value: float) -> str:
    text = f"{100 * value:+.4g}".replace("-", "\u2212")
    return "0" if abs(value) < 1e-9 else text


def _rooted(low: float, high: float, start: float, end: float, count: int) -> Axis:
    """An axis that is spaced by roots, with as many of `ROOTS` as have room."""
    low, high = min(1.08 * low, -0.001), max(1.08 * high, 0.001)
    bare = Axis(low, high, start, end, (), root=True)
    room = abs(end - start) / (2 * count)
    marks, last = [0.0], {-1: bare.at(0.0), 1: bare.at(0.0)}
    for sign in (-1, 1):
        for size in ROOTS:
            mark = sign * size
            if low <= mark <= high and abs(bare.at(mark) - last[sign]) >= room:
                marks.append(mark)
                last[sign] = bare.at(mark)
    return replace(bare, ticks=tuple((mark, _points(mark)) for mark in sorted(marks)))
