"""Compares every way of running a job on these GPUs and chooses one.

The choice is the fastest that fits, by the model of speed; of those nearly as fast, the simplest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.errors import UsageError
from holdfast.memory.estimate.activations import Estimate, activations
from holdfast.memory.estimate.workload import Workload, plain_training
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.alternatives import Change, changes
from holdfast.memory.planner.candidates import candidates
from holdfast.memory.planner.drawing_server import Place, placed
from holdfast.memory.planner.pace import Correction
from holdfast.memory.planner.strategies import RuntimeOverheads
from holdfast.memory.planner.ways import Candidate, Problem

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
    "offload", "cpu", "qlora+cpu",
)  # fmt: skip
"""From plain to involved; also the order of the table."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every candidate for a job, and the one that was chosen.

    Attributes:
        shape: the model.
        work: the job.
        gpus: what it is planned for.
        overheads: that were counted.
        candidates: every one, in the order of `SIMPLEST`, then by speed.
        chosen: what to run; None when nothing fits.
        runner_up: the best of another strategy that fits.
        changes: when nothing fits, the single changes that would make it fit.
        method_bytes: what the methods add on the fullest GPU of the choice, or of what comes
            nearest to fitting; by formula.
        host_bytes: free memory of the machine that is meant; None: not known.
        paces: what this machine's own trainings say of the speed.
        server: the vLLM that draws answers in training; None: there is none.
    """

    shape: Shape
    work: Workload
    gpus: tuple[GPU, ...]
    overheads: RuntimeOverheads
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    runner_up: Candidate | None
    changes: tuple[Change, ...] = ()
    method_bytes: int = 0
    host_bytes: int | None = None
    paces: tuple[Correction, ...] = ()
    server: Place | None = None


def make_plan(
    shape: Shape,
    work: Workload,
    gpus: Sequence[GPU],
    host_bytes: int | None,
    overheads: RuntimeOverheads | None = None,
    estimate: Estimate = activations,
    only: str | None = None,
) -> Comparison:
    """Compare every way of running the job and choose one.

    Args:
        shape: the model.
        work: the job.
        gpus: with their free memory.
        host_bytes: free host memory, for weights that lie there; None: not known.
        overheads: measured on this machine, or the assumed ones.
        estimate: of activations; by formula unless a trace is at hand.
        only: a strategy (see `SIMPLEST`) that the user insists on.

    Raises:
        UsageError: no GPU, examples longer than the model reads, an unknown strategy, or a request
            that cannot be run whatever the memory.
    """
    problem = Problem(
        shape, work, tuple(gpus), host_bytes, overheads or RuntimeOverheads(), estimate
    )
    return solved(problem, only)


def solved(problem: Problem, only: str | None = None) -> Comparison:
    """The same, of all that is known; see `make_plan`."""
    check(problem, only)
    work = problem.work

    def compare(problem: Problem) -> list[Candidate]:
        return sorted(
            candidates(problem, only),
            key=lambda one: (SIMPLEST.index(one.plan.strategy), -one.plan.tokens_per_s),
        )

    def fitting(work: Workload, gpus: Sequence[GPU]) -> str | None:
        changed = replace(problem, work=work, gpus=tuple(gpus))
        ways = candidates(changed, only, most=True, hopeful=True)
        best = choose([one for one in ways if one.fits])
        return best.plan.strategy if best else None

    found = compare(problem)
    check_any(found)
    chosen = choose([one for one in found if one.fits])
    others = [
        one for one in found if one.fits and chosen and one.plan.strategy != chosen.plan.strategy
    ]
    added = 0
    if work.method_overhead.asks:
        nearest = chosen or min(found, key=lambda one: (bool(one.refused), one.short_bytes))
        added = _method_bytes(problem, nearest)
    return Comparison(
        problem.shape, work, problem.gpus, problem.overheads, tuple(found), chosen,
        choose(others), () if chosen else changes(work, problem.gpus, fitting), added,
        problem.host_bytes, problem.paces, placed(problem.shape, work, problem.gpus),
    )  # fmt: skip


def _method_bytes(problem: Problem, way: Candidate) -> int:
    """What the methods add to one way of running the job, on its fullest GPU."""
    keys = ("strategy", "gpus", "micro_batch", "checkpointing")

    def peak(work: Workload) -> int:
        every = candidates(replace(problem, work=work, estimate=activations))
        same = (
            one.plan
            for one in every
            if all(getattr(one.plan, key) == getattr(way.plan, key) for key in keys)
        )
        return next(same).fullest.total

    return peak(problem.work) - peak(plain_training(problem.work))


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


def _rate(candidate: Candidate) -> float:
    plan = candidate.plan
    worth = UNPROVEN if plan.placement == "fsdp2" else 1.0
    return plan.tokens_per_s * worth * (QUANTIZED if plan.quantized else 1.0)


def check_any(found: Sequence[Candidate]) -> None:
    """Refuse a request that no amount of memory would help.

    Raises:
        UsageError: there is no way at all, or none that can be run.
    """
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


def check(problem: Problem, only: str | None) -> None:
    """Refuse what is not worth comparing.

    Raises:
        UsageError: no GPU, examples longer than the model reads, or an unknown strategy.
    """
    shape, work = problem.shape, problem.work
    if not problem.gpus:
        raise UsageError(
            "no GPU was found, and none was named",
            remedy="say what there will be: --gpus 2x24GiB, or --gpus cpu",
        )
    if work.seq_len > shape.max_positions:
        raise UsageError(
            f"{shape.name} reads {shape.max_positions:,} tokens at most, not {work.seq_len:,}",
            remedy=f"give --seq-len {shape.max_positions} or less (train.max_length in a study)",
        )
    if only is not None and only not in SIMPLEST:
        raise UsageError(f"unknown strategy {only!r}", remedy=f"one of: {', '.join(SIMPLEST)}")
