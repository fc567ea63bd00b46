"""What is there to show of a plan and its finished stages?

Reads the records of a run folder and describes tasks and arms in the report's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import environment, store
from holdfast.evaluate import read_readings, read_replies
from holdfast.plan import BASE, Plan, place
from holdfast.report.results import ArmInfo, ReplyShown, TaskInfo
from holdfast.report.summary import Measured


def task_infos(plan: Plan) -> list[TaskInfo]:
    """How each ability is measured."""
    found = []
    for name, spec in plan.study.tasks.items():
        task, sampling = plan.tasks[name], plan.samplings[name]
        decoding = "greedy"
        if sampling.temperature:
            decoding = f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
        how = f"split {spec.split}, {decoding}, at most {sampling.max_new_tokens} new tokens"
        if sampling.samples > 1:
            how += f", {sampling.samples} answers each"
        if spec.shots.n:
            how += f", {spec.shots.n} {spec.shots.mode} shots"
        if plan.pool.nf4:
            how += ", base in 4 bits (NF4)"
        if task.judge == "refusal":
            how += "; judged by an offline refusal detector (rules, no model)"
            if task.inverted:
                how += ": a reply that does not decline counts as unsafe, whatever it says"
        elif task.judge:
            how += f"; judged by {task.judge}"
        count = len(plan.asked[name])
        found.append(TaskInfo(name, spec.role, task.label, count, how, task.inverted))
    return found


def arm_infos(plan: Plan) -> list[ArmInfo]:
    """What each arm was trained on and what it cost, from the records of its stages."""
    found = [ArmInfo(BASE, "the untouched model")]
    for arm in plan.study.arms:
        data = _summary(plan.folder / "data" / arm)
        folders = [plan.folder / "train" / arm / f"seed{seed}" for seed in plan.study.seeds]
        runs = [_summary(folder) for folder in folders]
        seconds = [store.read_json(folder / store.RECORD)["seconds"] for folder in folders]
        recipe = "; ".join(method.recipe() for method in plan.methods[arm])
        found.append(
            ArmInfo(
                name=arm,
                recipe=recipe or "plain fine-tuning on the task's own answers",
                examples=data["examples"],
                by_source=data["by_source"],
                steps=runs[0]["steps"],
                supervised_tokens=round(sum(r["supervised_tokens"] for r in runs) / len(runs)),
                examples_seen=round(sum(r["examples_seen"] for r in runs) / len(runs)),
                seconds=round(sum(seconds) / len(seconds), 1),
                notes=tuple(data["notes"]),
                loss=tuple((step, loss) for step, loss in runs[0]["loss"]),
            )
        )
    return found


def conditions(plan: Plan) -> dict[str, str]:
    """The lines under "how it was measured", from what was recorded when it was measured."""
    replies = [
        store.read_json(plan.folder / "replies" / place(arm, seed, step, task) / store.RECORD)
        for arm, seed, step in plan.points()
        for task in plan.tasks
    ]
    trained = [
        _summary(plan.folder / "train" / arm / f"seed{seed}")["device"]
        for arm in plan.study.arms
        for seed in plan.study.seeds
    ]
    answered = [one["summary"]["device"] or "not recorded" for one in replies]
    versions = environment.versions()
    shown = ("holdfast", "torch", "transformers", "trl", "peft")
    names = {"hf": "transformers"}
    engine = plan.study.answer.engine
    return {
        "Date": min(one["started"] for one in replies)[:10],
        "Engine": f"{names.get(engine, engine)} (base and every checkpoint alike)",
        "Device": _each(answered),
        "Trained on": _each(trained),
        "Versions": ", ".join(f"{name} {versions[name]}" for name in shown),
    }


def _each(words: Sequence[str]) -> str:
    """Every different word once; more than one is a mixture that a reader must see."""
    different = sorted(set(words))
    return different[0] if len(different) == 1 else "mixed: " + "; ".join(different)


def measured_readings(plan: Plan) -> list[Measured]:
    """All readings, seeds of one point together."""
    found = []
    for arm in (BASE, *plan.study.arms):
        for step in (0,) if arm == BASE else plan.save_at:
            for task in plan.tasks:
                seeds = (None,) if arm == BASE else plan.study.seeds
                where = [place(arm, seed, step, task) for seed in seeds]
                readings = [read_readings(plan.folder / "readings" / one) for one in where]
                cut = sum(_summary(plan.folder / "replies" / one)["cut_off"] for one in where)
                found.append(Measured(arm, step, task, readings, cut))
    return found


def replies_shown(plan: Plan, count: int) -> list[ReplyShown]:
    """The first `count` replies per arm and task at the final checkpoint, for readers who ask."""
    found = []
    for arm in (BASE, *plan.study.arms):
        step = 0 if arm == BASE else plan.save_at[-1]
        seed = None if arm == BASE else plan.study.seeds[0]
        for task in plan.tasks:
            where = place(arm, seed, step, task)
            replies = {one.example_id: one for one in read_replies(plan.folder / "replies" / where)}
            graded = read_readings(plan.folder / "readings" / where)
            outcome = {one.example_id: one.outcome for one in graded}
            for example in plan.asked[task][:count]:
                reply = replies[example.id].text
                found.append(ReplyShown(arm, task, example.question, reply, outcome[example.id]))
    return found


def _summary(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = store.read_json(folder / store.RECORD)["summary"]
    return summary
