"""How is a chart drawn so that it needs no library, no network and no colour it did not choose?

Charts are inline SVG with classes instead of colours: the page's stylesheet gives each arm its tone
(`--c`), in light, dark and print, and one short script turns the `data-tip` of each dot into a
tooltip. Everything works without the script, through `<title>`. Texts are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Literal

TONES = 7  # colours in the palette (Okabe-Ito without black); `tone` c0 ... c6, and cb for base
SIDES = (4, 3, -3, 5, 6)  # after the circle: square, triangles up and down, pentagon, hexagon
GLYPH = 0.6  # width of an average letter, in font sizes; generous, since the font is unknown

Kind = Literal["share", "step", "any"]
Span = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Dot:
    """One measured point, in the units of the axes."""

    x: float
    y: float
    tip: str
    x_span: Span | None = None
    y_span: Span | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One arm; `number` is its place among the arms, -1 for base."""

    name: str
    number: int
    dots: tuple[Dot, ...]

    @property
    def tone(self) -> str:
        """The class that carries the arm's colour."""
        return tone(self.number)


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis: values `low`..`high` on pixels `start`..`end`, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]  # value and text

    def at(self, value: float) -> float:
        """The pixel of a value."""
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)


def tone(number: int) -> str:
    """The colour class of the arm in place `number` (-1: base)."""
    return "cb" if number < 0 else f"c{number % TONES}"


def fit_axis(values: Iterable[float], start: float, end: float, kind: Kind, count: int) -> Axis:
    """An axis that holds `values` with air around them and about `count` round ticks.

    Args:
        values: what must be visible.
        start: pixel of the low end.
        end: pixel of the high end.
        kind: of a share, which is never zoomed in on less than 10 points and has no tick outside
            0..1; of training steps, which are whole and not negative; or any number.
        count: about how many ticks.
    """
    finite = sorted(value for value in values if math.isfinite(value)) or [0.0, 1.0]
    low, high = finite[0], finite[-1]
    least = {"share": 0.1, "step": 1.0}.get(kind, 0.05 * abs(high) or 1.0)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
        shift = max(0.0, -low) - max(0.0, high - 1) if kind == "share" else 0.0
        low, high = low + shift, high + shift
    rough = max((high - low) / count, 1.0 if kind == "step" else 0.0)
    power = 10 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    marks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if kind == "share":
        texts = [(m, f"{100 * m:.0f}\u202f%") for m in marks if -1e-9 <= m <= 1 + 1e-9]
    else:
        texts = [(m, f"{m:,.6g}") for m in marks if m >= 0 or kind == "any"]
    return Axis(low, high, start, end, tuple(texts))


def marker(number: int, x: float, y: float, radius: float) -> str:
    """The arm's own shape, so that colour is never the only sign; base is a ring."""
    if number < 0:
        return f'<circle class="ring" cx="{x}" cy="{y}" r="{radius}"/>'
    if number % (len(SIDES) + 1) == 0:
        return f'<circle cx="{x}" cy="{y}" r="{radius}"/>'
    sides = SIDES[number % (len(SIDES) + 1) - 1]
    turn = math.pi / 2 if sides < 0 else -math.pi / 2 + (math.pi / 4 if sides == 4 else 0)
    reach = radius * (1.3 if abs(sides) <= 4 else 1.1)
    angles = [turn + 2 * math.pi * corner / abs(sides) for corner in range(abs(sides))]
    points = " ".join(
        f"{x + reach * math.cos(a):.1f},{y + reach * math.sin(a):.1f}" for a in angles
    )
    return f'<polygon points="{points}"/>'


def swatch(number: int) -> str:
    """The arm's marker as a small picture for legends and tables."""
    look = f'class="swatch {tone(number)}" viewBox="0 0 16 16" width="16" height="16"'
    return f'<svg {look} aria-hidden="true">{marker(number, 8, 8, 5)}</svg>'


