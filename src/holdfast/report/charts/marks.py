"""What are the parts that all charts are put together from?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from holdfast.report.charts.axis import Axis
from holdfast.report.charts.looks import Look

Span = tuple[float, float]
Role = Literal["corner", "way", "scaled", "final"]


@dataclass(frozen=True, slots=True)
class Dot:
    """One measured point, in the units of the axes.

    Attributes:
        x: across.
        y: upward.
        tip: what the tooltip says, a line each.
        x_span: interval.
        y_span: interval.
        role: in the trade-off picture: ``corner`` is only passed by the line (another path shows
            the point), ``way`` a checkpoint, ``scaled`` one under a part of the training's
            change, ``final`` the arm's last.
        front: whether it is on the frontier of all tasks.
    """

    x: float
    y: float
    tip: str
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
    """A point that a pointer finds."""
    tip = escape(dot.tip)
    return (
        f'<g class="pt" data-tip="{tip}" data-x="{left}" data-y="{top}">'
        f"<title>{tip}</title>{shape}</g>"
    )


def arm(look: Look, inner: str) -> str:
    """What belongs to one arm, so that it can be singled out."""
    return f'<g class="arm {look.tone}" data-arm="{look.number}">{inner}</g>' if inner else ""


def svg(inner: str, width: int, height: int, kind: str, label: str, size: float) -> str:
    """The picture, with the words that a screen reader says of it."""
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" font-size="{size}" role="img" '
        f'tabindex="0" aria-label="{escape(label)}">{inner}</svg>'
    )
