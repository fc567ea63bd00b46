"""Plans the memory of a study: for the arm that takes most.

Arms differ in their adapters and in what their loss methods keep, so each of them is a request of
its own, and the plan must hold for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from holdfast import methods
from holdfast.config import Study
from holdfast.config.sweeps import expand
from holdfast.memory.estimate.method_overhead import MethodOverhead, combined
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.detect import detect
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import CPU, USUAL_SEQ_LEN, PlanRequest

NOTHING_SAID = PlanRequest(trace=False)


class HasOverhead(Protocol):
    """A method, as far as memory cares."""

    def overhead(self) -> MethodOverhead:
        """What it takes beyond plain training."""


def plan_study(
    study: Study,
    asked: PlanRequest = NOTHING_SAID,
    *,
    arms: Mapping[str, PlanRequest] | None = None,
    longest: int | None = None,
    answer_tokens: int | None = None,
) -> MemoryReport:
    """Plan the training of a study: for the arm that takes most.

    Args:
        study: model, training and hardware.
        asked: what the command line says, which wins over the study.
        arms: training and overhead of each arm; None: of all that the study trains.
        longest: tokens of its longest training example; None: `train.max_length`, or assumed.
        answer_tokens: of the longest answer, where whole logits are kept; None: as long as all.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`.
        StudyError: an arm that cannot be.
    """
    hardware = study.hardware
    known = asked.seq_len or longest or study.train.max_length
    common = replace(
        asked,
        model=study.model.id,
        revision=study.model.revision,
        gpus=asked.gpus or (CPU if hardware.device == "cpu" else hardware.gpus or detect()),
        seq_len=known,
        method=asked.method or study.train.method,
        strategy=asked.strategy or hardware.strategy,
        train=study.train,
    )
    requests: dict[tuple[Workload, Sequence[str]], tuple[str, PlanRequest]] = {}
    for name, arm in (arms_of(study) if arms is None else arms).items():
        supervised = answer_tokens if arm.overhead.reference else None
        request = replace(
            common, train=arm.train, overhead=arm.overhead, supervised_tokens=supervised
        )
        precisions = (arm.train or study.train).precisions
        requests.setdefault((request.workload(), precisions), (name, request))
    if not requests:
        requests[common.workload(), ()] = (study.name, common)
    hardest, notes = next(iter(requests)), []
    if len(requests) > 1:
        hardest = max(requests, key=lambda work: _shortage(_by_formula(requests[work][1])))
        notes.append(f"planned for the arm {requests[hardest][0]}, which takes most")
    report = plan(requests[hardest][1])
    if not known:
        notes.append(f"examples of at most {USUAL_SEQ_LEN:,} tokens assumed (set train.max_length)")
    return replace(report, notes=(*report.notes, *notes))


def arms_of(study: Study) -> dict[str, PlanRequest]:
    """Training settings and overhead of all arms that are trained, in the study's order.

    Raises:
        StudyError: see `holdfast.config.sweeps.expand` and `holdfast.methods.build`.
    """
    found = {}
    for variant in expand(study, study.name).values():
        if not variant.trains:
            continue
        where = f"arms.{variant.family}.loss"
        loss = [
            methods.build(name, options, study.name, where)
            for step in variant.spec.loss
            for name, options in step.items()
        ]
        found[variant.name] = PlanRequest(train=variant.train, overhead=overhead_of(loss))
    return found


def overhead_of(loss: Iterable[HasOverhead]) -> MethodOverhead:
    """What an arm's loss methods take together."""
    return combined(method.overhead() for method in loss)


def _by_formula(request: PlanRequest) -> Comparison:
    return plan(replace(request, trace=False)).comparison


def _shortage(comparison: Comparison) -> tuple[bool, int]:
    """How badly a job fits: whether at all, then what its roomiest way lacks, bytes."""
    lacks = (one.short_bytes for one in comparison.candidates if not one.refused)
    return comparison.chosen is None, min(lacks, default=0)
