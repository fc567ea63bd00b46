"""What takes a plan's memory, part by part: as a table, and as a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner.translations import PARTS, Language, say

if TYPE_CHECKING:
    from rich.table import Table

FIRST_COLUMN, COLUMN = 22, 8
"""Cells of the parts' names and of a GPU; of more GPUs than fit only two are shown."""

LEAST = 0.005 * GIB
"""What is less is none in two decimals."""


def breakdown(plan: MemoryPlan, language: Language, width: int = 80) -> Table:
    """What takes the memory, in GiB; a column for each GPU, or one for all where they are alike.

    Args:
        plan: with its predictions.
        language: to say it in.
        width: of the page, cells; where not all GPUs have room, the fullest and the emptiest stand
            for them.
    """
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(say(language, "breakdown"))
    each = list(zip(plan.gpus, plan.predicted, strict=True))
    if len(set(plan.predicted)) == 1 and len(each) > 1:
        columns = [(say(language, "each"), plan.predicted[0])]
    elif len(each) > max(1, (width - FIRST_COLUMN) // COLUMN):
        ends = [max(each, key=lambda one: one[1].total), min(each, key=lambda one: one[1].total)]
        keys = ("fullest", "emptiest")
        columns = [(say(language, key, index=index), part)
                   for key, (index, part) in zip(keys, ends, strict=True)]  # fmt: skip
    else:
        columns = [(_column(plan, index), part) for index, part in each]
    for head, _ in columns:
        found.add_column(head, justify="right")
    for name in PARTS:
        found.add_row(
            say(language, name), *(f"{getattr(one, name) / GIB:.2f}" for _, one in columns)
        )
    found.add_row(
        say(language, "total"), *(f"{one.total / GIB:.2f}" for _, one in columns), style="bold"
    )
    return found


def filled(plan: MemoryPlan, language: Language) -> str:
    """What takes the memory of the GPU that is filled most, in a sentence, the largest first."""
    sizes = {name: getattr(plan.fullest, name) for name in PARTS}
    some = sorted((name for name in PARTS if sizes[name] >= LEAST), key=lambda name: -sizes[name])
    parts = [f"{say(language, name)} {sizes[name] / GIB:.2f}" for name in some]
    key = "filled" if len(set(plan.predicted)) == 1 else "filled_most"
    return say(language, key, parts=say(language, "comma").join(parts))


def _column(plan: MemoryPlan, index: int) -> str:
    return "CPU" if plan.placement == "cpu" else f"GPU {index}"