def trade_off(lines: Sequence[Line], *, narrow: bool, label: str) -> str:
    """Both abilities in one picture: a path per arm, from base to its final checkpoint.

    Args:
        lines: base (number -1, one dot) and the arms; x is what was kept, y what was learnt.
        narrow: draw for a phone.
        label: what a screen reader says of the picture.
    """
    width, height = (360, 360) if narrow else (1000, 500)
    size, edge = (12.0, 40.0) if narrow else (13.0, 46.0)
    ends = [line.dots[-1] for line in lines if line.dots]
    across = [d.x for line in lines for d in line.dots] + [v for d in ends for v in d.x_span or ()]
    upward = [d.y for line in lines for d in line.dots] + [v for d in ends for v in d.y_span or ()]
    x = fit_axis(across, edge, width - 14, "share", 4 if narrow else 8)
    y = fit_axis(upward, height - 28, 12, "share", 7)
    parts, taken = [_grid(x, y, upright=True)], list[Box]()
    for line in sorted(lines, key=lambda one: one.number < 0):
        spots = [(x.at(d.x), y.at(d.y)) for d in line.dots]
        if not spots:
            continue
        inner, (left, top), final = _path(spots), spots[-1], line.dots[-1]
        if line.number < 0:
            inner = f'<path class="home" d="M{left} {y.start}V{y.end}M{x.start} {top}H{x.end}"/>'
        for dot, (px, py) in list(zip(line.dots, spots, strict=True))[1:-1]:  # 0 is base's own
            inner += _hit(dot, px, py, f'<circle class="way" cx="{px}" cy="{py}" r="3"/>')
        (a, b), (c, d) = final.x_span or (final.x,) * 2, final.y_span or (final.y,) * 2
        a, b, c, d = x.at(a), x.at(b), y.at(c), y.at(d)
        taken += [*_along(spots), (left - 9, top - 9, left + 9, top + 9)]
        taken += [(a, top - 2, b, top + 2), (left - 2, d, left + 2, c)]
        inner += f'<path class="whisker" d="M{a} {top}H{b}M{left} {c}V{d}"/>'
        inner += _hit(final, left, top, marker(line.number, left, top, 7))
        parts.append(_arm(line, inner))
    for line in lines:
        if line.dots:
            spot = (x.at(line.dots[-1].x), y.at(line.dots[-1].y))
            name = clip(line.name, 14 if narrow else 28)
            wide = len(name) * size * GLYPH
            left, top = _free(spot, wide, size, taken, (x.start, y.end, x.end, y.start))
            px, py = min(max(spot[0], left), left + wide), min(max(spot[1], top - size), top)
            lead = f'<path class="lead" d="M{spot[0]} {spot[1]}L{px:.1f} {py:.1f}"/>'
            text = f'<text class="name" x="{left:.1f}" y="{top:.1f}">{escape(name)}</text>'
            parts.append(_arm(line, lead * (math.dist(spot, (px, py)) > 18) + text))
    return _svg("".join(parts), width, height, ("wide", "narrow")[narrow], label, size)


def course(lines: Sequence[Line], *, percent: bool, label: str) -> str:
    """One small chart of a figure over training steps, an interval band and a name per arm."""
    width, height, size = 360, 250, 11.5
    values = [v for line in lines for d in line.dots for v in (d.y, *(d.y_span or ()))]
    longest = max((len(clip(line.name, 12)) for line in lines), default=4)
    right = width - 14 - longest * size * GLYPH
    x = fit_axis([d.x for line in lines for d in line.dots], 42, right, "step", 4)
    y = fit_axis(values, height - 26, 10, "share" if percent else "any", 5)
    parts, names = [_grid(x, y, upright=False)], []
    for line in sorted(lines, key=lambda one: one.number < 0):
        spots = [(x.at(d.x), y.at(d.y)) for d in line.dots]
        if not spots:
            continue
        inner = _band(line, x, y)
        if line.number < 0:
            inner += f'<path class="home" d="M{x.start} {spots[0][1]}H{x.end}"/>'
        inner += _path(spots)
        for number, (dot, (left, top)) in enumerate(zip(line.dots, spots, strict=True)):
            if number or line.number < 0 or not percent:  # a path starts at base's own dot
                shape = marker(line.number, left, top, 3.4) if percent else ""
                inner += _hit(dot, left, top, shape)
        names.append((spots[-1][1] if line.number >= 0 else spots[0][1], line, spots[-1][0]))
        parts.append(_arm(line, inner))
    names.sort(key=lambda one: (one[0], one[1].number))
    heights = spread([top for top, _, _ in names], 14, 12, height - 28)
    for (top, line, left), place in zip(names, heights, strict=True):
        away = abs(place - top) > 4
        end = left if line.number >= 0 else right
        lead = f'<path class="lead" d="M{end + 5} {top}L{right + 6} {place:.1f}"/>' if away else ""
        name = escape(clip(line.name, 12))
        text = f'<text class="name" x="{right + 9:.1f}" y="{place + 4:.1f}">{name}</text>'
        parts.append(_arm(line, lead + text))
    return _svg("".join(parts), width, height, "only", label, size)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move sorted positions apart until they are `gap` from each other, within `low`..`high`."""
    placed: list[float] = []
    for value in wanted:
        placed.append(max(value, placed[-1] + gap if placed else low))
    over = high
    for number in range(len(placed) - 1, -1, -1):
        placed[number] = min(placed[number], over)
        over = placed[number] - gap
    return placed


def clip(text: str, length: int) -> str:
    """`text`, shortened with an ellipsis if it is longer than `length`."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _free(spot: Span, wide: float, size: float, taken: list[Box], frame: Box) -> Span:
    """Where the name of a final dot hides least; the place is then taken."""
    best = (math.inf, (*spot, *spot))
    for away in (13.0, 22.0, 34.0):
        for rank, (dx, dy) in enumerate(((1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1))):
            shift = away * (0.75 if dy else 1)
            left = spot[0] + (shift if dx > 0 else -shift - wide)
            top = spot[1] + dy * shift - size / 2
            for begin in (left, left + dx * -wide / 2) if dy else (left,):
                box = (begin, top, begin + wide, top + size)
                cost = 10 * away + rank + sum(_overlap(box, other) for other in taken)
                cost += 20 * (wide * size - _overlap(box, frame))  # never cut off
                best = min(best, (cost, box))
    taken.append(best[1])
    return best[1][0], best[1][3] - size * 0.15


