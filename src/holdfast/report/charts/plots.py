"""Two plots: gain against loss, and the trade-off.

Names are placed so that they hide nothing and are not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from holdfast.errors import printable
from holdfast.report.charts.axis import Axis, Kind, fit_axis
from holdfast.report.charts.marks import Dot, Line, Look, arm, grid, hit, marker, path, svg
from holdfast.report.language import Said

Spot = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def scatter(
    lines: Sequence[Line], fit: Sequence[Spot], within: Sequence[Spot], *, label: Said
) -> str:
    """One small chart of points in two differences of shares, without a path between them.

    Args:
        lines: an arm each; both units are shares, shown in points.
        fit: corners of the fitted line.
        within: what the axes must hold, so that charts of one section have the same.
        label: what a screen reader says of the picture.
    """
    width, height, size = 360, 260, 11.5
    x = fit_axis([0.0, *(a for a, _ in within)], 42, width - 12, "points", 6)
    y = fit_axis([0.0, *(b for _, b in within)], height - 28, 10, "points", 5)
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


@dataclass(frozen=True, slots=True)
class Track:
    """One arm in the picture.

    Attributes:
        name: of the arm.
        look: its own.
        course: from base through its checkpoints; the last dot bears the name.
        line: class of its line.
        scaled: a path for each checkpoint whose change was also applied in part: from base through
            the parts to all of it.
    """

    name: str
    look: Look
    course: tuple[Dot, ...]
    line: str = "line"
    scaled: tuple[tuple[Dot, ...], ...] = ()

    @property
    def dots(self) -> list[Dot]:
        """Everything that is drawn of it."""
        return [*self.course, *(dot for part in self.scaled for dot in part)]


def trade_off(
    tracks: Sequence[Track],
    *,
    kind: Kind,
    narrow: bool,
    label: Said,
    stairs: bool = False,
    upward: Kind = "share",
) -> str:
    """Both abilities in one picture: a path per arm, from base to its final checkpoint.

    Args:
        tracks: base (one dot) and the arms; x is what was kept, y what was learnt.
        kind: of the axis across.
        narrow: draw for a phone.
        label: what a screen reader says of the picture.
        stairs: draw for each arm the border of what its own points reach, which is seen when
            it is singled out.
        upward: kind of the other axis.
    """
    width, height = (360, 400) if narrow else (1000, 540)
    size, edge = (12.0, 40.0) if narrow else (13.0, 46.0)
    tracks = [track for track in tracks if track.course]
    dots = [dot for track in tracks for dot in track.dots]
    ends = [track.course[-1] for track in tracks]
    across = [d.x for d in dots] + [v for d in ends for v in d.x_span or ()]
    up = [d.y for d in dots] + [v for d in ends for v in d.y_span or ()]
    x = fit_axis(across, edge, width - 14, kind, 4 if narrow else 8)
    y = fit_axis(up, height - 28, 12, upward, 7)
    parts, taken = [grid(x, y, upright=True)], list[Box]()
    for track in sorted(tracks, key=lambda one: one.look.number < 0):
        own = _stairs(track.dots, x, y) * (stairs and track.look.number >= 0)
        parts.append(arm(track.look, own + _track(track, x, y, taken)))
    names: list[Box] = []  # and the final marks, which must not be hidden either
    for end in ends:
        left, top = x.at(end.x), y.at(end.y)
        names.append((left - 8, top - 8, left + 8, top + 8))
    for track in tracks:
        spot = (x.at(track.course[-1].x), y.at(track.course[-1].y))
        name = clip(track.name, 14 if narrow else 28)
        wide = len(name) * size * GLYPH
        left, top = free_place(spot, wide, size, taken, names, (x.start, y.end, x.end, y.start))
        px, py = min(max(spot[0], left), left + wide), min(max(spot[1], top - size), top)
        lead = f'<path class="lead" d="M{spot[0]} {spot[1]}L{px:.1f} {py:.1f}"/>'
        text = f'<text class="name" x="{left:.1f}" y="{top:.1f}">{escape(name)}</text>'
        parts.append(arm(track.look, lead * (math.dist(spot, (px, py)) > 18) + text))
    return svg("".join(parts), width, height, ("wide", "narrow")[narrow], label, size)


def _track(track: Track, x: Axis, y: Axis, taken: list[Box]) -> str:
    """One arm's paths and points; what they cover is added to `taken`."""
    final = track.course[-1]
    left, top = x.at(final.x), y.at(final.y)
    inner = ""
    if track.look.number < 0:
        inner += f'<path class="home" d="M{left} {y.start}V{y.end}M{x.start} {top}H{x.end}"/>'
    for dots in track.scaled:
        spots = [(x.at(d.x), y.at(d.y)) for d in dots]
        inner += path(spots, "line part")
        taken += along(spots)
    spots = [(x.at(d.x), y.at(d.y)) for d in track.course]
    inner += path(spots, track.line)
    (a, b), (c, d) = final.x_span or (final.x,) * 2, final.y_span or (final.y,) * 2
    a, b, c, d = x.at(a), x.at(b), y.at(c), y.at(d)
    taken += [*along(spots), (a, top - 2, b, top + 2), (left - 2, d, left + 2, c)]
    inner += f'<path class="whisker" d="M{a} {top}H{b}M{left} {c}V{d}"/>'
    shown = [dot for dot in track.dots if dot.role != "corner"]
    return inner + "".join(_point(track.look, dot, x.at(dot.x), y.at(dot.y)) for dot in shown)


