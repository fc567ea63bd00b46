"""Tells what published runs showed of speed by card and of memory beyond what was allocated.

`evidence.json` ships with its sources, so that a plan does not begin with nothing: the share of a
card's data sheet that fine-tuning reached, and by how much nvidia-smi's peak passed torch's. The
latter is an upper bound of what is needed, for it counts what the allocator kept only because
nobody else wanted it; so it is shown beside the margin and does not set it. What this machine's own
trainings took does (`holdfast.memory.planner.calibration`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.strategies import RuntimeOverheads

FILE = Path(__file__).with_name("evidence.json")
UTILISATION = 0.45
"""Share of the data sheet's dense rate that training reaches where nobody published it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What fine-tuning reached on a card.

    Attributes:
        card: as the catalogue of cards names it; its sisters with the same chip are taken alike.
        share: of its data sheet's dense 16-bit rate.
        source: of the times it was computed from.
    """

    card: str
    share: float
    source: str


@dataclass(frozen=True, slots=True)
class Beyond:
    """By how much nvidia-smi's peak passed torch's in published trainings.

    Attributes:
        allocator: `rigid` or `expandable`.
        loss: `tiled` or `whole`.
        processes: 1, or 2 for several.
        runs: how many trainings.
        least: share of what was allocated.
        most: the same.
        card: they ran on.
        source: of the figures.
    """

    allocator: str
    loss: str
    processes: int
    runs: int
    least: float
    most: float
    card: str
    source: str


@cache
def shipped() -> tuple[tuple[Speed, ...], tuple[Beyond, ...]]:
    """All of it."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return (
        tuple(Speed(**one) for one in content["speeds"]),
        tuple(Beyond(**one) for one in content["overheads"]),
    )


def utilisation(gpu: GPU) -> float:
    """The share of its data sheet's rate that a GPU is taken to reach."""
    chip = gpu.like.split("-")[0]
    alike = (one.share for one in shipped()[0] if one.card.split("-")[0] == chip)
    return next(alike, UTILISATION)


def margin(overheads: RuntimeOverheads, work: Workload, processes: int) -> str:
    """What is added to the tensors, and what that rests on; a sentence.

    Args:
        overheads: as the plan counts them.
        work: whose loss and allocator matter.
        processes: that train together.
    """
    context = overheads.distributed_bytes if processes > 1 else overheads.context_bytes
    logits = "" if work.fused_loss else f"{100 * overheads.logits:.0f} % of whole logits, "
    added = (
        f"margin: {100 * overheads.fragmentation:.0f} % of activations and workspace, {logits}"
        f"{context / GIB:.2f} GiB a process"
    )
    if overheads.measured:
        return f"{added}: the largest of {overheads.measured} trainings on this machine"
    wanted = (
        "expandable" if work.expandable else "rigid",
        "tiled" if work.fused_loss else "whole",
        min(processes, 2),
    )
    found = [one for one in shipped()[1] if (one.allocator, one.loss, one.processes) == wanted]
    if not found:
        return f"{added}: assumed, measured nowhere yet"
    one = found[0]
    several = ", several processes" if processes > 1 else ""
    return (
        f"{added}: assumed; in {one.runs} published trainings ({one.card}{several}) nvidia-smi "
        f"showed {100 * one.least:.0f} to {100 * one.most:.0f} % more than torch had allocated"
    )
