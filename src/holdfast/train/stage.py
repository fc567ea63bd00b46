"""Runs a train stage under a memory plan, and records what it took beside what was predicted.

Without a GPU training runs in this process, unless the host's memory is tight: then in one of its
own, so that the kernel's killing it is survived. With a GPU it is planned for the examples that
there are and launched as a process of its own. Out of memory is an answer, not a crash: the next
plan starts in a fresh process and goes on from the last complete checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from holdfast.config import Study
from holdfast.errors import HoldfastError, OutOfMemory, UsageError
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU, parse
from holdfast.memory.memory_plan import GIB, Breakdown, MemoryPlan
from holdfast.memory.model.stored import check, method_for, stored_in
from holdfast.memory.planner import calibration, explanation, machine
from holdfast.memory.planner.alternatives import next_plan
from holdfast.memory.planner.calibration import Observation
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.request import CPU, PlanRequest
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.train.job import EVENTS, OOM, TrainJob
from holdfast.train.launch import torchrun, worker
from holdfast.train.launch.torchrun import Build, command, launch
from holdfast.train.planning import fitting, overhead_of, plan_study, record_pace
from holdfast.train.served import at

RECORD = "memory.json"
TIGHT = 0.6
"""Share of the memory at hand above which a training on the CPU gets a process of its own."""


def gpus_of(study: Study) -> tuple[GPU, ...]:
    """The GPUs that a study may use: those it names, or those that are there; none on the CPU.

    What those that it names can compute in is known best by those that are there.
    """
    if study.hardware.device == "cpu":
        return ()
    if not study.hardware.gpus:
        return detect()
    named = parse(study.hardware.gpus)
    try:
        there = {gpu.index: gpu for gpu in detect()}
    except UsageError:  # said when the study is to run (`check_present`)
        return named
    return tuple(
        replace(gpu, name=real.name, bf16=real.bf16, fp16=real.fp16, nf4=real.nf4)
        if (real := there.get(gpu.index))
        else gpu
        for gpu in named
    )


def resolved(study: Study, gpus: Sequence[GPU]) -> Study:
    """The study with `train.method` decided: on a 4-bit base LoRA is QLoRA.

    `auto` is what fits these GPUs best, LoRA without any.

    Raises:
        DoesNotFit: nothing fits.
        ModelError: the base cannot be trained as it is stored.
    """
    held = stored_in(study.model.id, study.model.revision)
    method = method_for(held, study.train.method)
    check(held, method, study.model.id, study.hardware.device)
    if method != study.train.method:
        return study.model_copy(update={"train": study.train.model_copy(update={"method": method})})
    if study.train.method != "auto":
        return study
    method = "lora"
    if gpus:
        method = "qlora" if fitting(plan_study(study, _on(study, gpus))).quantized else "lora"
    return study.model_copy(update={"train": study.train.model_copy(update={"method": method})})


def notices(given: Study, study: Study) -> tuple[str, ...]:
    """What `resolved` changed in a study, in sentences."""
    if given.train.method == study.train.method or given.train.method == "auto":
        return ()
    measured = ""
    if given.answer.quantize == "none":
        measured = "; answer.quantize: none has no bearing on it"
    return (
        f"{given.model.id} is stored in 4 bits: train.method {given.train.method} means "
        f"{study.train.method} here, and it is measured in 4 bits too{measured}",
    )


def check_fits(study: Study, gpus: Sequence[GPU]) -> None:
    """Refuse what cannot fit before anything is spent on it; by formula.

    Raises:
        DoesNotFit: naming the changes after which it would.
    """
    if gpus and study.train.max_length:
        fitting(plan_study(study, _on(study, gpus)))


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

    def planned(asked: PlanRequest) -> MemoryReport:
        overhead = overhead_of(worker.losses_of(job), len(job.averages))
        if job.probes:
            names = (*overhead.names, "meters")
            overhead = replace(overhead, names=names, probed_tokens=answer_tokens or longest)
        return plan_study(
            study,
            asked,
            arms={study.name: PlanRequest(train=study.train, overhead=overhead)},
            longest=longest,
            answer_tokens=answer_tokens,
        )

    if not gpus:
        try:
            report = planned(PlanRequest(gpus=CPU, trace=False))
        except (
            HoldfastError
        ):  # a kind of model that the planner does not know may train all the same
            return worker.train(job, progress)
        return _on_cpu(study, _served(job, report, progress), progress, report)
    report = planned(replace(_on(study, gpus), trace=True))
    hardware, elsewhere = study.hardware, study.hardware.nodes - 1
    plan = torchrun.across(fitting(report), hardware.nodes, hardware.meeting)
    progress.say(
        f"{explanation.describe(plan, 'en')}: {explanation.reason(report.comparison, 'en')}"
    )
    progress.say(report.precision.line())
    job = _served(job, report, progress)
    if idle := machine.idle(report.comparison, "en"):
        progress.say(idle)
    path = job.launch_folder / "job.json"
    progress.say(f"starting {torchrun.printable(plan, path, {})}")
    if elsewhere:
        run_folder = next(one.parent for one in job.folder.parents if one.name == "train")
        progress.say(f"waiting for {elsewhere} more machines; give on each of them: "
                     f"{torchrun.following(run_folder)}")  # fmt: skip
    events: list[dict[str, object]] = []
    used = [plan]

    def following(failed: MemoryPlan, event: Mapping[str, object]) -> MemoryPlan | None:
        alone = torchrun.alone(failed)
        new = next_plan(report.candidates, alone, study.hardware.allow)
        new = new and torchrun.across(new, hardware.nodes, hardware.meeting)
        used.extend([new] if new else [])
        return new

    summary = train(job, plan, progress, following, events, here=worker.train)
    measured = summary.get("memory")
    store.write_json(job.folder / RECORD, {
        "plan": asdict(used[-1]), "source": report.source, "measured": measured, "events": events,
    })  # fmt: skip
    server = report.comparison.server
    if server is None or server.apart:  # else its memory would be taken for this process's
        _observe(used[-1], measured, gpus)
    record_pace(report, used[-1], job, bool(events))
    return summary | {"plan": explanation.describe(used[-1], "en"), "events": events}


def _served(job: TrainJob, report: MemoryReport, progress: Progress) -> TrainJob:
    """The job with a place for the server that draws its answers, where there is one; it is said.

    Raises:
        DoesNotFit: both together do not fit.
    """
    place = report.comparison.server
    if place is None or job.served is None:
        return job
    fitting(report)
    progress.say(place.reason.words("en"))
    return replace(job, served=at(job.served, place, torchrun.environment))


def _on_cpu(
    study: Study, job: TrainJob, progress: Progress, report: MemoryReport
) -> Mapping[str, object]:
    """Train without a GPU: as asked for, and when that does not fit with smaller plans."""
    spec, budget = job.train, job.budget
    asked = MemoryPlan(
        "cpu", spec.method == "qlora", spec.gradient_checkpointing, budget.per_micro_batch,
        budget.micro_batches, dtype=report.precision.dtype,
        adapter_dtype=report.comparison.work.adapters(spec.method == "qlora"),
    )  # fmt: skip
    asked = replace(asked, predicted=_predicted(report, asked))
    server = report.comparison.server
    room = report.comparison.gpus[0].free_bytes - (server.takes if server else 0)
    tight = asked.fullest.total > TIGHT * room
    if tight:
        progress.say(
            f"training may take {asked.fullest.total / GIB:.1f} of {room / GIB:.1f} GiB of memory: "
            "it runs in a process of its own, and goes on with a smaller plan if that is killed"
        )
    events: list[dict[str, object]] = []
    again = False

    def following(failed: MemoryPlan, event: Event) -> MemoryPlan | None:
        nonlocal again
        if event["phase"] in ("load", "save") and not again:
            again = True  # in a fresh process, which has nothing else to hold
            return failed
        new = next_plan(report.candidates, failed, study.hardware.allow)
        return new and replace(new, predicted=new.predicted or _predicted(report, new))

    def here(job: TrainJob, progress: Progress) -> Mapping[str, object]:
        plain = job if job.plan != asked else replace(job, plan=None)  # exactly as budgeted
        if tight or events:
            return launch(plain, asked, progress)
        return worker.train(plain, progress)

    summary = train(job, asked, progress, following, events, here=here)
    ran = replace(asked, checkpointing=bool(summary.get("recomputed", asked.checkpointing)))
    record_pace(report, ran, job, bool(events))
    return summary | ({"events": events} if events else {})


def _predicted(report: MemoryReport, plan: MemoryPlan) -> tuple[Breakdown, ...]:
    """What a plan is predicted to take; that of the nearest larger one in the table."""
    alike = [
        one.plan
        for one in report.candidates
        if one.plan.quantized == plan.quantized
        and one.plan.micro_batch >= plan.micro_batch
        and one.plan.checkpointing <= plan.checkpointing
    ]
    every = [max((one.plan for one in report.candidates), key=lambda one: one.fullest.total)]
    return min(alike or every, key=lambda one: one.fullest.total).predicted


def _on(study: Study, gpus: Sequence[GPU]) -> PlanRequest:
    """A request for these GPUs, or for those that the study names."""
    return PlanRequest(gpus=tuple(gpus) or study.hardware.gpus, trace=False)


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


Event = Mapping[str, object]
"""One time that memory ran out: phase, message, plan, and what was tried next."""
NextPlan = Callable[[MemoryPlan, Event], MemoryPlan | None]


def train(
    job: TrainJob,
    plan: MemoryPlan,
    progress: Progress,
    next_plan: NextPlan,
    events: list[dict[str, object]],
    *,
    here: Callable[[TrainJob, Progress], Mapping[str, object]],
    build: Build = command,
) -> dict[str, Any]:
    """Train as planned; when memory runs out, go on from the last checkpoint with the next plan.

    Args:
        job: what to train.
        plan: the first plan.
        progress: follows the training, wherever it runs.
        next_plan: what to try after a plan and its event; None: give up.
        events: gets every event: one that a process mended itself, and every change of plan.
        here: trains in this process; for plans that need no GPU.
        build: see `torchrun.Build`.

    Returns:
        What `fit.fit` returns.

    Raises:
        OutOfMemory: no plan is left.
        HoldfastError: what the process raised, as it raised it.
        TrainingError: the process crashed; the message has its last lines.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    known = _count(job)
    while True:
        try:
            if plan.placement == "cpu":
                summary = here(replace(job, plan=plan), progress)
            else:
                summary = launch(replace(job, plan=plan), plan, progress, build)
        except OutOfMemory as error:
            known = _collect(job, events, known)
            event = _event(job, plan, error)
            new = next_plan(plan, event)
            event["to"] = None if new is None else _brief(new)
            store.append_line(job.folder / EVENTS, event)
            known = _collect(job, events, known)
            if new is None:
                raise
            progress.say(
                f"out of memory ({error.phase}) with {_words(plan)}: going on from the last "
                f"checkpoint with {_words(new)}"
            )
            plan = new
        else:
            _collect(job, events, known)
            return dict(summary)


