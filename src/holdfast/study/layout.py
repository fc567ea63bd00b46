"""Which stages does a plan consist of, and what does each of them do?

The only module that knows every part. A stage's identity holds what is measured and nothing of
where it runs; its function closes over the plan and fills the folder that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast import methods
from holdfast.analysis.collect import (
    agreements,
    arm_infos,
    conditions,
    measured_readings,
    meter_readings,
    repeated_readings,
    task_infos,
)
from holdfast.analysis.results import from_json, to_json
from holdfast.analysis.selection import from_run
from holdfast.analysis.summarize import assemble
from holdfast.config import ArmSpec
from holdfast.data.batching import Budget, plain_budget
from holdfast.errors import HoldfastError
from holdfast.methods import SharedWork
from holdfast.methods._probes import probes
from holdfast.progress import Progress
from holdfast.report import write_report
from holdfast.runs import store
from holdfast.runs.stages import Stage
from holdfast.study.measuring import (
    again,
    again_place,
    grading,
    judged_first,
    judges_ready,
    made_weights,
    repeats,
    replies,
    scores,
    scoring,
)
from holdfast.study.plan import BASE, Plan, place
from holdfast.train import check_settings, stage
from holdfast.train.adapters import check_model
from holdfast.train.data import encode_all
from holdfast.types import Point

BUDGET = "budget"
SAID_ELSEWHERE = {  # no bearing on the weights, or part of the identity in its resolved form
    "gradient_checkpointing", "logging_steps", "checkpoints", "save_steps", "global_batch_size",
    "gradient_accumulation_steps", "num_train_epochs", "max_steps", "keep_shortest",
    "save_total_limit", "cut_template_header",
}  # fmt: skip


def lay_out(plan: Plan) -> list[Stage]:
    """All stages, needs first; stages of one model lie together so that it is loaded once."""
    budget = Stage(BUDGET, _data_identity(plan, "plain"), lambda f, p: _budget(plan, f))
    base = [replies(plan, Point(BASE), task) for task in plan.tasks]
    repeated = [again(plan, task, time) for time in repeats(plan) for task in plan.tasks]
    shared = {f"shared/{one.name}": _shared(plan, one) for one in all_shared(plan)}
    data = [_data(plan, arm) for arm, own in plan.arms.items() if own.variant.trains]
    trained = [_train(plan, arm, seed) for arm, seed in plan.trained]
    made = {one.name: one for point in plan.points() for one in made_weights(plan, point)}
    tuned = [
        replies(plan, point, task)
        for point in plan.points()
        if point.arm != BASE
        for task in plan.tasks
    ]
    where = []
    for name in plan.tasks:
        where += [(place(point, name), name) for point in plan.points()]
        where += [(again_place(time, name), name) for time in repeats(plan)]
    scored = [scoring(plan, one, name) for one, name in where if scores(plan.tasks[name])]
    graded = judged_first([stage for at, name in where for stage in grading(plan, at, name)])
    stats = _stats(plan, [one.name for one in graded if one.name.startswith("readings/")])
    report = Stage("report", {}, lambda f, p: _report(plan, f), ("stats",))
    return [
        *judges_ready(plan), budget, *base, *repeated, *shared.values(), *data, *trained,
        *made.values(), *tuned, *scored, *graded, stats, report,
    ]  # fmt: skip


def all_shared(plan: Plan) -> list[SharedWork]:
    """What methods and meters need of the base, the same thing once."""
    setting = plan.setting()
    found = [
        one
        for arm in plan.arms.values()
        if arm.variant.trains
        for method in arm.made
        for one in methods.shared_of(method, setting)
    ]
    if plan.study.meters.probes:
        found.append(probes(setting, plan.study.meters.probes))
    return list({one.name: one for one in found}.values())


def _data_identity(plan: Plan, kind: str) -> dict[str, Any]:
    train = plan.study.train
    return {
        "kind": kind,
        "model": plan.identity,
        "examples": store.fingerprint([[one.id, one.messages, one.target] for one in plan.plain]),
        "steps": plan.steps,
        "batch_size": [train.per_device_train_batch_size, train.accumulation],
        "completion_only_loss": train.completion_only_loss,
        "max_length": [train.max_length, train.overlong],
    } | ({"cut_template_header": True} if train.cut_template_header else {})


def _budget(plan: Plan, folder: Path) -> Mapping[str, Any]:
    train = plan.study.train
    for name, arm in plan.arms.items():  # before any GPU time is spent on what comes earlier
        if arm.variant.trains:
            with _in_arm(name):
                check_settings(arm.variant.train, plan.study.hardware.device)
                if train.method != "full":
                    check_model(plan.ref, arm.variant.train)
    rows, _, _ = encode_all(plan.ref, plan.plain, train)
    costs = [row.cost for row in rows]
    size = train.per_device_train_batch_size
    budget = plain_budget(costs, plan.steps, train.accumulation, size)
    store.write_json(folder / "budget.json", budget)
    return asdict(budget)


@contextmanager
def _in_arm(name: str) -> Iterator[None]:
    try:
        yield
    except HoldfastError as error:
        error.where = f"arms.{name}: {error.where}" if error.where else f"arms.{name}"
        raise


def _shared(plan: Plan, one: SharedWork) -> Stage:
    identity = {
        "model": plan.identity,
        "nf4": plan.pool.nf4,
        **one.identity,
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        with plan.pool.counted(folder) as spent:
            summary = one.run(folder, progress)
        return {**summary, "spent": asdict(spent)}

    return Stage(f"shared/{one.name}", identity, make, (), one.resumable)


def _data(plan: Plan, arm: str) -> Stage:
    steps, train = plan.arms[arm].made, plan.arms[arm].variant.train
    shared = [one.name for method in steps for one in methods.shared_of(method, plan.setting())]
    identity = _data_identity(plan, "arm") | {"methods": [methods.identity_of(m) for m in steps]}

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        examples, notes = list(plan.plain), []
        made = {name: plan.folder / "shared" / name for name in shared}
        with plan.pool.counted(folder) as spent:
            for method in steps:
                examples, said = method.apply(examples, plan.setting(), made)
                notes += said
        plan.leaks.refuse(examples, f"arm {arm}")
        before = len(examples)
        rows, examples, preview = encode_all(plan.ref, examples, train)
        store.write_jsonl(folder / methods.EXAMPLES, examples)
        store.write_text(folder / "mask_preview.txt", preview + "\n")
        sources: dict[str, int] = {}
        for one in examples:
            if one.meta.get("kind") != methods.PROBE:
                sources[one.source] = sources.get(one.source, 0) + 1
        if len(examples) < before:
            notes.append(f"{before - len(examples)} examples over max_length were left out")
        supervised = sum(row.cost.supervised for row in rows)
        return {
            "examples": sum(sources.values()), "by_source": sources, "notes": notes,
            "spent": asdict(spent),
            "supervised_tokens_each": round(supervised / len(rows), 2),
            "longest_tokens": max(row.cost.tokens for row in rows),
            "answer_tokens": max(len(row.ids) - row.start for row in rows),
        }  # fmt: skip

    return Stage(f"data/{arm}", identity, make, (BUDGET, *(f"shared/{name}" for name in shared)))


def _train(plan: Plan, arm: str, seed: int) -> Stage:
    own = plan.arms[arm]
    train = own.variant.train
    losses = [methods.identity_of(m) for m in own.loss]
    identity = {
        "model": plan.identity,
        "train": train.model_dump(mode="json", exclude=SAID_ELSEWHERE),
        "accumulation": train.accumulation,
        "seed": seed,
        "save_at": plan.save_at,
        "loss": losses,
        "stop": plan.study.meters.stop,
    }
    metered = plan.study.meters.probes
    read = probes(plan.setting(), metered).name if metered else None

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        plan.pool.close()
        data = plan.folder / "data" / arm
        job = stage.job_of(
            plan.study,
            train,
            model=asdict(plan.ref),
            examples=str((data / methods.EXAMPLES).absolute()),
            budget=Budget(**store.read_json(plan.folder / BUDGET / "budget.json")),
            seed=seed,
            save_at=plan.save_at,
            folder=str(folder.absolute()),
            losses=tuple((name, dict(options or {})) for name, options in _named(own.variant.spec)),
            probes=read and str((plan.folder / "shared" / read / methods.EXAMPLES).absolute()),
            stop=dict(plan.study.meters.stop),
        )
        about = store.read_json(data / store.RECORD)["summary"]
        study = plan.study.model_copy(update={"train": train})
        return stage.run(
            study, job, about["longest_tokens"], plan.gpus, progress, about["answer_tokens"]
        )

    needs = (BUDGET, f"data/{arm}", *([f"shared/{read}"] if read else []))
    return Stage(f"train/{arm}/seed{seed}", identity, make, needs, True)


def _named(spec: ArmSpec) -> list[tuple[str, dict[str, Any] | None]]:
    return [pair for step in spec.loss for pair in step.items()]


def _stats(plan: Plan, readings: Sequence[str]) -> Stage:
    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        evidence = from_run.gather(plan)
        results = assemble(
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
        )
        store.write_json(folder / "results.json", to_json(results))
        return {"verdict": results.verdict}

    identity = {
        "name": plan.study.name, "statistics": 3, "ship": plan.study.ship.model_dump(mode="json"),
    }  # fmt: skip
    trained = [f"train/{arm}/seed{seed}" for arm, seed in plan.trained]
    return Stage("stats", identity, make, (*trained, *readings))


def _report(plan: Plan, folder: Path) -> Mapping[str, Any]:
    results = from_json(store.read_json(plan.folder / "stats" / "results.json"))
    return {"page": write_report(results, folder).name}
