"""Does one change grow with another: a point for everything measured, and a fitted line?"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.report.charts.axis import fit_axis
from holdfast.report.charts.looks import marker
from holdfast.report.charts.marks import Line, arm, grid, hit, path, svg


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