def _event(job: TrainJob, plan: MemoryPlan, error: OutOfMemory) -> dict[str, object]:
    path = job.launch_folder / OOM
    noted = torchrun.noted(path) if plan.placement != "cpu" else {}
    return {
        "phase": error.phase,
        "message": error.message,
        "from": _brief(plan),
        "predicted_bytes": max((one.total for one in plan.predicted), default=None),
        "allocated_bytes": noted.get("allocated_bytes"),
        "reserved_bytes": noted.get("reserved_bytes"),
    }


def _brief(plan: MemoryPlan) -> dict[str, object]:
    names = ("strategy", "placement", "quantized", "checkpointing", "micro_batch", "accumulation")
    return {name: getattr(plan, name) for name in (*names, "gpus", "adapter_dtype")}


def _words(plan: MemoryPlan) -> str:
    parts = [plan.strategy, f"micro-batch {plan.micro_batch}"]
    parts += ["checkpointing"] if plan.checkpointing else []
    parts += ["bf16 adapters"] if plan.adapter_dtype == "bfloat16" else []
    if plan.predicted:
        parts.append(f"{max(one.total for one in plan.predicted) / GIB:.1f} GiB predicted")
    return ", ".join(parts)


def _count(job: TrainJob) -> int:
    return len(store.read_lines(job.folder / EVENTS))


def _collect(job: TrainJob, events: list[dict[str, object]], known: int) -> int:
    """Append what the file has beyond `known` lines; returns how many it has."""
    lines = store.read_lines(job.folder / EVENTS)
    events += lines[known:]
    return len(lines)
