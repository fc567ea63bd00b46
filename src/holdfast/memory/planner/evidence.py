"""Tells what published runs showed of speed by card and of memory beyond what was allocated.

`evidence.json` ships with its sources, so that a plan does not begin with nothing: the share of a
card's data sheet that fine-tuning reached, and by how much nvidia-smi's peak passed torch's. The
latter is an upper bound of what is needed, for it counts what the allocator kept only because
nobody else wanted it; so it is shown beside the margin and does not set it. What this machine's own
trainings took does (`holdfast.memory.planner.calibration`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.pace import Correction
from holdfast.memory.planner.strategies import RuntimeOverheads
from holdfast.memory.planner.ways import Reason

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


def margin(overheads: RuntimeOverheads, work: Workload, processes: int) -> tuple[Reason, ...]:
    """What is added to the tensors, and what that rests on.

    Args:
        overheads: as the plan counts them.
        work: whose loss and allocator matter.
        processes: that train together.
    """
    context = overheads.distributed_bytes if processes > 1 else overheads.context_bytes
    values = {
        "share": f"{100 * overheads.fragmentation:.0f}", "context": f"{context / GIB:.2f}",
        "logits": f"{100 * overheads.logits:.0f}",
    }  # fmt: skip
    added = Reason("margin" if work.fused_loss else "margin_logits", values)
    if overheads.measured:
        return added, Reason("margin_measured", {"n": overheads.measured})
    wanted = (
        "expandable" if work.expandable else "rigid",
        "tiled" if work.fused_loss else "whole",
        min(processes, 2),
    )
    found = [one for one in shipped()[1] if (one.allocator, one.loss, one.processes) == wanted]
    if not found:
        return added, Reason("margin_assumed", {})
    one = found[0]
    key = "margin_published_several" if processes > 1 else "margin_published"
    shown = {"least": f"{100 * one.least:.0f}", "most": f"{100 * one.most:.0f}"}
    return added, Reason(key, {"n": one.runs, "card": one.card} | shown)


def pace_said(paces: Sequence[Correction]) -> tuple[Reason, ...]:
    """That speeds rest on this machine's own trainings, where they do."""
    return tuple(
        Reason("pace_several" if one.several else "pace",
               {"factor": f"{one.factor:.2g}", "n": one.runs})
        for one in paces
    )  # fmt: skip
