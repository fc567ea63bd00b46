"""Says what a plan takes of the machine and leaves unused, and what the host's memory must hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holdfast.memory.estimate.states import aside_bytes, states
from holdfast.memory.estimate.workload import as_sharded
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner.candidates import shared_by
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.host_memory import HostNeed, host_need
from holdfast.memory.planner.translations import PARTS, Language, say

if TYPE_CHECKING:
    from rich.table import Table

FIRST_COLUMN, COLUMN = 22, 8
"""Cells of the parts' names and of a GPU; of more GPUs than fit only two are shown."""

LEAST = 0.005 * GIB
"""What is less is none in two decimals."""


def idle(comparison: Comparison, language: Language) -> str:
    """How many GPUs the chosen plan leaves idle, why, and what would use them; "" for none."""
    if comparison.chosen is None:
        return ""
    used, there = len(comparison.chosen.plan.gpus), len(comparison.gpus)
    used += comparison.server is not None and comparison.server.apart
    if used == there:
        return ""
    batch, micro = comparison.work.global_batch, comparison.work.micro_batch or 1
    values = {"idle": there - used, "there": there, "batch": batch}
    if comparison.chosen.plan.placement == "split":  # more of them would be no faster
        return say(language, "idle", **values)
    if batch % there:
        whole = there * micro
        up, most = -(-batch // whole) * whole, shared_by(batch, there)
        return say(language, "idle_batch", up=up, most=most, **values)
    if batch // there % micro:
        less = math.gcd(batch // there, micro)
        return say(language, "idle_micro", micro=micro, less=less, up=there * micro, **values)
    return say(language, "idle", **values)


def host_need_of(comparison: Comparison) -> HostNeed | None:
    """What the choice needs of each machine's memory; None without a choice, and on a CPU."""
    chosen = comparison.chosen
    if chosen is None or chosen.plan.placement == "cpu":
        return None
    plan, work, shape = chosen.plan, comparison.work, comparison.shape
    method = "qlora" if plan.quantized else "full" if work.method == "full" else "lora"
    kept = as_sharded(work, method)[0] if plan.placement == "fsdp2" else work
    aside = aside_bytes(shape, work, method)
    held = states(shape, kept, method)
    return host_need(plan.placement, plan.quantized, plan.per_node, held, aside)


def host(comparison: Comparison, language: Language) -> str:
    """What the choice needs of the host's memory, where that is more than its processes take."""
    need = host_need_of(comparison)
    if need is None or need.peak == need.processes:
        return ""
    values = {
        "need": need.peak, "processes": need.processes, "loading": need.loading,
        "saving": max(need.saving, need.aside),
    }  # fmt: skip
    key = "host" if comparison.host_bytes is not None else "host_unknown"
    shown = {name: f"{size / GIB:.1f}" for name, size in values.items()}
    return say(language, key, **shown)


def step_seconds(comparison: Comparison) -> float:
    """Seconds of one step of the choice by the model of speed, every example as long as may be.

    0 where nothing fits.
    """
    if comparison.chosen is None or not comparison.chosen.plan.tokens_per_s:
        return 0.0
    work = comparison.work
    return work.global_batch * work.seq_len / comparison.chosen.plan.tokens_per_s


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
