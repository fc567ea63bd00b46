"""Says why a way of running a job cannot be run at all, however much memory its GPUs have."""

from __future__ import annotations

from holdfast.memory.estimate.adapters import PLACES, WHOLE_WEIGHTS
from holdfast.memory.estimate.states import States, aside_bytes
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.host_memory import USABLE, host_need
from holdfast.memory.planner.ways import Problem, Refusal, Setup


def refused(problem: Problem, setup: Setup, held: States) -> Refusal | None:
    """Why it cannot be run at all; None when it can."""
    work, placement, method = problem.work, setup.placement, setup.method
    stored = problem.shape.stored
    if work.compiled and (method == "qlora" or placement in {"split", "fsdp2", "offload"}):
        return Refusal("r_compiled", {})
    if lacking := _host_lacks(problem, setup, held):
        return lacking
    if stored is not None and not stored.expands and placement in {"fsdp2", "offload"}:
        return Refusal("r_stored", {"kind": stored.kind})
    if method == "qlora" and not all(gpu.nf4 for gpu in setup.gpus):
        return Refusal("r_nf4", {})
    if method == "qlora" and work.variant in WHOLE_WEIGHTS:
        return Refusal("r_whole", {"variant": work.variant})
    if method != "full" and placement not in PLACES.get(work.variant, (placement,)):
        return Refusal("r_variant", {"variant": work.variant})
    if work.method_overhead.generated_tokens and placement != "single":
        return Refusal("r_answers", {})
    if work.global_batch % setup.world:
        return Refusal("r_batch", {"batch": work.global_batch, "gpus": setup.world})
    return None


def _host_lacks(problem: Problem, setup: Setup, held: States) -> Refusal | None:
    """Why the host's memory does not suffice; None where it does, or is not known."""
    if problem.host_bytes is None:
        return None
    aside = aside_bytes(problem.shape, problem.work, setup.method)
    need = host_need(setup.placement, setup.method == "qlora", setup.world, held, aside)
    room = USABLE * problem.host_bytes
    free = f"{problem.host_bytes / GIB:.1f}"
    for key, name, size in (
        ("r_aside", "copy", need.aside),
        ("r_host", "weights", need.loading),
        ("r_saving", "weights", need.saving),
    ):
        if size > room:
            return Refusal(key, {name: f"{size / GIB:.1f}", "free": free})
    return None


def shared_by(batch: int, gpus: int) -> int:
    """The most of these GPUs that can share a step's examples evenly."""
    return max((count for count in range(1, gpus + 1) if batch % count == 0), default=0)
