"""Which stages does a plan consist of, and what does each of them do?

The only module that knows every part. A stage's identity holds what is measured and nothing of
where it runs; its function closes over the plan and fills the folder that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast import evaluate, judges, methods, store, training
from holdfast.budget import Budget, plain_budget
from holdfast.methods import Shared
from holdfast.plan import BASE, Plan, place
from holdfast.progress import Progress
from holdfast.report import write_report
from holdfast.report.outline import arm_infos, conditions, measured_readings, task_infos
from holdfast.report.results import from_json, to_json
from holdfast.report.summary import assemble
from holdfast.rows import encode_all
from holdfast.stages import Stage
from holdfast.tasks import Task
from holdfast.train import check_settings

BUDGET = "budget"
SAID_ELSEWHERE = {  # no bearing on the weights, or part of the identity in its resolved form
    "gradient_checkpointing", "logging_steps", "checkpoints", "save_steps", "global_batch_size",
    "gradient_accumulation_steps", "num_train_epochs", "max_steps", "keep_shortest",
}  # fmt: skip


def lay_out(plan: Plan) -> list[Stage]:
    """All stages, needs first; stages of one model lie together so that it is loaded once."""
    budget = Stage(BUDGET, _data_identity(plan, "plain"), lambda f, p: _budget(plan, f))
    base = [_replies(plan, BASE, None, 0, task) for task in plan.tasks]
    shared = {
        f"shared/{one.name}": _shared(plan, one)
        for arm in plan.methods.values()
        for method in arm
        for one in method.shared(plan.setting())
    }
    data = [_data(plan, arm) for arm in plan.study.arms]
    trained = [_train(plan, arm, seed) for arm in plan.study.arms for seed in plan.study.seeds]
    tuned = [
        _replies(plan, arm, seed, step, task)
        for arm, seed, step in plan.points()
        if arm != BASE
        for task in plan.tasks
    ]
    graded = []
    for arm, seed, step in plan.points():
        for name in plan.tasks:
            graded += _grading(plan, place(arm, seed, step, name), name)
    stats = _stats(plan, [one.name for one in graded if one.name.startswith("readings/")])
    report = Stage("report", {}, lambda f, p: _report(plan, f), ("stats",))
    return [budget, *base, *shared.values(), *data, *trained, *tuned, *graded, stats, report]


def _data_identity(plan: Plan, kind: str) -> dict[str, Any]:
    train = plan.study.train
    return {
        "kind": kind,
        "model": plan.identity,
        "examples": store.fingerprint(
            [[one.id, asdict(one)["messages"], one.target] for one in plan.plain]
        ),
        "steps": plan.steps,
        "batch_size": [train.per_device_train_batch_size, train.accumulation],
        "completion_only_loss": train.completion_only_loss,
        "max_length": [train.max_length, train.overlong],
    }


def _budget(plan: Plan, folder: Path) -> Mapping[str, Any]:
    train = plan.study.train
    check_settings(train, plan.study.hardware.device)
    rows, _, _ = encode_all(plan.ref, plan.plain, train)
    costs = [row.cost for row in rows]
    size = train.per_device_train_batch_size
    budget = plain_budget(costs, plan.steps, train.accumulation, size)
    store.write_json(folder / "budget.json", budget)
    return asdict(budget)


def _shared(plan: Plan, one: Shared) -> Stage:
    identity = {
        "model": plan.identity,
        "nf4": plan.pool.nf4,
        **one.identity,
    }
    return Stage(f"shared/{one.name}", identity, one.run, (), one.resumable)


def _data(plan: Plan, arm: str) -> Stage:
    steps = plan.methods[arm]
    shared = [one.name for method in steps for one in method.shared(plan.setting())]
    identity = _data_identity(plan, "arm") | {
        "methods": [[type(m).__name__, m.version, m.identity()] for m in steps]
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        examples, notes = list(plan.plain), []
        made = {name: plan.folder / "shared" / name for name in shared}
        for method in steps:
            examples, said = method.apply(examples, plan.setting(), made)
            notes += said
        plan.leaks.refuse(examples, f"arm {arm}")
        before = len(examples)
        rows, examples, preview = encode_all(plan.ref, examples, plan.study.train)
        store.write_jsonl(folder / methods.EXAMPLES, examples)
        store.write_text(folder / "mask_preview.txt", preview + "\n")
        sources: dict[str, int] = {}
        for one in examples:
            sources[one.source] = sources.get(one.source, 0) + 1
        if len(examples) < before:
            notes.append(f"{before - len(examples)} examples over max_length were left out")
        supervised = sum(row.cost.supervised for row in rows)
        return {
            "examples": len(examples), "by_source": sources, "notes": notes,
            "supervised_tokens_each": round(supervised / len(rows), 2),
            "longest_tokens": max(row.cost.tokens for row in rows),
        }  # fmt: skip

    return Stage(f"data/{arm}", identity, make, (BUDGET, *(f"shared/{name}" for name in shared)))


def _train(plan: Plan, arm: str, seed: int) -> Stage:
    train = plan.study.train
    identity = {
        "model": plan.identity,
        "train": train.model_dump(mode="json", exclude=SAID_ELSEWHERE),
        "accumulation": train.accumulation,
        "seed": seed,
        "save_at": plan.save_at,
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        plan.pool.close()
        data = plan.folder / "data" / arm
        job = training.job_of(
            plan.study,
            model=asdict(plan.ref),
            examples=str((data / methods.EXAMPLES).absolute()),
            budget=Budget(**store.read_json(plan.folder / BUDGET / "budget.json")),
            seed=seed,
            save_at=plan.save_at,
            folder=str(folder.absolute()),
        )
        longest = store.read_json(data / "record.json")["summary"]["longest_tokens"]
        return training.run(plan.study, job, longest, plan.gpus, progress)

    return Stage(f"train/{arm}/seed{seed}", identity, make, (BUDGET, f"data/{arm}"), True)


def _replies(plan: Plan, arm: str, seed: int | None, step: int, task: str) -> Stage:
    spec, examples, sampling = plan.study.tasks[task], plan.asked[task], plan.samplings[task]
    identity = {
        "model": plan.identity,
        "checkpoint": step,
        "engine": plan.study.answer.engine,
        "nf4": plan.pool.nf4,
        "bf16": plan.study.train.bf16,
        "sampling": sampling.model_dump(),
        "split": spec.split,
        "items": len(examples),
        "prompts": store.fingerprint([[one.id, asdict(one)["messages"]] for one in examples]),
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        ref = plan.weights(arm, seed, step)
        return evaluate.answer(plan.pool, ref, examples, sampling, folder, progress)

    needs = () if arm == BASE else (f"train/{arm}/seed{seed}",)
    return Stage(f"replies/{place(arm, seed, step, task)}", identity, make, needs, True)


def _grading(plan: Plan, where: str, name: str) -> list[Stage]:
    """Verdicts, where the task needs a judge, and readings of one folder of replies."""
    task, examples = plan.tasks[name], plan.asked[name]
    replies, found = f"replies/{where}", []
    if task.judge:
        judge = judges.build(task.judge)
        found.append(Stage(
            f"verdicts/{where}", {"judge": judge.name},
            lambda f, p: evaluate.judge(judge, examples, plan.folder / replies, f), (replies,),
        ))  # fmt: skip
    verdicts = plan.folder / "verdicts" / where if task.judge else None
    identity = {
        "task": [type(task).__name__, task.version, task.label],
        "gold": store.fingerprint([[one.id, one.target, one.meta] for one in examples]),
    } | _grader_options(task)
    needs = (replies, *(one.name for one in found))
    found.append(Stage(
        f"readings/{where}", identity,
        lambda f, p: evaluate.grade(task, examples, plan.folder / replies, verdicts, f), needs,
    ))  # fmt: skip
    return found


def _grader_options(task: Task) -> dict[str, Any]:
    """The task's options that are not already in the items themselves."""
    elsewhere = {"path", "train_path", "items", "train_items", "revision", "instruction"}
    return {"options": task.options.model_dump(mode="json", exclude=elsewhere)}


def _stats(plan: Plan, readings: Sequence[str]) -> Stage:
    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        results = assemble(
            plan.study.name,
            plan.study.model.id,
            plan.study.seeds,
            task_infos(plan),
            arm_infos(plan),
            measured_readings(plan),
            conditions(plan),
        )
        store.write_json(folder / "results.json", to_json(results))
        return {"verdict": results.verdict}

    identity = {"name": plan.study.name, "statistics": 1}
    trained = [f"train/{arm}/seed{seed}" for arm in plan.study.arms for seed in plan.study.seeds]
    return Stage("stats", identity, make, (*trained, *readings))


def _report(plan: Plan, folder: Path) -> Mapping[str, Any]:
    results = from_json(store.read_json(plan.folder / "stats" / "results.json"))
    return {"page": write_report(results, folder).name}
