"""The parts that charts are made of: an arm's colour and shape, dots, lines, grid and frame.

Colour is the family's (the arm of the study file), so that the variants of a sweep belong together;
the shape tells its variants apart, and families whose colours had to be used twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from holdfast.errors import printable
from holdfast.report.charts.axis import Axis
from holdfast.report.language import Said, labelled

TONES = 7  # colours in the palette (Okabe-Ito without black); classes c0 ... c6, and cb for base
SIDES = (4, 3, -3, 5, 6)  # after the circle: square, triangles up and down, pentagon, hexagon
SHAPES = len(SIDES) + 1
Span = tuple[float, float]
Role = Literal["corner", "way", "scaled", "final"]


@dataclass(frozen=True, slots=True)
class Look:
    """How one arm looks.

    Attributes:
        number: its place among the trained arms, -1 for base; what the page's script knows it by.
        tone: the class that carries its colour.
        shape: 0 a circle, then `SIDES`; -1 base's ring.
    """

    number: int
    tone: str
    shape: int


BASE = Look(-1, "cb", -1)


def looks(families: Sequence[str]) -> list[Look]:
    """A look for each trained arm, in order; no two are alike as long as that is possible.

    Args:
        families: the family of each arm; its own name where it is no sweep.
    """
    order = list(dict.fromkeys(families))
    taken: set[tuple[str, int]] = set()
    found = []
    for number, family in enumerate(families):
        place = order.index(family)
        tone = f"c{place % TONES}"
        wanted = [(place + turn) % SHAPES for turn in range(SHAPES)]
        shape = next((one for one in wanted if (tone, one) not in taken), wanted[0])
        taken.add((tone, shape))
        found.append(Look(number, tone, shape))
    return found


def marker(look: Look, x: float, y: float, radius: float, name: str = "") -> str:
    """The arm's own shape, so that colour is never the only sign; base is a ring.

    Args:
        look: whose.
        x: centre.
        y: centre.
        radius: of the circle; the other shapes are made to look as large.
        name: a class, for hollow and small ones.
    """
    ring = "ring" if look.shape < 0 else ""
    kind = f' class="{ring or name}"' if ring or name else ""
    if look.shape <= 0:
        return f'<circle{kind} cx="{x}" cy="{y}" r="{radius}"/>'
    sides = SIDES[look.shape - 1]
    turn = math.pi / 2 if sides < 0 else -math.pi / 2 + (math.pi / 4 if sides == 4 else 0)
    reach = radius * (1.3 if abs(sides) <= 4 else 1.1)
    angles = [turn + 2 * math.pi * corner / abs(sides) for corner in range(abs(sides))]
    points = " ".join(
        f"{x + reach * math.cos(a):.1f},{y + reach * math.sin(a):.1f}" for a in angles
    )
    return f'<polygon{kind} points="{points}"/>'


def swatch(look: Look) -> str:
    """The arm's marker as a small picture for legends and tables."""
    kind = f'class="swatch {look.tone}" viewBox="0 0 16 16" width="16" height="16"'
    return f'<svg {kind} aria-hidden="true">{marker(look, 8, 8, 5)}</svg>'


@dataclass(frozen=True, slots=True)
class Dot:
    """One measured point, in the units of the axes.

    Attributes:
        x: across.
        y: upward.
        tip: what the tooltip says, in lines.
        x_span: interval.
        y_span: interval.
        role: in the trade-off picture: ``corner`` is only passed by the line (another path shows
            the point), ``way`` a checkpoint, ``scaled`` one under a part of the training's
            change, ``final`` the arm's last.
        front: whether it is on the frontier of all tasks.
    """

    x: float
    y: float
    tip: Said
    x_span: Span | None = None
    y_span: Span | None = None
    role: Role = "way"
    front: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One arm over training steps."""

    name: str
    look: Look
    dots: tuple[Dot, ...]


def grid(x: Axis, y: Axis, *, upright: bool) -> str:
    """Axes, ticks and their texts."""
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


def path(spots: Sequence[tuple[float, float]], kind: str = "line") -> str:
    """Straight lines through the spots; nothing for fewer than two."""
    joined = "L".join(f"{left} {top}" for left, top in spots)
    return f'<path class="{kind}" d="M{joined}"/>' if len(spots) > 1 else ""


def hit(dot: Dot, left: float, top: float, shape: str) -> str:
    """A point that a pointer finds; without a script its title is the tooltip."""
    en, zh = (escape(printable(one, keep="\n")) for one in dot.tip)
    other = f' data-zh="{zh}"' if zh != en else ""
    place = f'data-x="{left}" data-y="{top}"'
    return f'<g class="pt" {place}{other}><title>{en}</title>{shape}</g>'


def arm(look: Look, inner: str) -> str:
    """What belongs to one arm, so that it can be singled out."""
    return f'<g class="arm {look.tone}" data-arm="{look.number}">{inner}</g>' if inner else ""


def svg(inner: str, width: int, height: int, kind: str, label: Said, size: float = 11.5) -> str:
    """The picture, with the words that a screen reader says of it."""
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" font-size="{size}" role="img" '
        f'tabindex="0" {labelled(label)}>{inner}</svg>'
    )


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture, and what it is drawn from.

    Attributes:
        name: of the files that hold it beside the report, without an ending.
        svg: the picture.
        head: of the data.
        rows: a row for every point, in the units of the axes.
        title: what stands above it, where several stand together.
    """

    name: str
    svg: str
    head: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    title: str = ""


def data_of(lines: Sequence[Line]) -> tuple[tuple[object, ...], ...]:
    """Arm, place, value and interval of every point, as `HEAD` names them."""
    return tuple(
        (line.name, dot.x, dot.y, *(dot.y_span or (None, None)))
        for line in lines
        for dot in line.dots
    )
