"""Enumerates the ways to run a job, each with its predicted peak on every GPU and its speed.

Every placement x quantisation x recomputation x micro-batch is a candidate. What is learned is the
same for all but the quantised ones.

The speed is a model of the time of one optimiser step, to rank ways of running the same job on the
same GPUs. It was not validated on a GPU. A micro-batch takes its arithmetic, or reading the
weights where it is too small to hide that, plus launching kernels, writing out 4-bit weights, and
moving weights between devices (weights in host memory come layer by layer and are waited for).
Sources: arithmetic per token 2 N forward and 2 N backward under LoRA, whose frozen weights have no
gradient (4 N fully trained), and 2 N more with recomputation; causal attention 2 L S width more per
pass; 4-bit weights are read, written and read again (about 4.5 bytes each) in every pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from holdfast.memory.estimate.adapters import PLACES, WHOLE_WEIGHTS
from holdfast.memory.estimate.states import States, aside_bytes, states
from holdfast.memory.estimate.workload import Workload, as_sharded
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB, Breakdown, MemoryPlan, Placement, strategy_of
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner import strategies
from holdfast.memory.planner.drawing_server import left, placed
from holdfast.memory.planner.evidence import utilisation
from holdfast.memory.planner.host_memory import USABLE, host_need
from holdfast.memory.planner.pace import factor
from holdfast.memory.planner.strategies import Held
from holdfast.memory.planner.ways import Candidate, Problem, Reason, Setup

RESERVE = 0.03
"""Share of a GPU's memory that a plan leaves free."""
LARGEST_MICRO_BATCH = 16
LAUNCH_S = 4e-4
"""Launching one decoder layer's kernels, adapters included, forward or backward."""
DEQUANTISE_BYTES = 4.5
NOT_HIDDEN = 0.7
"""Share of the shorter of computing and fetching that FSDP's prefetching does not hide; fitted on
Answer.AI's published times of LoRA on two RTX 3090 (1,024 examples of 2,048 tokens: 3,090 s with
micro-batch 1, 1,366 s with 4; data parallel with 4: 881 s)."""
LINK_UTILISATION = {"pcie": 0.4, "nvlink": 0.8}
"""Share of a link's rate that gathering reaches; PCIe usually goes through the host."""
HOST_LINK_BYTES_S = 12e9
"""Host to GPU over PCIe 4.0 x16, pageable memory; unless the GPU's own link says less."""


def candidates(
    problem: Problem, only: str | None = None, most: bool = False, hopeful: bool = False
) -> Iterator[Candidate]:
    """Every way of running the job on these GPUs.

    Args:
        problem: the job, and what it is planned for.
        only: a strategy, such as `qlora+split`; None: all.
        most: of several GPUs only all of them, or as many as can share the global batch.
        hopeful: without what cannot fit, by its weights and moments alone.
    """
    gpus = left(problem.gpus, placed(problem.shape, problem.work, problem.gpus))
    whole = [gpu for gpu in gpus if not gpu.mig]  # a process sees one slice; NCCL joins none
    counts: Iterable[int] = range(2, len(whole) + 1)
    if most:
        counts = sorted({shared_by(problem.work.global_batch, len(whole)), len(whole)} - {0, 1})
    several = [tuple(whole[:count]) for count in counts]
    for method in problem.work.methods:
        if gpus[0].cpu:
            if only in (None, strategy_of("cpu", method == "qlora")):
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
            if only not in (None, strategy_of(placement, method == "qlora")):
                continue
            setup = Setup(placement, method, members)
            if not hopeful or _leaves_room(problem, setup):
                yield from _of(problem, setup)


def _leaves_room(problem: Problem, setup: Setup) -> bool:
    """Whether a job's weights and moments leave anything of its GPUs' memory."""
    held = states(problem.shape, _as_run(problem.work, setup)[0], setup.method)
    moved = held.adapters + held.optimiser
    whole = moved if setup.placement == "offload" else moved + held.weights
    rooms = [gpu.free_bytes for gpu in setup.gpus]
    shared = setup.placement in ("split", "fsdp2")
    return whole < (sum(rooms) if shared else min(rooms))


def _of(problem: Problem, setup: Setup) -> Iterator[Candidate]:
    """One placement and method at every micro-batch, with and without recomputation."""
    shape, work, world = problem.shape, problem.work, setup.world
    kept, _ = _as_run(work, setup)
    held = states(shape, kept, setup.method)
    reason = _refused(problem, setup, held)
    each = work.global_batch // world if not work.global_batch % world else 0
    sizes = [n for n in range(1, min(each, LARGEST_MICRO_BATCH) + 1) if each % n == 0] or [1]
    if work.micro_batch is not None:
        sizes = [work.micro_batch]
        if each and each % work.micro_batch:
            values = {"examples": each, "micro": work.micro_batch}
            reason = reason or Reason("r_micro_batch", values)
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
                tokens_per_s=tokens_per_s(shape, work, held, tried)
                * factor(problem.paces, world > 1),
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


