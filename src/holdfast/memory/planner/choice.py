"""Which way of running the job fits these GPUs, which is fastest, and why not the others?

The choice is the fastest that fits, by the model of speed; of those nearly as fast, the simplest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.errors import UsageError
from holdfast.memory.estimate.activations import activations
from holdfast.memory.estimate.workload import Workload, without_remedies
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.changes import Change, changes
from holdfast.memory.planner.options import Candidate, Estimate, options
from holdfast.memory.planner.strategies import Overheads

NEAR = 0.10
"""Speeds within this share of the best count as equal; the simpler way is taken."""
UNPROVEN = 0.6
"""What the modelled speed of FSDP2 counts in the choice: its communication was never validated on
GPUs, and where the model is wrong it is wrong by a factor."""
QUANTIZED = 0.75
"""What the speed of 4-bit training counts in the choice: it changes the base that is trained, so a
little faster is not worth it."""
SIMPLEST: tuple[str, ...] = (
    "single", "ddp", "qlora", "qlora+ddp", "split", "fsdp2", "qlora+split", "qlora+fsdp2",
    "offload",
)  # fmt: skip
"""From plain to involved; also the order of the table."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The whole table and the choice.

    Attributes:
        candidates: every one, in the order of `SIMPLEST`, then by speed.
        chosen: what to run; None when nothing fits.
        runner_up: the best of another strategy that fits.
        changes: when nothing fits, the single changes that would make it fit.
        extra_bytes: what the remedies add on the fullest GPU of the choice, or of what comes
            nearest to fitting; by formula.
    """

    shape: Shape
    work: Workload
    gpus: tuple[GPU, ...]
    overheads: Overheads
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    runner_up: Candidate | None
    changes: tuple[Change, ...] = ()
    extra_bytes: int = 0


def make_plan(
    shape: Shape,
    work: Workload,
    gpus: Sequence[GPU],
    host_bytes: int,
    overheads: Overheads | None = None,
    estimate: Estimate = activations,
    only: str | None = None,
) -> Planned:
    """Compare every way of running the job and choose one.

    Args:
        shape: the model.
        work: the job.
        gpus: with their free memory.
        host_bytes: free host memory, for weights that lie there.
        overheads: measured on this machine, or the assumed ones.
        estimate: of activations; by formula unless a trace is at hand.
        only: a strategy (see `SIMPLEST`) that the user insists on.

    Raises:
        UsageError: no GPU, examples longer than the model reads, an unknown strategy, or a request
            that cannot be run whatever the memory.
    """
    overheads = overheads or Overheads()
    _check(shape, work, gpus, only)

    def compare(work: Workload, gpus: Sequence[GPU]) -> list[Candidate]:
        found = [
            one
            for one in options(shape, work, gpus, host_bytes, overheads, estimate)
            if only in (None, one.plan.strategy)
        ]
        return sorted(
            found, key=lambda one: (SIMPLEST.index(one.plan.strategy), -one.plan.tokens_per_s)
        )

    def fitting(work: Workload, gpus: Sequence[GPU]) -> str | None:
        best = choose([one for one in compare(work, gpus) if one.fits])
        return best.plan.strategy if best else None

    found = compare(work, gpus)
    _check_any(found)
    chosen = choose([one for one in found if one.fits])
    others = [
        one for one in found if one.fits and chosen and one.plan.strategy != chosen.plan.strategy
    ]
    extra = 0
    if work.extra.asks:
        nearest = chosen or min(found, key=lambda one: (bool(one.refused), one.short_bytes))
        extra = _extra_bytes(shape, work, gpus, host_bytes, overheads, nearest)
    return Planned(
        shape, work, tuple(gpus), overheads, tuple(found), chosen, choose(others),
        () if chosen else changes(work, gpus, fitting), extra,
    )  # fmt: skip


def _extra_bytes(
    shape: Shape,
    work: Workload,
    gpus: Sequence[GPU],
    host_bytes: int,
    overheads: Overheads,
    way: Candidate,
) -> int:
    """What remedies add to one way of running the job, on its fullest GPU."""
    keys = ("strategy", "gpus", "micro_batch", "checkpointing")

    def peak(work: Workload) -> int:
        every = options(shape, work, gpus, host_bytes, overheads, activations)
        same = (
            one.plan
            for one in every
            if all(getattr(one.plan, key) == getattr(way.plan, key) for key in keys)
        )
        return next(same).fullest.total

    return peak(work) - peak(without_remedies(work))


def choose(fitting: Sequence[Candidate]) -> Candidate | None:
    """The fastest; the simplest strategy of those that are nearly as fast."""
    if not fitting:
        return None
    best = max(_rate(one) for one in fitting)
    near = [one for one in fitting if _rate(one) >= best * (1 - NEAR)]
    simplest = min(SIMPLEST.index(one.plan.strategy) for one in near)
    same = [one for one in near if SIMPLEST.index(one.plan.strategy) == simplest]
    return max(
        same, key=lambda one: (round(one.plan.tokens_per_s / best, 2), -one.plan.fullest.total)
    )


def _rate(one: Candidate) -> float:
    worth = UNPROVEN if one.plan.placement == "fsdp2" else 1.0
    return one.plan.tokens_per_s * worth * (QUANTIZED if one.plan.quantized else 1.0)


def _check_any(found: Sequence[Candidate]) -> None:
    """Refuse a request that no amount of memory would help."""
    if not found:
        raise UsageError(
            "these GPUs and this method cannot be combined in the way that was asked for",
            remedy="leave out --strategy (hardware.strategy in a study)",
        )
    refusals = [one.refused for one in found if one.refused]
    if len(refusals) == len(found):
        raise UsageError(
            refusals[0].words("en"),
            remedy="change --method, --strategy, the global batch or the GPUs; `holdfast plan` "
            "without --strategy shows what can be run",
        )


def _check(shape: Shape, work: Workload, gpus: Sequence[GPU], only: str | None) -> None:
    if not gpus:
        raise UsageError(
            "no GPU was found, and none was named",
            remedy="say what there will be: --gpus 2x24GiB; training on the CPU needs no plan",
        )
    if work.seq_len > shape.max_positions:
        raise UsageError(
            f"{shape.name} reads {shape.max_positions:,} tokens at most, not {work.seq_len:,}",
            remedy=f"give --seq-len {shape.max_positions} or less (train.max_length in a study)",
        )
    if only is not None and only not in SIMPLEST:
        raise UsageError(f"unknown strategy {only!r}", remedy=f"one of: {', '.join(SIMPLEST)}")
