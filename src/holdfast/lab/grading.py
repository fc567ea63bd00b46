"""What the lab's tasks have in common: how a number is graded, and which splits there are."""

from __future__ import annotations

from holdfast.errors import DataError
from holdfast.types import Example, Reading, Reply

ANSWER = "####"
MOST = 20_000
"""Items of a task; they are made up on the spot, which takes a second per thousand."""


def number_said(example: Example, reply: Reply) -> Reading:
    """Whether the text after the last ``####`` is that of the answer to learn."""
    if ANSWER not in reply.text:
        return Reading(example.id, reply.sample, 0.0, "no answer")
    said = _number(reply.text)
    right = said == _number(example.target or "")
    return Reading(
        example.id, reply.sample, float(right), "correct" if right else "wrong", said[:80]
    )


def split_known(split: str, known: tuple[str, ...]) -> str:
    """The split, if a task of the lab has it.

    Raises:
        DataError: it has not.
    """
    if split not in known:
        raise DataError(
            f"the lab has no split {split!r} for this task", remedy=f"splits: {', '.join(known)}"
        )
    return split


def _number(text: str) -> str:
    return text.rpartition(ANSWER)[2].strip()
