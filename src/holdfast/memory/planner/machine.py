"""Says what a plan leaves of the machine unused, and what it needs of the host's memory."""

from __future__ import annotations

import math

from holdfast.memory.estimate.states import aside_bytes, states
from holdfast.memory.estimate.workload import as_sharded
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.candidates import shared_by
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.host_memory import HostNeed, host_need
from holdfast.memory.planner.translations import Language, say


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
