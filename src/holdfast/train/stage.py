"""Runs a train stage under a memory plan, and records what it took beside what was predicted.

Without a GPU training runs in this process. With one it is planned for the examples that there are
and launched as a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version

from holdfast.config import Study
from holdfast.errors import DoesNotFit, UsageError
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU, parse
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.planner import calibration, explanation
from holdfast.memory.planner.alternatives import next_plan
from holdfast.memory.planner.calibration import Observation
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.request import PlanRequest
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.train.job import TrainJob
from holdfast.train.launch import recovery, torchrun, worker
from holdfast.train.planning import overhead_of, plan_study

RECORD = "memory.json"


def gpus_of(study: Study) -> tuple[GPU, ...]:
    """The GPUs that a study may use: those it names, or those that are there; none on the CPU."""
    if study.hardware.device == "cpu":
        return ()
    return parse(study.hardware.gpus) if study.hardware.gpus else detect()


def resolved(study: Study, gpus: Sequence[GPU]) -> Study:
    """The study with `train.method: auto` decided: what fits these GPUs best; LoRA without any.

    Raises:
        DoesNotFit: nothing fits.
    """
    if study.train.method != "auto":
        return study
    method = "lora"
    if gpus:
        method = "qlora" if _fitting(plan_study(study, _on(study, gpus))).quantized else "lora"
    return study.model_copy(update={"train": study.train.model_copy(update={"method": method})})


def check_fits(study: Study, gpus: Sequence[GPU]) -> None:
    """Refuse what cannot fit before anything is spent on it; by formula.

    Raises:
        DoesNotFit: naming the changes after which it would.
    """
    if gpus and study.train.max_length:
        _fitting(plan_study(study, _on(study, gpus)))


def check_present(study: Study, find: Callable[[], Sequence[GPU]] = detect) -> None:
    """Refuse to run on GPUs that a study names and this machine does not have.

    Raises:
        UsageError: naming how many there are.
    """
    if study.hardware.gpus is None or study.hardware.device == "cpu":
        return
    wanted, there = len(parse(study.hardware.gpus)), len(find())
    if there < wanted:
        raise UsageError(
            f"hardware.gpus names {wanted}, and {there or 'none'} can be found here",
            where=study.name,
            remedy="leave hardware.gpus out to use what is here, or set hardware.device: cpu",
        )


def run(
    study: Study,
    job: TrainJob,
    longest: int,
    gpus: Sequence[GPU],
    progress: Progress,
    answer_tokens: int | None = None,
) -> Mapping[str, object]:
    """Train one arm with one seed where it belongs.

    Args:
        study: model, training with the arm's own settings, and hardware.
        job: what to train.
        longest: tokens of the longest example.
        gpus: that may be used.
        progress: follows it.
        answer_tokens: of the longest answer, probes included.

    Returns:
        What `fit.fit` returns, and under a memory plan `plan` and `events`.

    Raises:
        DoesNotFit: nothing fits these GPUs.
        OutOfMemory: not even the last plan did.
    """
    if not gpus:
        return worker.train(job, progress)
    overhead = overhead_of(worker.losses_of(job))
    if job.probes:
        names = (*overhead.names, "meters")
        overhead = replace(overhead, names=names, probed_tokens=answer_tokens or longest)
    report = plan_study(
        study,
        replace(_on(study, gpus), trace=True),
        arms={study.name: PlanRequest(train=study.train, overhead=overhead)},
        longest=longest,
        answer_tokens=answer_tokens,
    )
    plan = _fitting(report)
    progress.say(
        f"{explanation.describe(plan, 'en')}: {explanation.reason(report.comparison, 'en')}"
    )
    path = job.launch_folder / "job.json"
    progress.say(f"starting {torchrun.printable(plan, path, {})}")
    events: list[dict[str, object]] = []
    used = [plan]

    def following(failed: MemoryPlan, event: Mapping[str, object]) -> MemoryPlan | None:
        new = next_plan(report.candidates, failed, study.hardware.allow)
        used.extend([new] if new else [])
        return new

    summary = recovery.train(job, plan, progress, following, events, here=worker.train)
    measured = summary.get("memory")
    store.write_json(job.folder / RECORD, {
        "plan": asdict(used[-1]), "source": report.source, "measured": measured, "events": events,
    })  # fmt: skip
    _observe(used[-1], measured, gpus)
    return summary | {"plan": explanation.describe(used[-1], "en"), "events": events}


def _on(study: Study, gpus: Sequence[GPU]) -> PlanRequest:
    """A request for these GPUs, or for those that the study names."""
    return PlanRequest(gpus=study.hardware.gpus or tuple(gpus), trace=False)


def _fitting(report: MemoryReport) -> MemoryPlan:
    if report.plan is None:
        compared = report.comparison
        lines = explanation.changes(compared, "en")
        names = ", ".join(sorted({gpu.name for gpu in compared.gpus}))
        raise DoesNotFit(
            f"training {compared.shape.name} does not fit on {names}",
            remedy="\n    ".join([*lines, "`holdfast plan` shows the whole table"]),
        )
    return report.plan


def _observe(
    plan: MemoryPlan, measured: Sequence[Mapping[str, int]] | None, gpus: Sequence[GPU]
) -> None:
    """Feed the calibration; other programs' memory on the GPU is not the plan's."""
    names = {gpu.index: gpu for gpu in gpus}
    for index, part, found in zip(plan.gpus, plan.predicted, measured or (), strict=False):
        gpu = names[index]
        others = max(0, gpu.total_bytes - gpu.free_bytes)
        calibration.observe(Observation(
            version("torch"), gpu.name, plan.world_size > 1, part.allocated,
            found["allocated_bytes"], found["reserved_bytes"],
            max(0, found["context_bytes"] - others),
        ))  # fmt: skip
