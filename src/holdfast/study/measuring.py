"""Which stages make and measure one point: its weights, replies, scores, verdicts, readings?"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import engines, methods
from holdfast.engines.resumable import OTHERWISE, REPLIES
from holdfast.errors import DataError
from holdfast.grading import evaluate
from holdfast.grading.degeneration import NLL_MARGIN, NLL_QUANTILE
from holdfast.judges import Judge, identity_of, members_of
from holdfast.judges.ensemble import MEMBERS
from holdfast.methods.scale import interpolated_model
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.stages import Stage
from holdfast.study.plan import BASE, Plan, place
from holdfast.tasks import Task
from holdfast.types import Example, Point

OTHER_CHUNK = 61
"""Questions asked together when the base is asked again: other batches than the first time."""


def repeats(plan: Plan) -> range:
    """The further times that the untouched model is asked."""
    return range(2, plan.study.answer.repeats + 1)


def again_place(time: int, task: str) -> str:
    """The folder of one further asking of the base."""
    return f"{BASE}@{time}/{task}"


def made_weights(plan: Plan, point: Point) -> list[Stage]:
    """The stage that makes a point's weights of trained ones; none where training made them."""
    if plan.untouched(point.arm):
        return []
    folder = plan.made_in(point)
    if not folder.startswith("weights/"):
        return []
    own = plan.arms[point.arm]
    source, merge, full = own.variant.source, own.merges, plan.study.train.method == "full"
    seeds = [one for one in (plan.study.seeds if point.seed is None else (point.seed,))]
    arms = [source, *(merge.partners if merge else ())]
    train = [(arm, seed) for arm in arms for seed in seeds]
    identity = {
        "methods": [methods.identity_of(m) for m in own.weights if m.makes],
        "step": point.step, "scale": point.scale if full else 1.0,
    }  # fmt: skip

    def make(into: Path, progress: Progress) -> Mapping[str, Any]:
        plan.pool.close()
        parts = [plan.folder / plan.checkpoint(arm, seed, point.step) for arm, seed in train]
        if full:
            interpolated_model(plan.ref.base, parts[0], point.scale, into, plan.ref.revision)
            return {}
        return merge.make(parts, into) if merge else {}

    needs = tuple(dict.fromkeys(f"train/{arm}/seed{seed}" for arm, seed in train))
    return [Stage(folder, identity, make, needs)]