def _overlap(one: Box, other: Box) -> float:
    across, down = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return across * down if across > 0 and down > 0 else 0.0


def _along(spots: Sequence[tuple[float, float]]) -> list[Box]:
    """Small boxes along a path, for names to stay clear of."""
    boxes = []
    for (a, b), (c, d) in pairwise(spots):
        count = max(1, int(math.hypot(c - a, d - b) / 6))
        for number in range(count + 1):
            px, py = a + (c - a) * number / count, b + (d - b) * number / count
            boxes.append((px - 4, py - 4, px + 4, py + 4))
    return boxes


def _grid(x: Axis, y: Axis, *, upright: bool) -> str:
    parts = [f'<path class="axis" d="M{x.start} {y.start}H{x.end}"/>']
    for value, text in y.ticks:
        top = y.at(value)
        parts.append(f'<path class="grid" d="M{x.start} {top}H{x.end}"/>')
        parts.append(f'<text class="tick end" x="{x.start - 7}" y="{top + 4}">{text}</text>')
    for value, text in x.ticks:
        left = x.at(value)
        parts.append(f'<path class="grid" d="M{left} {y.start}V{y.end}"/>' if upright else "")
        parts.append(f'<text class="tick mid" x="{left}" y="{y.start + 19}">{text}</text>')
    return "".join(parts)


def _path(spots: Sequence[Span]) -> str:
    joined = "L".join(f"{left} {top}" for left, top in spots)
    return f'<path class="line" d="M{joined}"/>' if len(spots) > 1 else ""


def _band(line: Line, x: Axis, y: Axis) -> str:
    """The interval as a band, or as a bar where there is only one dot."""
    ends = [(x.at(d.x), y.at(d.y_span[0]), y.at(d.y_span[1])) for d in line.dots if d.y_span]
    if len(ends) > 1:
        corners = [f"{left} {low}" for left, low, _ in ends]
        corners += [f"{left} {high}" for left, _, high in reversed(ends)]
        return f'<path class="band" d="M{"L".join(corners)}Z"/>'
    return "".join(f'<path class="whisker" d="M{left} {a}V{b}"/>' for left, a, b in ends)


def _hit(dot: Dot, left: float, top: float, shape: str) -> str:
    tip = escape(dot.tip)
    return (
        f'<g class="pt" data-tip="{tip}" data-x="{left}" data-y="{top}">'
        f"<title>{tip}</title>{shape}</g>"
    )


def _arm(line: Line, inner: str) -> str:
    return f'<g class="arm {line.tone}" data-arm="{line.number}">{inner}</g>'


def _svg(inner: str, width: int, height: int, kind: str, label: str, size: float) -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" font-size="{size}" role="img" '
        f'tabindex="0" aria-label="{escape(label)}">{inner}</svg>'
    )
