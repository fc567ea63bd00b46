"""Small charts that stand side by side on one scale: figures over training steps, and groups.

Few arms share a chart; more have one each, in which the others are grey, so that nothing overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from holdfast.report.charts.axis import Axis, Kind, fit_axis
from holdfast.report.charts.marks import Dot, Line, Look, arm, grid, hit, marker, path, svg
from holdfast.report.charts.plots import BOLD, GLYPH, clip, spread
from holdfast.report.language import Said

NAME = 15  # letters of an arm's name that have room beside its line
APART = 5.0  # pixels between the whiskers of two arms at the same step
SIZE = 11.5


@dataclass(frozen=True, slots=True)
class Scale:
    """What the charts of a section have in common, so that they can be compared.

    Attributes:
        across: all training steps.
        upward: all values, ends of intervals included.
        percent: values are shares.
    """

    across: tuple[float, ...]
    upward: tuple[float, ...]
    percent: bool


def scale_of(charts: Sequence[Sequence[Line]], *, percent: bool) -> Scale:
    """One scale for all of these charts."""
    dots = [dot for lines in charts for line in lines for dot in line.dots]
    values = [v for dot in dots for v in (dot.y, *(dot.y_span or ()))]
    return Scale(tuple(dot.x for dot in dots), tuple(values), percent)


def course(lines: Sequence[Line], scale: Scale, label: Said) -> str:
    """A figure over training steps: a line, whiskers and a name for every arm."""
    lines = [line for line in lines if line.dots]
    width, height = 360, max(250, 60 + 14 * len(lines))  # a row for every name
    longest = max((len(clip(line.name, NAME)) for line in lines), default=4)
    right = width - 14 - longest * SIZE * BOLD
    x, y = _axes(scale, right, height, 4)
    parts, names = [grid(x, y, upright=False)], []
    trained = [line for line in lines if line.look.number >= 0]
    for line in sorted(lines, key=lambda one: one.look.number < 0):
        base = line.look.number < 0
        place = 0.0 if base else trained.index(line) - (len(trained) - 1) / 2
        spots = [(x.at(d.x), y.at(d.y)) for d in line.dots]
        parts.append(arm(line.look, _line(line, (x, y), place * APART, scale.percent)))
        names.append((spots[0][1] if base else spots[-1][1], line, spots[-1][0]))
    names.sort(key=lambda one: (one[0], one[1].look.number))
    heights = spread([top for top, _, _ in names], 14, 12, height - 28)
    for (top, line, left), place in zip(names, heights, strict=True):
        end = right if line.look.number < 0 else left
        lead = f'<path class="lead" d="M{end + 5} {top}L{right + 6} {place:.1f}"/>'
        name = escape(clip(line.name, NAME))
        text = f'<text class="name" x="{right + 9:.1f}" y="{place + 4:.1f}">{name}</text>'
        parts.append(arm(line.look, (lead if abs(place - top) > 4 else "") + text))
    return svg("".join(parts), width, height, "only", label, SIZE)


def single(lines: Sequence[Line], shown: Line, scale: Scale, label: Said) -> str:
    """The same for one arm, the others in grey behind it."""
    width, height = 250, 168
    x, y = _axes(scale, width - 10, height, 3)
    parts = [grid(x, y, upright=False)]
    for line in lines:
        if line is not shown and line.dots and line.look.number >= 0:
            parts.append(path([(x.at(d.x), y.at(d.y)) for d in line.dots], "other"))
    for line in lines:
        if line.dots and line.look.number < 0:
            parts.append(arm(line.look, _home(line, x, y)))
    parts.append(arm(shown.look, _line(shown, (x, y), 0.0, scale.percent)))
    return svg("".join(parts), width, height, "only", label, SIZE)


def _axes(scale: Scale, right: float, height: float, count: int) -> tuple[Axis, Axis]:
    kind: Kind = "share" if scale.percent else "any"
    across = fit_axis(scale.across, 42, right, "step", count)
    return across, fit_axis(scale.upward, height - 26, 10, kind, 5)


def _home(line: Line, x: Axis, y: Axis) -> str:
    return f'<path class="home" d="M{x.start} {y.at(line.dots[0].y)}H{x.end}"/>'


def _line(line: Line, axes: tuple[Axis, Axis], shift: float, percent: bool) -> str:
    """One arm: whiskers, moved aside by `shift` pixels, the line and its points."""
    x, y = axes
    base = line.look.number < 0
    spots = [(round(x.at(d.x) + (shift if d.x else 0), 1), y.at(d.y)) for d in line.dots]
    inner = _home(line, x, y) if base else ""
    marks = []
    for number, (dot, (left, top)) in enumerate(zip(line.dots, spots, strict=True)):
        if not (number or base or not percent):  # a path starts at base's own dot
            continue
        if dot.y_span:
            low, high = map(y.at, dot.y_span)
            inner += f'<path class="whisker" d="M{left} {low}V{high}"/>'
        seen = percent or len(line.dots) == 1  # no line goes through one point
        marks.append(hit(dot, left, top, marker(line.look, left, top, 3.4) if seen else ""))
    return inner + path(spots) + "".join(marks)


@dataclass(frozen=True, slots=True)
class Row:
    """One group: base and one arm."""

    name: str
    base: Dot | None
    dot: Dot | None


def dots(rows: Sequence[Row], look: Look, base: Look, label: Said) -> str:
    """Groups below each other, from 0 to 100 %: base's ring, the arm's mark and its interval."""
    width, step = 340, 21
    longest = min(22, max((len(row.name) for row in rows), default=4))
    left, height = 10 + longest * SIZE * GLYPH, 34 + step * len(rows)
    x = Axis(0.0, 1.0, left, width - 14, tuple((v, f"{v:.0%}") for v in (0.0, 0.5, 1.0)))
    parts = []
    for value, text in x.ticks:
        at = x.at(value)
        parts.append(f'<path class="grid" d="M{at} {height - 26}V4"/>')
        parts.append(f'<text class="tick mid" x="{at}" y="{height - 8}">{text}</text>')
    for number, row in enumerate(rows):
        top = 14 + step * number
        name = escape(clip(row.name, 22))
        parts.append(f'<text class="tick end" x="{left - 9:.1f}" y="{top + 4}">{name}</text>')
        parts.append(f'<path class="grid" d="M{left} {top}H{x.end}"/>')
        if row.base and row.dot:
            join = f"M{x.at(row.base.x)} {top}H{x.at(row.dot.x)}"
            parts.append(arm(look, f'<path class="moved" d="{join}"/>'))
        if row.base:
            mark = marker(base, x.at(row.base.x), top, 4)
            parts.append(arm(base, hit(row.base, x.at(row.base.x), top, mark)))
        if row.dot:
            low, high = map(x.at, row.dot.x_span or (row.dot.x, row.dot.x))
            ends = f'<path class="whisker" d="M{low} {top}H{high}"/>'
            mark = marker(look, x.at(row.dot.x), top, 4.2)
            parts.append(arm(look, ends + hit(row.dot, x.at(row.dot.x), top, mark)))
    return svg("".join(parts), width, height, "only", label, SIZE)
