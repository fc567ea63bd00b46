"""How many replies did a server's filter withhold?

They are unscored. A filter strikes one model's replies more than another's, and harmful ones most,
so that even a few may change a difference: every share of them is worth a note.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.outcomes import WITHHELD

if TYPE_CHECKING:
    from holdfast.report.summary import Measured


def notes(measured: Sequence[Measured]) -> list[str]:
    """A note for every task of which replies were withheld, by its worst point."""
    found: dict[str, list[tuple[float, str]]] = {}
    for one in measured:
        every = [reading for readings in one.readings for reading in readings]
        count = sum(reading.outcome == WITHHELD for reading in every)
        if count:
            where = f"{one.arm} at step {one.step}" if one.step else one.arm
            share = count / len(every)
            said = f"{share:.0%} of the replies of {where} ({count} of {len(every)})"
            found.setdefault(one.task, []).append((share, said))
    return [_note(task, some) for task, some in found.items()]


def _note(task: str, some: Sequence[tuple[float, str]]) -> str:
    said = max(some, key=lambda one: one[0])[1]
    others = f", and some at {len(some) - 1} other points" if len(some) > 1 else ""
    return f"{task}: {said} were withheld by the server's filter{others}; they are unscored."
