"""Enumerates the ways to run a job, each with its predicted peak on every GPU and its speed.

Every placement x quantisation x recomputation x micro-batch is a candidate. What is learned is the
same for all but the quantised ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from holdfast.memory.estimate.states import States, aside_bytes, states
from holdfast.memory.estimate.workload import Workload, as_sharded
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import Breakdown, MemoryPlan, Placement
from holdfast.memory.planner import strategies
from holdfast.memory.planner.refusals import refused
from holdfast.memory.planner.speed import tokens_per_s
from holdfast.memory.planner.strategies import Held
from holdfast.memory.planner.ways import Candidate, Problem, Refusal, Setup

RESERVE = 0.03
"""Share of a GPU's memory that a plan leaves free."""
LARGEST_MICRO_BATCH = 16


def candidates(problem: Problem) -> Iterator[Candidate]:
    """Every way of running the job on these GPUs."""
    gpus = sorted(problem.gpus, key=lambda gpu: (-gpu.free_bytes, -gpu.flops, gpu.index))
    whole = [gpu for gpu in gpus if not gpu.mig]  # a process sees one slice; NCCL joins none
    several = [tuple(whole[:count]) for count in range(2, len(whole) + 1)]
    for method in problem.work.methods:
        if gpus[0].cpu:
            yield from _of(problem, Setup("cpu", method, (gpus[0],)))
            continue
        sets: list[tuple[Placement, tuple[GPU, ...]]] = [("single", (gpu,)) for gpu in gpus[:1]]
        for members in several:
            sets += [("ddp", members), ("split", members), ("fsdp2", members)]
        if method == "lora":
            sets.append(("offload", (gpus[0],)))
        for placement, members in sets:
            if placement == "split" and len(members) > problem.shape.layers:
                continue
            yield from _of(problem, Setup(placement, method, members))


def _of(problem: Problem, setup: Setup) -> Iterator[Candidate]:
    """One placement and method at every micro-batch, with and without recomputation."""
    shape, work, world = problem.shape, problem.work, setup.world
    kept, _ = _as_run(work, setup)
    held = states(shape, kept, setup.method)
    reason = refused(problem, setup, held)
    each = work.global_batch // world if not work.global_batch % world else 0
    sizes = [n for n in range(1, min(each, LARGEST_MICRO_BATCH) + 1) if each % n == 0] or [1]
    if work.micro_batch is not None:
        sizes = [work.micro_batch]
        if each and each % work.micro_batch:
            values = {"examples": each, "micro": work.micro_batch}
            reason = reason or Refusal("r_micro_batch", values)
    choices = (False, True) if work.checkpointing is None else (work.checkpointing,)
    if setup.placement == "offload":  # without recomputation autograd would hold every copy
        choices = (True,)
    for checkpointing in choices:
        for size in sizes:
            tried = replace(setup, checkpointing=checkpointing, micro_batch=size)
            steps = max(1, work.global_batch // (size * world))
            predicted, where = _predict(problem, tried, held, steps > 1)
            short = max(
                part.total - round(gpu.free_bytes - RESERVE * gpu.total_bytes)
                for part, gpu in zip(predicted, tried.gpus, strict=True)
            )
            plan = MemoryPlan(
                placement=tried.placement,
                quantized=tried.method == "qlora",
                checkpointing=checkpointing,
                micro_batch=size,
                accumulation=steps,
                gpus=tuple(gpu.index for gpu in tried.gpus),
                dtype=work.dtype,
                adapter_dtype=work.adapters(tried.method == "qlora"),
                device_map=where,
                predicted=predicted,
                tokens_per_s=tokens_per_s(shape, work, held, tried),
            )
            yield Candidate(plan, short, reason)


def _predict(
    problem: Problem, setup: Setup, held: States, accumulated: bool
) -> tuple[tuple[Breakdown, ...], dict[str, int | str] | None]:
    """The peak of each GPU, and the device map of a split."""
    shape, placement, method = problem.shape, setup.placement, setup.method
    _, computed = _as_run(problem.work, setup)
    aside = aside_bytes(shape, problem.work, method)
    acts = problem.estimate(shape, computed, method, setup.micro_batch, setup.checkpointing)

    def total(part: Held) -> Breakdown:
        found = strategies.peak(part, acts, accumulated)
        if placement == "cpu":  # a checkpoint's copy lies in the same memory
            found = replace(found, workspace=found.workspace + aside)
        if placement == "ddp":  # buckets of gradients for the all-reduce
            found = replace(found, workspace=found.workspace + held.gradients)
        if placement == "fsdp2" and method == "qlora":  # loaded whole on every GPU, then sharded
            lacking = max(0, held.weights - found.allocated)
            found = replace(found, workspace=found.workspace + lacking)
        distributed = placement in {"ddp", "fsdp2"}
        return strategies.with_overheads(found, problem.overheads, distributed)

    match placement:
        case "split":
            bounds = strategies.split(held, shape, setup.gpus, lambda part: total(part).total)
            where = dict(strategies.device_map(shape, bounds))
            return tuple(map(total, strategies.stages(held, shape, bounds))), where
        case "fsdp2":
            part = strategies.sharded(held, shape, len(setup.gpus), computed)
        case "offload":
            part = strategies.offloaded(held, shape)
        case _:
            unsharded = placement == "ddp" and computed.fsdp == 1  # FSDP1 without shards
            part = strategies.whole(held, shape, unsharded)
    return (total(part),) * len(setup.gpus), None


def _as_run(work: Workload, setup: Setup) -> tuple[Workload, Workload]:
    """The job as a placement runs it: for its states, and for its activations."""
    if setup.placement == "fsdp2":
        return as_sharded(work, setup.method)
    return work, work
