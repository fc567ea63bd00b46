"""The stages of a study, and what each of them does.

The only module that knows every part. A stage's identity holds what is measured and nothing of
where it runs; its function closes over the plan and fills the folder that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from holdfast import methods
from holdfast.analysis import trainings
from holdfast.analysis.collect import (
    agreements,
    arm_infos,
    learned,
    measured_readings,
    meter_readings,
    repeated_readings,
    task_infos,
    trained_alike,
)
from holdfast.analysis.conditions import conditions, notices
from holdfast.analysis.results import from_json, to_json
from holdfast.analysis.selection import from_run
from holdfast.analysis.summarize import RunData, assemble
from holdfast.config import ArmSpec
from holdfast.data.batching import Cost, plain_budget
from holdfast.data.holdout import without
from holdfast.errors import located
from holdfast.methods import SharedWork, _rewards
from holdfast.methods._bound import BUDGET
from holdfast.progress import Progress
from holdfast.report.write import write_report
from holdfast.runs import records, store
from holdfast.runs.plan import again_place, place
from holdfast.runs.stages import Stage
from holdfast.study import targets
from holdfast.study.measuring import (
    again,
    check_weights,
    grading,
    judged_first,
    judges_ready,
    made_weights,
    needs_no_model,
    replies,
    scoring,
)
from holdfast.study.probes import asked_by_meters, probes
from holdfast.study.session import Session
from holdfast.study.validation import VALIDATION, stage_of
from holdfast.train import served, stage
from holdfast.train.data import encode_all
from holdfast.train.job import Graded, TrainJob
from holdfast.types import BASE, Point

SAID_ELSEWHERE = {  # no bearing on the weights, or part of the identity in its resolved form
    "gradient_checkpointing", "logging_steps", "checkpoints", "save_steps", "global_batch_size",
    "gradient_accumulation_steps", "num_train_epochs", "max_steps", "keep_shortest",
    "save_total_limit", "cut_template_header", "train_on", "packing", "kernels", "torch_compile",
    "async_save", "dataloader_num_workers", "dataloader_prefetch_factor",
}  # fmt: skip

ONCE = 1.05
"""Of the budget, and the last answer that was taken to fill it."""


def lay_out(session: Session) -> list[Stage]:
    """All stages, needs first; stages of one model lie together so that it is loaded once.

    What no model has to be loaded for is graded at once, so that its figures come as the study
    goes; judges that are models come last, each loaded once.
    """
    parts = session.parts
    budgets = [_budgeted(part) for part in parts]
    apart = session.plan.model, session.study.train, session.held
    held = [stage_of(*apart, _data_identity(session, VALIDATION))] if session.held else []
    base = [
        stage for task in session.measuring.tasks for stage in _asked(session, Point(BASE), task)
    ]
    repeated = [
        stage
        for time in session.plan.repeats
        for task in session.measuring.tasks
        for stage in (
            again(session, task, time), *_graded_at_once(session, again_place(time, task), task),
        )
    ]  # fmt: skip
    shared = [_shared(part, one) for part in parts for one in all_shared(part)]
    training = [arm for arm, own in session.arms.items() if own.variant.trains]
    data = [_data(part, arm) for part in parts for arm in training]
    trained = [_train(part, arm, seed) for arm, seed in session.plan.trained for part in parts]
    made = {
        one.name: one for point in session.plan.points() for one in made_weights(session, point)
    }
    tuned = [
        stage
        for point in session.plan.points()
        if point.arm != BASE
        for task in session.measuring.tasks
        for stage in _asked(session, point, task)
    ]
    where = []
    for name in session.measuring.tasks:
        where += [(place(point, name), name) for point in session.plan.points()]
        where += [(again_place(time, name), name) for time in session.plan.repeats]
    scored = [
        scoring(session, at, name) for at, name in where if session.measuring.tasks[name].perplexity
    ]
    graded = judged_first(
        [
            stage for at, name in where if not needs_no_model(session, name)
            for stage in grading(session, at, name)
        ]
    )  # fmt: skip
    stats = _stats(session, [f"readings/{at}" for at, _ in where])
    report = Stage("report", {}, lambda f, p: _report(session, f), ("stats",))
    return [
        *judges_ready(session), *budgets, *held, *base, *repeated, *shared, *data, *trained,
        *made.values(), *tuned, *scored, *graded, stats, report,
    ]  # fmt: skip


def _asked(session: Session, point: Point, task: str) -> list[Stage]:
    """The stage that asks a model, and the one that grades it where that can be done at once."""
    asking = replies(session, point, task)
    return [asking, *_graded_at_once(session, place(point, task), task)]


def _graded_at_once(session: Session, where: str, name: str) -> list[Stage]:
    """The stage that grades one folder of replies, where that can be done at once."""
    return grading(session, where, name) if needs_no_model(session, name) else []


def all_shared(session: Session) -> list[SharedWork]:
    """What methods and meters need of the base, the same thing once and as much as any needs."""
    found = [
        one
        for arm in session.arms.values()
        if arm.variant.trains
        for method in arm.made
        for one in methods.shared_of(method, session.setting(arm))
    ]
    metered = asked_by_meters(session.study.meters, session.plain)
    if metered and session.plan.trained:
        found.append(probes(session.setting(), metered))
    greatest: dict[str, SharedWork] = {}
    for one in found:  # a pool that several arms use holds what the one with most need needs
        if one.name not in greatest or greatest[one.name].need < one.need:
            greatest[one.name] = one
    return list(greatest.values())


def _data_identity(session: Session, kind: str) -> dict[str, object]:
    train = session.study.train
    return {
        "kind": kind,
        "model": session.identity,
        "examples": session.plain_mark,
        "steps": session.plan.steps,
        "batch_size": [train.per_device_train_batch_size, train.accumulation],
        "completion_only_loss": train.completion_only_loss,
        "max_length": [train.max_length, train.overlong],
    } | {
        key: value
        for key, value in (
            ("cut_template_header", train.cut_template_header),
            ("train_on", train.train_on),
        )
        if value not in (False, "last")
    }


def _budgeted(session: Session) -> Stage:
    """The stage that says what the plain arm spends."""
    identity = _data_identity(session, "plain")
    return Stage(session.named(BUDGET), identity, lambda f, p: _budget(session, f))


def _budget(session: Session, folder: Path) -> Mapping[str, object]:
    train = session.study.train
    rows, _, _ = encode_all(session.plan.model, session.plain, train)
    costs = [row.cost for row in rows]
    size = train.per_device_train_batch_size
    budget = plain_budget(costs, session.plan.steps, train.accumulation, size)
    store.write_json(folder / "budget.json", budget)
    return asdict(budget)


def _shared(session: Session, work: SharedWork) -> Stage:
    identity = {
        "model": session.identity,
        "nf4": session.pool.nf4,
        **work.identity,
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        with session.pool.counted(folder) as spent:
            summary = work.run(folder, progress)
        return {**summary, "spent": asdict(spent)}

    needs = tuple(session.named(one) if one == BUDGET else one for one in work.needs)
    name = session.named("shared", work.name)
    return Stage(name, identity, make, needs, work.resumable, work.asks)


def _data(session: Session, arm: str) -> Stage:
    steps, train = session.arms[arm].made, session.arms[arm].variant.train
    setting = session.setting(session.arms[arm])
    shared = [work.name for method in steps for work in methods.shared_of(method, setting)]
    identity = _data_identity(session, "arm") | {"methods": [methods.identity_of(m) for m in steps]}
    if steps and setting.fills:
        identity["order"] = session.order_seed
    if steps and session.earlier_marks:  # which methods may mix in, as they draw
        identity["earlier"] = [*session.earlier_marks, setting.seed]

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        examples, notes = list(session.plain), []
        made = {name: session.folder / session.named("shared", name) for name in shared}
        with session.pool.counted(folder) as spent:
            for method in steps:
                examples, said = method.apply(examples, setting, made)
                notes += said
        with located(f"arms.{arm}"):
            notes += targets.told_shares(session.target, session.plain, examples)
        session.leaks.refuse(examples, f"arm {arm}")
        before = len(examples)
        if session.held and len(examples := without(examples, session.held)) < before:
            notes.append(f"{before - len(examples)} held-out examples were left out")
            before = len(examples)
        rows, examples, preview = encode_all(session.plan.model, examples, train)
        store.write_jsonl(folder / methods.EXAMPLES, examples)
        store.write_text(folder / "mask_preview.txt", preview + "\n")
        sources: dict[str, int] = {}
        for example in examples:
            if example.meta.get("kind") != methods.PROBE:
                sources[example.source] = sources.get(example.source, 0) + 1
        if len(examples) < before:
            notes.append(f"{before - len(examples)} examples over max_length were left out")
        supervised = sum(row.cost.supervised for row in rows)
        kinds = [one.meta.get("kind", methods.TASK) for one in examples]
        own = [row.cost for row, kind in zip(rows, kinds, strict=True) if kind == methods.TASK]
        return {
            "examples": sum(sources.values()), "by_source": sources, "notes": notes,
            "spent": asdict(spent),
            "supervised_tokens_each": round(supervised / len(rows), 2),
            "longest_tokens": max(row.cost.tokens for row in rows),
            "answer_tokens": max(len(row.ids) - row.start for row in rows),
            "alike": bool(steps) and _alike(session, own),
        }  # fmt: skip

    needs = (session.named(BUDGET), *(session.named("shared", name) for name in shared))
    return Stage(session.named(f"data/{arm}"), identity, make, needs)


def _alike(session: Session, own: Sequence[Cost]) -> bool:
    """Whether all seeds see the same of the task where plain training sees other parts of it.

    So it is where training sees less than one round of the training set, and what methods made of
    it fills the budget once.

    Args:
        session: with its budget.
        own: of all that they made of the task's own examples.
    """
    tokens = [one.supervised for one in own]
    seen = session.plan.steps * session.study.train.batch_size
    once = ONCE * session.budget.supervised_tokens + max(tokens, default=0)
    return seen < len(session.plain) and sum(tokens) <= once


def _train(session: Session, arm: str, seed: int) -> Stage:
    own, chapter = session.arms[arm], session.chapter
    train = own.train_in(chapter)
    losses = [methods.identity_of(m) for m in own.loss]
    identity = {
        "model": session.identity,
        "train": train.identity(SAID_ELSEWHERE),
        "accumulation": train.accumulation,
        "seed": seed,
        "save_at": session.plan.save_at,
        "loss": losses,
        "stop": session.study.meters.stop,
    }
    averages = session.averages(arm)
    if averages:
        identity["averages"] = list(averages)
    graded = None
    if any(method.graded for method in own.loss):
        specs = {name: session.study.tasks[name] for name in session.study.targets}
        graded = Graded(specs, session.target_sampling)
        marks = _rewards.identity(session.target), list(graded.sampling.stop)
        identity["graded"] = list(marks)  # the rest is drawing's
    metered = asked_by_meters(session.study.meters, session.plain)
    read = probes(session.setting(), metered).name if metered else None

    before, start = "", None  # what the weights begin with; None: the untouched model
    if chapter is not None and chapter.number > 1:
        before = session.plan.trained_in(arm, seed, chapter.before)
        start = session.folder.absolute() / session.plan.checkpoint(arm, seed, chapter.before)

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        session.pool.close()
        if start is not None:
            check_weights(session, start)
        data = session.folder / session.named(f"data/{arm}")
        job = TrainJob(
            model=session.plan.model,
            train=train,
            budget=session.budget,
            seed=seed,
            save_at=session.plan.save_at,
            folder=folder.absolute(),
            examples=(data / methods.EXAMPLES).absolute(),
            losses=tuple((name, dict(options or {})) for name, options in _named(own.variant.spec)),
            probes=(
                (session.folder / session.named("shared", read) / methods.EXAMPLES).absolute()
                if read
                else None
            ),
            validation=(
                (session.folder / VALIDATION / methods.EXAMPLES).absolute()
                if session.held
                else None
            ),
            stop={str(name): limit for name, limit in session.study.meters.stop.items()},
            averages=averages,
            graded=graded,
            start=start,
            served=served.of(own.loss, session.study.hardware.vllm),
            device=session.study.hardware.device,
        )
        about = records.summary(data)
        study = session.study.model_copy(update={"train": train})
        return stage.run(
            study, job, about["longest_tokens"], session.gpus, progress, about["answer_tokens"]
        )

    needs = [session.named(BUDGET), session.named(f"data/{arm}")]
    needs += [session.named("shared", read)] if read else []
    needs += [VALIDATION] if session.held else []
    needs += [before] if before else []
    return Stage(session.named(f"train/{arm}/seed{seed}"), identity, make, tuple(needs), True)


def _named(spec: ArmSpec) -> list[tuple[str, dict[str, object] | None]]:
    return [pair for step in spec.loss for pair in step.items()]


def _stats(session: Session, readings: Sequence[str]) -> Stage:
    plan = session.plan

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        evidence = from_run.gather(plan)
        results = assemble(
            RunData(
                plan.study.name,
                plan.study.model.id,
                plan.study.seeds,
                task_infos(plan),
                arm_infos(plan),
                measured_readings(plan),
                conditions(plan),
                repeated_readings(plan),
                meter_readings(plan),
                from_run.fronts(plan, evidence),
                from_run.as_decision(from_run.decide(plan, evidence)),
                agreements(plan),
                notices(plan),
                trained_alike(plan),
                learned(plan),
            )
        )
        store.write_json(folder / "results.json", to_json(results))
        return {"verdict": results.verdict}

    identity = {
        "name": plan.study.name, "statistics": 5, "ship": plan.study.ship.model_dump(mode="json"),
    }  # fmt: skip
    trained = trainings.stages_of(session.plan)
    return Stage("stats", identity, make, (*trained, *readings))


def _report(session: Session, folder: Path) -> Mapping[str, object]:
    results = from_json(store.read_json(session.folder / "stats" / "results.json"))
    return {"page": write_report(results, folder).name}
