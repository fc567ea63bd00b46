"""Asks the training questions in the order in which they are seen until the budget is filled."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from holdfast.methods import MethodContext
from holdfast.methods._bound import filled
from holdfast.runs import store
from holdfast.types import Example

SOLVED, HELPED = 0.3, 0.5
"""Share of the questions asked that is taken to be of use where others are dropped: solved alone
(0.27 of GSM8K's by half a billion parameters), or with leave to rewrite the reference."""


def filling(context: MethodContext) -> dict[str, object]:
    """What bears on which questions are asked, besides the stage of the budget."""
    if context.bound is None or not context.fills:
        return {}
    return {"until": "filled", "order": store.fingerprint(list(context.bound.order))}


def expected(context: MethodContext, kept: float) -> int:
    """How many questions are asked where such a share is kept, with answers of usual length."""
    if context.bound is None or not context.fills:
        return len(context.plain)
    return math.ceil(context.bound.seen / kept)


def used(context: MethodContext, made: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The questions that are trained on, with those before them that came to nothing."""
    if context.bound is None:
        return list(context.plain)
    ordered = [context.plain[place] for place in context.bound.order]
    return ordered[: context.bound.used(ordered, made)]


def until_filled(
    context: MethodContext,
    work: Callable[[int, Sequence[Example]], Mapping[str, Sequence[Example]]],
) -> tuple[int, list[Example]]:
    """Ask the questions in the order in which they are seen until the budget is filled.

    Args:
        context: says whether there is a budget to fill; else all are asked as they lie.
        work: given the number of a round and its questions, answers them; returns all examples so
            far by the id of their question.

    Returns:
        How many were asked, and those of which the examples are trained on.
    """
    bound, plain = context.bound, context.plain
    if bound is None or bound.tokens is None:
        work(0, plain)
        return len(plain), list(plain)
    done, used = filled(bound, [plain[place] for place in bound.order], work)
    return done, list(used)


def told(
    context: MethodContext, asked: int, used: Sequence[Example], lost: int
) -> dict[str, object]:
    """For the record: how many questions were asked, trained on, and drawn for others."""
    if not context.fills:
        return {"asked": asked}
    every = len(context.plain)
    drawn = lost if len(used) < every else 0  # no more was there
    return {"asked": asked, "questions": every, "used": len(used), "reserve": drawn}


def bounded(context: MethodContext, asked: int, used: Sequence[Example]) -> list[str]:
    """For the report: that not all questions were asked; nothing where they were."""
    if len(used) == len(context.plain):
        return []
    return [
        f"{asked} of {len(context.plain)} asked, in the order in which they are seen, until their "
        f"answers filled the budget (the first {len(used)} do; for each that is dropped the next "
        "was drawn)"
    ]
