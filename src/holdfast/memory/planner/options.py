"""Which ways of running the job are there, and what does each take?

Every placement x quantisation x recomputation x micro-batch, with a predicted peak for each GPU and
a modelled speed. What is learned is the same for all but the quantised ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.memory.estimate.activations import Activations
from holdfast.memory.estimate.states import States, states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB, Breakdown, MemoryPlan, Placement
from holdfast.memory.model.adapters import PLACES, WHOLE_WEIGHTS
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner import speed, strategies
from holdfast.memory.planner.strategies import Held, Overheads
from holdfast.memory.planner.wording import Language, say

RESERVE = 0.03
"""Share of a GPU's memory that a plan leaves free."""
LARGEST_MICRO_BATCH = 16
Estimate = Callable[[Shape, Workload, str, int, bool], Activations]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be run, as a sentence of `holdfast.memory.planner.wording`."""

    key: str
    values: Mapping[str, object]

    def words(self, language: Language) -> str:
        """The sentence."""
        return say(language, self.key, **self.values)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run the job.

    Attributes:
        plan: the way, with its predicted peaks and speed.
        short_bytes: by how much the GPU that lacks most lacks memory; 0 or less: it fits.
        refused: why it cannot be run at all, whatever the memory; None: it can.
    """

    plan: MemoryPlan
    short_bytes: int
    refused: Refusal | None = None

    @property
    def fits(self) -> bool:
        """Whether it can be run on these GPUs."""
        return not self.refused and self.short_bytes <= 0


def options(
    shape: Shape,
    work: Workload,
    gpus: Sequence[GPU],
    host_bytes: int,
    overheads: Overheads,
    estimate: Estimate,
) -> Iterator[Candidate]:
    """Every way of running the job on these GPUs; see `holdfast.memory.planner.choice.make_plan`."""
    roomy = sorted(gpus, key=lambda one: (-one.free_bytes, -one.flops, one.index))
    whole = [one for one in roomy if not one.mig]  # a process sees one slice; NCCL joins none
    several = [tuple(whole[:count]) for count in range(2, len(whole) + 1)]
    for method in work.methods:
        sets: list[tuple[Placement, tuple[GPU, ...]]] = [("single", (one,)) for one in roomy[:1]]
        for members in several:
            sets += [("ddp", members), ("split", members), ("fsdp2", members)]
        if method == "lora":
            sets.append(("offload", (roomy[0],)))
        for placement, members in sets:
            if placement == "split" and len(members) > shape.layers:
                continue
            yield from _of(shape, work, members, host_bytes, overheads, estimate, placement, method)


def _of(
    shape: Shape,
    work: Workload,
    gpus: tuple[GPU, ...],
    host_bytes: int,
    overheads: Overheads,
    estimate: Estimate,
    placement: Placement,
    method: str,
) -> Iterator[Candidate]:
    """One placement and method at every micro-batch, with and without recomputation."""
    world = len(gpus) if placement in {"ddp", "fsdp2"} else 1
    held = states(shape, work, method)
    refused = _refused(work, gpus, placement, method, world, held.weights, host_bytes)
    each = work.global_batch // world if not work.global_batch % world else 0
    sizes = [n for n in range(1, min(each, LARGEST_MICRO_BATCH) + 1) if each % n == 0] or [1]
    if work.micro_batch is not None:
        sizes = [work.micro_batch]
        if each and each % work.micro_batch:
            values = {"examples": each, "micro": work.micro_batch}
            refused = refused or Refusal("r_micro_batch", values)
    choices = (False, True) if work.checkpointing is None else (work.checkpointing,)
    if placement == "offload":  # without recomputation autograd would hold every copied weight
        choices = (True,)
    for checkpointing in choices:
        for size in sizes:
            acts = estimate(shape, work, method, size, checkpointing)
            predicted, where = _predict(shape, held, gpus, overheads, placement, method, acts)
            short = max(
                part.total - round(gpu.free_bytes - RESERVE * gpu.total_bytes)
                for part, gpu in zip(predicted, gpus, strict=True)
            )
            rate = speed.tokens_per_s(
                shape, work, held, placement, method, checkpointing, size, gpus
            )
            plan = MemoryPlan(
                placement=placement,
                quantized=method == "qlora",
                checkpointing=checkpointing,
                micro_batch=size,
                accumulation=max(1, work.global_batch // (size * world)),
                gpus=tuple(gpu.index for gpu in gpus),
                dtype="float32" if method == "full" or not work.bf16 else "bfloat16",
                adapter_dtype=work.adapters(method == "qlora"),
                device_map=where,
                predicted=predicted,
                tokens_per_s=rate,
            )
            yield Candidate(plan, short, refused)


def _predict(
    shape: Shape,
    held: States,
    gpus: Sequence[GPU],
    overheads: Overheads,
    placement: Placement,
    method: str,
    acts: Activations,
) -> tuple[tuple[Breakdown, ...], dict[str, int | str] | None]:
    """The peak of each GPU, and the device map of a split."""

    def total(part: Held) -> Breakdown:
        found = strategies.peak(part, acts)
        if placement == "ddp":  # buckets of gradients for the all-reduce
            found = replace(found, workspace=found.workspace + held.gradients)
        if placement == "fsdp2" and method == "qlora":  # loaded whole on every GPU, then sharded
            lacking = max(0, held.weights - found.allocated)
            found = replace(found, workspace=found.workspace + lacking)
        return strategies.with_overheads(found, overheads, placement in {"ddp", "fsdp2"})

    match placement:
        case "split":
            bounds = strategies.split(held, shape, gpus, lambda part: total(part).total)
            parts = strategies.stages(held, shape, bounds)
            where = dict(strategies.device_map(shape, bounds))
            return tuple(total(part) for part in parts), where
        case "fsdp2":
            part = strategies.sharded(held, shape, len(gpus), method == "full")
        case "offload":
            part = strategies.offloaded(held, shape)
        case _:
            part = strategies.whole(held, shape)
    return (total(part),) * len(gpus), None


def _refused(
    work: Workload,
    gpus: Sequence[GPU],
    placement: Placement,
    method: str,
    world: int,
    weights: int,
    host_bytes: int,
) -> Refusal | None:
    """Why it cannot be run at all; None when it can."""
    if method == "qlora" and not all(gpu.nf4 for gpu in gpus):
        return Refusal("r_nf4", {})
    if method == "qlora" and work.variant in WHOLE_WEIGHTS:
        return Refusal("r_whole", {"variant": work.variant})
    if method != "full" and placement not in PLACES.get(work.variant, (placement,)):
        return Refusal("r_variant", {"variant": work.variant})
    if work.extra.generated_tokens and placement != "single":
        return Refusal("r_answers", {})
    if work.global_batch % world:
        return Refusal("r_batch", {"batch": work.global_batch, "gpus": world})
    if placement == "offload" and weights > 0.8 * host_bytes:
        values = {"weights": f"{weights / GIB:.1f}", "free": f"{host_bytes / GIB:.1f}"}
        return Refusal("r_host", values)
    return None
