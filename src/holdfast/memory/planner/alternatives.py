"""What to do when a job does not fit: the smallest changes to it, and the next plan to try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from holdfast.memory.estimate.workload import Workload, longer
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner.ways import Candidate

SIZES_GIB = (12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 141, 180)
MOST_GPUS = 16
STEP_TOKENS = 64
Fitting = Callable[[Workload, Sequence[GPU]], str | None]
"""Job and GPUs to the strategy of the best plan that fits, if one does."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change after which the job fits.

    Attributes:
        kind: `seq_len`, `quantize`, `checkpointing`, `gpu_bytes`, `host_bytes`, `gpus`,
            `micro_batch` or `lora`.
        value: what it must become.
        strategy: of the plan that then fits.
    """

    kind: str
    value: int
    strategy: str


def changes(work: Workload, gpus: Sequence[GPU], fitting: Fitting) -> tuple[Change, ...]:
    """The smallest single changes after which something fits, found by trying."""
    found: list[Change] = []

    def attempt(kind: str, value: int, work: Workload, gpus: Sequence[GPU]) -> bool:
        strategy = fitting(work, gpus)
        if strategy:
            found.append(Change(kind, value, strategy))
        return bool(strategy)

    if work.micro_batch and work.micro_batch > 1:
        attempt("micro_batch", 1, replace(work, micro_batch=1), gpus)
    if work.checkpointing is False:
        attempt("checkpointing", 1, replace(work, checkpointing=True), gpus)
    if "qlora" not in work.methods:
        attempt("quantize", 1, replace(work, method="qlora", quantize=True), gpus)
    if work.method == "full":
        attempt("lora", 1, replace(work, method="lora"), gpus)
    low, high = 0, -(-work.seq_len // STEP_TOKENS)
    while high - low > 1:  # more tokens never take less
        middle = (low + high) // 2
        fits = fitting(longer(work, STEP_TOKENS * middle), gpus)
        low, high = (middle, high) if fits else (low, middle)
    if low:
        attempt("seq_len", STEP_TOKENS * low, longer(work, STEP_TOKENS * low), gpus)
    for count in () if gpus[0].cpu else range(len(gpus) + 1, MOST_GPUS + 1):
        more = [*gpus, *(replace(gpus[0], index=100 + n) for n in range(count - len(gpus)))]
        if attempt("gpus", count, work, more):
            break
    for size in SIZES_GIB:
        if size * GIB > max(one.free_bytes for one in gpus) and attempt(
            "host_bytes" if gpus[0].cpu else "gpu_bytes", size * GIB, work,
            [replace(one, total_bytes=size * GIB, free_bytes=size * GIB) for one in gpus],
        ):  # fmt: skip
            break
    return tuple(found)


def next_plan(
    candidates: Sequence[Candidate], failed: MemoryPlan, allow: Sequence[str] = ()
) -> MemoryPlan | None:
    """What to run after `failed` ran out of memory: the next smaller plan.

    Half the micro-batch, recomputation, bfloat16 adapters, 4-bit weights, then placements that take
    less on their fullest GPU, the fastest first. The fused loss is always on. Adapters' dtype and
    4-bit weights change what is learned, so they are tried only when the user allowed them; under
    float16 adapters stay float32. Sequences are never shortened.

    Args:
        candidates: the table of the job.
        failed: the plan that did not fit after all.
        allow: `bf16_adapters`, `nf4`.

    Returns:
        The next plan; None when no smaller one is left.
    """

    def alike(micro_batch: int, checkpointing: bool) -> MemoryPlan:
        """The same placement with other settings, with its own prediction where there is one."""
        times = failed.micro_batch // micro_batch
        wanted = replace(
            failed,
            micro_batch=micro_batch,
            accumulation=failed.accumulation * times,
            checkpointing=checkpointing,
        )
        keys = ("strategy", "gpus", "micro_batch", "accumulation", "checkpointing")
        for candidate in candidates:
            if all(getattr(candidate.plan, key) == getattr(wanted, key) for key in keys):
                return candidate.plan
        return wanted

    if failed.micro_batch > 1 and failed.micro_batch % 2 == 0:
        return alike(failed.micro_batch // 2, failed.checkpointing)
    if not failed.checkpointing:
        return alike(failed.micro_batch, True)

    narrows = failed.adapter_dtype == "float32" and failed.dtype != "float16"
    if "bf16_adapters" in allow and narrows:
        return replace(failed, adapter_dtype="bfloat16")

    less = [
        one.plan
        for one in candidates
        if one.fits
        and ("nf4" in allow or failed.quantized or not one.plan.quantized)
        and one.plan.quantized >= failed.quantized
        and one.plan.checkpointing
        and one.plan.micro_batch == 1
        and one.plan.fullest.total < 0.97 * failed.fullest.total
    ]
    if not less:
        return None
    return max(
        less,
        key=lambda one: (
            one.placement == failed.placement,
            one.quantized == failed.quantized,
            one.placement != "offload",
            one.tokens_per_s,
        ),
    )
