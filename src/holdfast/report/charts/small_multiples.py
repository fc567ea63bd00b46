"""Small charts that stand side by side: figures over training steps, and gain against loss."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from holdfast.report.charts.axis import Axis, fit_axis
from holdfast.report.charts.labels import GLYPH, clip, spread
from holdfast.report.charts.marks import Line, arm, grid, hit, marker, path, svg

NAME = 15  # letters of an arm's name that have room beside its line


def course(lines: Sequence[Line], *, percent: bool, label: str) -> str:
    """One small chart of a figure over training steps, an interval band and a name per arm."""
    lines = [line for line in lines if line.dots]
    width, size = 360, 11.5
    height = max(250, 60 + 14 * len(lines))  # a row for every name
    values = [v for line in lines for d in line.dots for v in (d.y, *(d.y_span or ()))]
    longest = max((len(clip(line.name, NAME)) for line in lines), default=4)
    right = width - 14 - longest * size * GLYPH
    x = fit_axis([d.x for line in lines for d in line.dots], 42, right, "step", 4)
    y = fit_axis(values, height - 26, 10, "share" if percent else "any", 5)
    parts, names = [grid(x, y, upright=False)], []
    for line in sorted(lines, key=lambda one: one.look.number < 0):
        base = line.look.number < 0
        spots = [(x.at(d.x), y.at(d.y)) for d in line.dots]
        inner = _band(line, x, y)
        if base:
            inner += f'<path class="home" d="M{x.start} {spots[0][1]}H{x.end}"/>'
        inner += path(spots)
        for number, (dot, (left, top)) in enumerate(zip(line.dots, spots, strict=True)):
            if number or base or not percent:  # a path starts at base's own dot
                shape = marker(line.look, left, top, 3.4) if percent else ""
                inner += hit(dot, left, top, shape)
        names.append((spots[0][1] if base else spots[-1][1], line, spots[-1][0]))
        parts.append(arm(line.look, inner))
    names.sort(key=lambda one: (one[0], one[1].look.number))
    heights = spread([top for top, _, _ in names], 14, 12, height - 28)
    for (top, line, left), place in zip(names, heights, strict=True):
        away = abs(place - top) > 4
        end = right if line.look.number < 0 else left
        lead = f'<path class="lead" d="M{end + 5} {top}L{right + 6} {place:.1f}"/>' if away else ""
        name = escape(clip(line.name, NAME))
        text = f'<text class="name" x="{right + 9:.1f}" y="{place + 4:.1f}">{name}</text>'
        parts.append(arm(line.look, lead + text))
    return svg("".join(parts), width, height, "only", label, size)


def _band(line: Line, x: Axis, y: Axis) -> str:
    """The interval as a band, or as a bar where there is only one dot."""
    ends = [(x.at(d.x), y.at(d.y_span[0]), y.at(d.y_span[1])) for d in line.dots if d.y_span]
    if len(ends) > 1:
        corners = [f"{left} {low}" for left, low, _ in ends]
        corners += [f"{left} {high}" for left, _, high in reversed(ends)]
        return f'<path class="band" d="M{"L".join(corners)}Z"/>'
    return "".join(f'<path class="whisker" d="M{left} {a}V{b}"/>' for left, a, b in ends)


def scatter(lines: Sequence[Line], fit: Sequence[tuple[float, float]], *, label: str) -> str:
    """One small chart of points in two differences of shares, without a path between them.

    Args:
        lines: an arm each; both units are shares, shown in points.
        fit: corners of the fitted line.
        label: what a screen reader says of the picture.
    """
    width, height, size = 360, 260, 11.5
    dots = [dot for line in lines for dot in line.dots]
    x = fit_axis([0.0, *(d.x for d in dots), *(a for a, _ in fit)], 42, width - 12, "points", 6)
    y = fit_axis([0.0, *(d.y for d in dots), *(b for _, b in fit)], height - 28, 10, "points", 5)
    parts = [grid(x, y, upright=False)]
    parts.append(
        f'<path class="home" d="M{x.at(0)} {y.start}V{y.end}M{x.start} {y.at(0)}H{x.end}"/>'
    )
    for line in lines:
        shapes = [
            hit(dot, x.at(dot.x), y.at(dot.y), marker(line.look, x.at(dot.x), y.at(dot.y), 3.6))
            for dot in line.dots
        ]
        parts.append(arm(line.look, "".join(shapes)))
    parts.append(path([(x.at(a), y.at(b)) for a, b in fit], "fit"))
    return svg("".join(parts), width, height, "only", label, size)
