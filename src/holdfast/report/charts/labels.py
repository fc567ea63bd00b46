"""Places for names in a chart, so that they hide nothing and are not hidden."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

GLYPH = 0.6  # width of an average letter, in font sizes; generous, since the font is unknown

AWAY = (13.0, 22.0, 34.0, 48.0, 64.0, 84.0, 106.0)  # distances from the dot that are tried
CLASH = 8  # times that hiding a name is worse than hiding a line

Spot = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def clip(text: str, length: int) -> str:
    """`text`, shortened in its middle if it is too long: variants of a sweep differ at the end."""
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