def _refused(problem: Problem, setup: Setup, held: States) -> Reason | None:
    """Why it cannot be run at all; None when it can."""
    work, placement, method = problem.work, setup.placement, setup.method
    stored = problem.shape.stored
    if work.compiled and (method == "qlora" or placement in {"split", "fsdp2", "offload"}):
        return Reason("r_compiled", {})
    if lacking := _host_lacks(problem, setup, held):
        return lacking
    if stored is not None and not stored.expands and placement in {"fsdp2", "offload"}:
        return Reason("r_stored", {"kind": stored.kind})
    if method == "qlora" and not all(gpu.nf4 for gpu in setup.gpus):
        return Reason("r_nf4", {})
    if method == "qlora" and work.variant in WHOLE_WEIGHTS:
        return Reason("r_whole", {"variant": work.variant})
    if method != "full" and placement not in PLACES.get(work.variant, (placement,)):
        return Reason("r_variant", {"variant": work.variant})
    own = work.method_overhead.generated_tokens or work.method_overhead.rows > 1
    if own and placement not in {"single", "cpu"}:
        return Reason("r_answers", {})
    if work.method_overhead.served and method == "qlora":
        return Reason("r_served", {})
    if work.method_overhead.kept and placement == "fsdp2":
        return Reason("r_kept", {})
    if work.global_batch % setup.world:
        return Reason("r_batch", {"batch": work.global_batch, "gpus": setup.world})
    return None


def _host_lacks(problem: Problem, setup: Setup, held: States) -> Reason | None:
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
            return Reason(key, {name: f"{size / GIB:.1f}", "free": free})
    return None


def shared_by(batch: int, gpus: int) -> int:
    """The most of these GPUs that can share a step's examples evenly."""
    return max((count for count in range(1, gpus + 1) if batch % count == 0), default=0)


def tokens_per_s(shape: Shape, work: Workload, held: States, setup: Setup) -> float:
    """Tokens trained on per second by all GPUs together.

    Args:
        shape: the model.
        work: lengths, batch and the methods' overhead.
        held: bytes of the weights.
        setup: placement, method and GPUs. Recomputation adds a forward pass; so does a comparison
            with the base.
    """
    method, gpus, checkpointing = setup.method, setup.gpus, setup.checkpointing
    tokens = setup.micro_batch * work.seq_len
    passes = 2 + checkpointing + (method == "full") + work.method_overhead.reads
    attention = 2 * shape.layers * shape.heads * shape.head_dim * work.seq_len
    flops = tokens * passes * (2 * shape.active_parameters + attention)
    linear = work.wide * shape.linear_parameters
    moved = (2 + checkpointing) * linear

    def busy_s(gpu: GPU, share: float = 1.0) -> float:
        dense = gpu.flops if work.autocast else gpu.float32_flops or gpu.flops
        rate = dense * utilisation(gpu)
        busy = max(share * flops / rate, share * moved / gpu.bandwidth_bytes_s)
        busy += share * shape.layers * passes * LAUNCH_S
        if method == "qlora":
            written = shape.linear_parameters * DEQUANTISE_BYTES * (2 + checkpointing)
            busy += share * written / gpu.bandwidth_bytes_s
        return busy

    slowest = max(busy_s(gpu) for gpu in gpus)
    match setup.placement:
        case "split":  # one GPU works at a time
            taken = sum(busy_s(gpu, 1 / len(gpus)) for gpu in gpus)
            taken += (len(gpus) - 1) * 2 * work.wide * shape.hidden * tokens / _link(gpus)
        case "fsdp2":
            shards = (len(gpus) - 1) / max(1, len(gpus))
            gathered = (2 + checkpointing) * held.weights * shards
            if method == "full":
                gathered = gathered / 2 + held.gradients * shards
            moving = gathered / _link(gpus)
            taken = max(slowest, moving) + NOT_HIDDEN * min(slowest, moving)
        case "offload":
            taken = slowest + (2 + checkpointing) * held.weights / HOST_LINK_BYTES_S
        case "ddp":
            steps = max(1, work.global_batch // (setup.micro_batch * setup.world))
            taken = slowest + 2 * held.gradients / _link(gpus) / steps
        case _:
            taken = slowest
    return setup.world * tokens / taken


def _link(gpus: Sequence[GPU]) -> float:
    return min(gpu.link_bytes_s * LINK_UTILISATION[gpu.link] for gpu in gpus)