def _point(look: Look, dot: Dot, left: float, top: float) -> str:
    """A large mark for the final checkpoint, small hollow ones else; a ring on the frontier."""
    if dot.role == "final":
        shape = marker(look, left, top, 7)
    elif dot.role == "scaled":
        shape = marker(look, left, top, 3.8, "way")
    else:
        shape = f'<circle class="way" cx="{left}" cy="{top}" r="3"/>'
    halo = f'<circle class="halo" cx="{left}" cy="{top}" r="{11 if dot.role == "final" else 6.5}"/>'
    return hit(dot, left, top, halo * dot.front + shape)


def _stairs(dots: Sequence[Dot], x: Axis, y: Axis) -> str:
    """The border of what one arm reaches: right of it and above it none of its points lies."""
    best: list[tuple[float, float]] = []
    for dot in sorted(dots, key=lambda one: (-one.x, -one.y)):
        spot = (x.at(dot.x), y.at(dot.y))
        if not best or spot[1] < best[-1][1]:  # pixels grow downward
            best.append(spot)
    best.reverse()
    if not best:
        return ""
    steps = "".join(f"V{top}H{left}" for left, top in best[1:])
    return f'<path class="front" d="M{x.start} {best[0][1]}H{best[0][0]}{steps}V{y.start}"/>'


GLYPH = 0.6  # width of an average letter, in font sizes; generous, since the font is unknown
BOLD = 0.68  # of a bold one

AWAY = (13.0, 22.0, 34.0, 48.0, 64.0, 84.0, 106.0)  # distances from the dot that are tried
CLASH = 8  # times that hiding a name is worse than hiding a line


def clip(text: str, length: int) -> str:
    """`text`, shortened in its middle if it is too long: variants of a sweep differ at the end."""
    text = printable(text)
    if len(text) <= length:
        return text
    tail = length // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


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


def free_place(
    spot: Spot, wide: float, size: float, taken: list[Box], names: list[Box], frame: Box
) -> Spot:
    """Where the name of a dot hides least; the place is then taken.

    Args:
        spot: the dot.
        wide: width of the name.
        size: of the font.
        taken: what should not be hidden.
        names: names that stand already, which must not be; this one's box is appended.
        frame: what the name must not leave.

    Returns:
        Left end and base line of the text.
    """
    reach = AWAY[-1] + size
    around = (spot[0] - reach - wide, spot[1] - reach, spot[0] + reach + wide, spot[1] + reach)
    near = [box for box in taken if _overlap(around, box)]
    near += CLASH * [box for box in names if _overlap(around, box)]
    best = (math.inf, (*spot, *spot))
    for away in AWAY:
        for rank, (dx, dy) in enumerate(((1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1))):
            if 10 * away + rank >= best[0]:
                continue
            shift = away * (0.75 if dy else 1)
            left = spot[0] + (shift if dx > 0 else -shift - wide)
            top = spot[1] + dy * shift - size / 2
            for begin in (left, left + dx * -wide / 2) if dy else (left,):
                box = (begin, top, begin + wide, top + size)
                cost = 10 * away + rank + sum(_overlap(box, other) for other in near)
                cost += 20 * (wide * size - _overlap(box, frame))  # never cut off
                best = min(best, (cost, box))
    left, top, right, bottom = best[1]
    names.append((left - 2, top - 2, right + 2, bottom + 2))
    return best[1][0], best[1][3] - size * 0.15


def along(spots: Sequence[Spot]) -> list[Box]:
    """Small boxes along a path, for names to stay clear of."""
    boxes = []
    for (a, b), (c, d) in pairwise(spots):
        count = max(1, int(math.hypot(c - a, d - b) / 6))
        for number in range(count + 1):
            px, py = a + (c - a) * number / count, b + (d - b) * number / count
            boxes.append((px - 4, py - 4, px + 4, py + 4))
    return boxes


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    if across <= 0:
        return 0.0
    return across * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