def replies(plan: Plan, point: Point, task: str) -> Stage:
    """The stage that asks one point all items of a task."""
    spec, examples, sampling = (
        plan.study.tasks[task],
        plan.ask(point.arm, task),
        plan.samplings[task],
    )
    identity = {
        "model": plan.identity,
        "checkpoint": [point.step, point.scale],
        "engine": engines.identity_of(plan.study.answer.engine),
        "nf4": plan.pool.nf4,
        "bf16": plan.study.train.bf16,
        "sampling": sampling.model_dump(),
        "split": spec.split,
        "items": len(examples),
        "prompts": store.fingerprint([_asked(one) for one in examples]),
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        _check_there(plan, point)
        ref = plan.weights(point)
        twin = _same_weights(plan, point, task)
        if twin is not None:  # training had ended before: nothing new to ask
            shutil.copyfile(twin / REPLIES, folder / REPLIES)
            return dict(store.read_json(twin / store.RECORD)["summary"])
        return evaluate.answer(plan.pool, ref, examples, sampling, folder, progress)

    return Stage(f"replies/{place(point, task)}", identity, make, _weights_of(plan, point), True)


def _asked(example: Example) -> list[Any]:
    """All that a reply depends on of what was asked."""
    otherwise = {key: example.meta[key] for key in OTHERWISE if key in example.meta}
    return [example.id, example.messages, *([otherwise] if otherwise else [])]


def _check_there(plan: Plan, point: Point) -> None:
    """Refuse to ask a checkpoint that was deleted.

    Raises:
        DataError: naming the stage that makes it again.
    """
    if plan.untouched(point.arm):
        return
    folder = plan.folder / plan.made_in(point)
    if not folder.is_dir():
        raise DataError(
            "this checkpoint was deleted (train.save_total_limit)",
            where=str(folder),
            remedy=f"train it again with --rebuild '{folder.parent.relative_to(plan.folder)}', "
            "or raise the limit before the next study",
        )


def _weights_of(plan: Plan, point: Point) -> tuple[str, ...]:
    if plan.untouched(point.arm):
        return ()
    made = made_weights(plan, point)
    if made:
        return (made[0].name,)
    return (f"train/{plan.arms[point.arm].variant.source}/seed{point.seed}",)


def _same_weights(plan: Plan, point: Point, task: str) -> Path | None:
    """Replies of an earlier checkpoint of the arm that is this one, because training had ended."""
    for step in plan.save_at:
        earlier = replace(point, step=step)
        if step < point.step and plan.weights(earlier) == plan.weights(point):
            folder = plan.folder / "replies" / place(earlier, task)
            if (folder / store.RECORD).is_file():
                return folder
    return None


def again(plan: Plan, task: str, time: int) -> Stage:
    """The untouched model asked once more: other batches, and another draw where it is drawn."""
    first = replies(plan, Point(BASE), task)
    sampling = plan.samplings[task].model_copy(update={"seed": plan.samplings[task].seed + time})

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        return evaluate.answer(
            plan.pool, plan.ref, plan.asked[task], sampling, folder, progress, OTHER_CHUNK // time
        )

    identity = {**first.identity, "sampling": sampling.model_dump(), "again": time}
    return Stage(f"replies/{again_place(time, task)}", identity, make, (), True)


def scores(task: Task) -> bool:
    """Whether the untouched model is to score the replies to a task as well."""
    return task.perplexity


def scoring(plan: Plan, where: str, name: str) -> Stage:
    """The stage in which the untouched model scores one folder of replies."""
    replies = f"replies/{where}"
    identity = {"model": plan.identity, "nf4": plan.pool.nf4, "bf16": plan.study.train.bf16}

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        said = plan.folder / replies
        return evaluate.score(plan.pool, plan.ref, plan.asked[name], said, folder, progress)

    return Stage(f"surprise/{where}", identity, make, (replies,), True)


def judges_ready(plan: Plan) -> list[Stage]:
    """The stage that looks at judges which are models, before anything is asked.

    One that is not there, is gated or does not fit must not be found out after hours of answering.
    A server may be started later, when the models under test have left the GPU: that it does not
    answer yet is only said.
    """
    every = [
        judge for task in plan.tasks.values() if task.judge for judge in members_of(task.judge)
    ]
    models = {store.fingerprint(identity_of(one)): one for one in every if one.guard or one.remote}

    def make(folder: Path, progress: Progress) -> Mapping[str, Any]:
        needs = {}
        for judge in models.values():
            if judge.remote and (why := judge.absent()):
                progress.say(f"{judge.title}: {why}; it has to by the time judging begins")
            if guard := judge.guard:
                needs[judge.title] = round(guard.needs(plan.gpus), 2)
        return {"needs_gib": needs}

    return [Stage("judges", {"judges": sorted(models)}, make)] if models else []


def judged_first(graded: Sequence[Stage]) -> list[Stage]:
    """The stages of `grading` so that each judge is loaded once: its verdicts lie together.

    Members of ensembles come first, then verdicts, then readings; within, judge by judge.
    """
    order = {"members": 0, "verdicts": 1, "readings": 2}
    judges: dict[str, int] = {}
    for one in graded:
        judges.setdefault(_judge_mark(one), len(judges))
    return sorted(graded, key=lambda s: (order[s.name.split("/")[0]], judges[_judge_mark(s)]))


def _judge_mark(stage: Stage) -> str:
    return store.fingerprint(stage.identity.get("judge"))


def _judging(plan: Plan, judge: Judge, where: str, name: str) -> list[Stage]:
    """The stages that label one folder of replies: of every judge of an ensemble, and their sum."""
    said, examples = f"replies/{where}", plan.asked[name]

    def asking(stage: str, one: Judge) -> Stage:
        return Stage(
            stage, {"judge": identity_of(one)},
            lambda f, p: evaluate.judge(one, examples, plan.folder / said, f, plan.desk(f, p)),
            (said,), True,
        )  # fmt: skip

    if not judge.seats():
        return [asking(f"verdicts/{where}", judge)]
    members = [asking(members_place(seat, where), one) for seat, one in judge.seats()]
    folders = [plan.folder / one.name for one in members]
    together = Stage(
        f"verdicts/{where}", {"judge": identity_of(judge)},
        lambda f, p: evaluate.combine(judge, examples, plan.folder / said, folders, f),
        (said, *(one.name for one in members)),
    )  # fmt: skip
    return [*members, together]


def members_place(seat: str, where: str) -> str:
    """The folder of what one judge of an ensemble said of one folder of replies."""
    return f"{MEMBERS}/{seat}/{where}"


def grading(plan: Plan, where: str, name: str) -> list[Stage]:
    """Verdicts, where the task needs a judge, and readings of one folder of replies."""
    task, examples = plan.tasks[name], plan.asked[name]
    replies, found = f"replies/{where}", []
    if task.judge:
        found += _judging(plan, task.judge, where, name)
    verdicts = plan.folder / "verdicts" / where if task.judge else None
    identity = (
        {
            "task": [task.plugin, task.version, task.label],
            "gold": store.fingerprint([[one.id, one.target, one.meta] for one in examples]),
        }
        | _grader_options(task)
        | ({"code": task.code} if task.code else {})
    )
    needs = (replies, *(one.name for one in found if one.name.startswith("verdicts/")))
    scored: tuple[Path, Path] | None = None
    if scores(task):
        names = [f"surprise/{one}" for one in (where, place(Point(BASE), name))]
        scored = (plan.folder / names[0], plan.folder / names[1])
        needs += tuple(dict.fromkeys(names))
        identity |= {"surprise": [NLL_QUANTILE, NLL_MARGIN]}
    found.append(Stage(
        f"readings/{where}", identity,
        lambda f, p: evaluate.grade(task, examples, plan.folder / replies, verdicts, f, scored),
        needs,
    ))  # fmt: skip
    return found


def _grader_options(task: Task) -> dict[str, Any]:
    """The task's options that are not already in the items themselves."""
    elsewhere = {"path", "train_path", "items", "train_items", "revision", "instruction"}
    elsewhere |= {"task", "include_path", "overrides"}  # hashed with the items
    return {"options": task.options.model_dump(mode="json", exclude=elsewhere)}
