"""Which colour and which shape is an arm's own, in every chart and table?

Colour is the family's (the arm of the study file), so that the variants of a sweep belong together;
the shape tells its variants apart, and families whose colours had to be used twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

TONES = 7  # colours in the palette (Okabe-Ito without black); classes c0 ... c6, and cb for base
SIDES = (4, 3, -3, 5, 6)  # after the circle: square, triangles up and down, pentagon, hexagon
SHAPES = len(SIDES) + 1


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
