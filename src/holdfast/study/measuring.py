"""The stages that make and measure one point: weights, replies, perplexity, verdicts, readings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast import engines, methods
from holdfast.engines.chunks import REPLIES
from holdfast.engines.kept import OTHERWISE
from holdfast.errors import DataError, EndpointError
from holdfast.grading.answer import answer_items, write_questions
from holdfast.grading.degeneration import NLL_MARGIN, NLL_QUANTILE
from holdfast.grading.grade import grade_replies
from holdfast.grading.judge import combine_verdicts, judge_replies
from holdfast.grading.perplexity import score_replies
from holdfast.judges import Judge, identity_of, members_of
from holdfast.methods.scale import interpolated_model
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.runs.plan import again_place, member_place, place
from holdfast.runs.stages import Stage
from holdfast.study.session import Session
from holdfast.tasks import Task
from holdfast.types import BASE, Example, Point

OTHER_CHUNK = 61
"""Questions asked together when the base is asked again: other batches than the first time."""
LATEST = "it has to by the time all else is done"
"""Of a judge's server that does not answer yet."""


def made_weights(session: Session, point: Point) -> list[Stage]:
    """The stage that makes a point's weights of trained ones; none where training made them."""
    if session.plan.untouched(point.arm):
        return []
    folder = session.plan.made_in(point)
    if not folder.startswith("weights/"):
        return []
    own = session.arms[point.arm]
    source, merge, full = own.variant.source, own.merges, session.study.train.method == "full"
    seeds = session.study.seeds if point.seed is None else (point.seed,)
    arms = [source, *(merge.partners if merge else ())]
    plan = session.plan
    before = plan.chapters if merge is not None and merge.over_stages else ()
    steps = [*(one.end for one in before if one.end < point.step), point.step]
    train = [(arm, seed, step) for arm in arms for seed in seeds for step in steps]
    identity = {
        "methods": [methods.identity_of(m) for m in own.weights if m.makes],
        "step": point.step, "scale": point.scale if full else 1.0,
    }  # fmt: skip

    def make(into: Path, progress: Progress) -> Mapping[str, object]:
        session.pool.close()
        found = [session.folder / plan.checkpoint(*one) for one in train]
        for part in found:
            check_weights(session, part)
        model = session.plan.model
        if merge:
            device, nf4 = session.study.hardware.device, session.pool.nf4
            return merge.make_from(methods.Making(model, full, nf4, device), found, into)
        if full:
            interpolated_model(model.base, found[0], point.scale, into, model.revision)
        return {}

    needs = tuple(dict.fromkeys(plan.trained_in(*one) for one in train))
    return [Stage(folder, identity, make, needs)]


def replies(session: Session, point: Point, task: str) -> Stage:
    """The stage that asks one point all items of a task."""
    spec, examples, sampling = (
        session.study.tasks[task],
        session.ask(point.arm, task),
        session.measuring.samplings[task],
    )
    identity = {
        "model": session.identity,
        "checkpoint": [point.step, point.scale],
        "engine": engines.identity_of(session.study.answer.engine),
        **session.precision,
        "sampling": sampling.model_dump(),
        "split": spec.split,
        "items": len(examples),
        "prompts": store.fingerprint([_asked(one) for one in examples]),
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        if not session.plan.untouched(point.arm):
            check_weights(session, session.folder / session.plan.made_in(point))
        if point.arm == BASE:
            write_questions(examples, folder)
        ref = session.plan.weights(point)
        twin = _same_weights(session, point, task)
        if twin is not None:  # training had ended before: nothing new to ask
            records.check_file(twin / REPLIES)
            shutil.copyfile(twin / REPLIES, folder / REPLIES)
            return dict(records.summary(twin))
        return answer_items(session.pool, ref, examples, sampling, folder, progress)

    return Stage(f"replies/{place(point, task)}", identity, make, _weights_of(session, point), True)


def _asked(example: Example) -> list[object]:
    """All that a reply depends on of what was asked."""
    otherwise = {key: example.meta[key] for key in OTHERWISE if key in example.meta}
    tools = [example.tools] if example.tools else []
    return [example.id, example.messages, *([otherwise] if otherwise else []), *tools]


def check_weights(session: Session, folder: Path) -> None:
    """Refuse weights that were deleted, or are not those that were written.

    Raises:
        DataError: they were deleted; naming the stage that makes them again.
        Damaged: they were changed.
    """
    if not folder.is_dir():
        raise DataError(
            "this checkpoint was deleted (train.save_total_limit)",
            where=str(folder),
            remedy=f"train it again with --rebuild '{folder.parent.relative_to(session.folder)}', "
            "or raise the limit before the next study",
        )
    records.check_folder(folder)


def _weights_of(session: Session, point: Point) -> tuple[str, ...]:
    if session.plan.untouched(point.arm):
        return ()
    made = made_weights(session, point)
    if made:
        return (made[0].name,)
    source = session.arms[point.arm].variant.source
    return (session.plan.trained_in(source, point.seed, point.step),)


def _same_weights(session: Session, point: Point, task: str) -> Path | None:
    """Replies of an earlier checkpoint of the arm that is this one, because training had ended."""
    for step in session.plan.save_at:
        earlier = replace(point, step=step)
        if step < point.step and session.plan.weights(earlier) == session.plan.weights(point):
            folder = session.folder / "replies" / place(earlier, task)
            if (folder / store.RECORD).is_file():
                return folder
    return None


def again(session: Session, task: str, time: int) -> Stage:
    """The untouched model asked once more: other batches, and another draw where it is drawn."""
    first = replies(session, Point(BASE), task)
    sampling = session.measuring.samplings[task].model_copy(
        update={"seed": session.measuring.samplings[task].seed + time}
    )

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        return answer_items(
            session.pool,
            session.plan.model,
            session.measuring.asked[task],
            sampling,
            folder,
            progress,
            OTHER_CHUNK // time,
        )

    identity = {**first.identity, "sampling": sampling.model_dump(), "again": time}
    return Stage(f"replies/{again_place(time, task)}", identity, make, (), True)


def scoring(session: Session, where: str, name: str) -> Stage:
    """The stage in which the untouched model scores one folder of replies."""
    replies, base = f"replies/{where}", place(Point(BASE), name)
    identity = {"model": session.identity, **session.precision, **session.thinking_mark}
    known = None
    if where != base:
        known = session.folder / "replies" / base, session.folder / "perplexity" / base

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        said = session.folder / replies
        items = session.measuring.asked[name]
        return score_replies(session.pool, session.plan.model, items, said, folder, progress, known)

    needs = (replies, f"replies/{base}", f"perplexity/{base}") if known else (replies,)
    return Stage(f"perplexity/{where}", identity, make, needs, True)


def needs_no_model(session: Session, name: str) -> bool:
    """Whether replies to a task are graded without loading a model: no judge that is one, no loss.

    Such stages come right after the replies that they read, whatever model is loaded then, so that
    figures come as the study goes. A judge's server may not be up yet, see `Stage.absent`.
    """
    task = session.measuring.tasks[name]
    judges = members_of(task.judge) if task.judge else []
    return not task.perplexity and all(one.guard is None for one in judges)


def judges_ready(session: Session) -> list[Stage]:
    """The stage that looks at judges which are models, before anything is asked.

    One that is not there, is gated or does not fit must not be found out after hours of answering.
    A server may be started later, when the models under test have left the GPU: that it does not
    answer yet is only said, unless training asks it.
    """
    every = [judge for _, judge in session.judges]
    models = {store.fingerprint(identity_of(one)): one for one in every if one.guard or one.remote}
    rewarding = {store.fingerprint(identity_of(one)) for one in session.rewarding}

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        needs = {}
        for mark, judge in models.items():
            if judge.remote and (why := judge.absent()):
                if mark in rewarding:
                    raise EndpointError(
                        f"{judge.title} says what answers earn in training, and does not answer: "
                        f"{why}",
                        fault="down",
                        remedy="start it, then give the same command again",
                    )
                progress.say(f"{judge.title}: {why}; {LATEST}")
            if guard := judge.guard:
                needs[judge.title] = round(guard.needs(session.gpus), 2)
        return {"needs_gib": needs}

    return [Stage("judges", {"judges": sorted(models)}, make)] if models else []


def judged_first(graded: Sequence[Stage]) -> list[Stage]:
    """The stages of `grading` so that each judge is loaded once: its verdicts lie together.

    Members of ensembles come first, then verdicts, then readings; within, judge by judge.
    """
    order = {"members": 0, "verdicts": 1, "readings": 2}
    judges: dict[str, int] = {}
    for stage in graded:
        judges.setdefault(_judge_mark(stage), len(judges))
    return sorted(graded, key=lambda s: (order[s.name.split("/")[0]], judges[_judge_mark(s)]))


def _judge_mark(stage: Stage) -> str:
    return store.fingerprint(stage.identity.get("judge"))


def _judging(session: Session, judge: Judge, where: str, name: str) -> list[Stage]:
    """The stages that label one folder of replies: of every judge of an ensemble, and their sum."""
    said, examples = f"replies/{where}", session.measuring.asked[name]

    def asking(stage: str, by: Judge) -> Stage:
        return Stage(
            stage, {"judge": identity_of(by), **session.thinking_mark},
            lambda f, p: judge_replies(by, examples, session.folder / said, f, session.desk(f, p)),
            (said,), True, absent=by.absent if by.remote else None,
        )  # fmt: skip

    if not judge.seats():
        return [asking(f"verdicts/{where}", judge)]
    members = [asking(member_place(seat, where), one) for seat, one in judge.seats()]
    folders = [session.folder / one.name for one in members]
    together = Stage(
        f"verdicts/{where}", {"judge": identity_of(judge)},
        lambda f, p: combine_verdicts(judge, examples, session.folder / said, folders, f),
        (said, *(one.name for one in members)),
    )  # fmt: skip
    return [*members, together]


def grading(session: Session, where: str, name: str) -> list[Stage]:
    """Verdicts, where the task needs a judge, and readings of one folder of replies."""
    task, examples = session.measuring.tasks[name], session.measuring.asked[name]
    replies, found = f"replies/{where}", []
    if task.judge:
        found += _judging(session, task.judge, where, name)
    verdicts = session.folder / "verdicts" / where if task.judge else None
    identity = (
        {
            "task": [task.plugin, task.version, task.label],
            "gold": store.fingerprint(
                [
                    [one.id, one.target, one.meta, *([one.extra] if one.extra else [])]
                    for one in examples
                ]
            ),
        }
        | _grader_options(task)
        | ({"code": task.code} if task.code else {})
        | session.thinking_mark
    )
    needs = (replies, *(one.name for one in found if one.name.startswith("verdicts/")))
    scored: tuple[Path, Path] | None = None
    if task.perplexity:
        names = [f"perplexity/{one}" for one in (where, place(Point(BASE), name))]
        scored = (session.folder / names[0], session.folder / names[1])
        needs += tuple(dict.fromkeys(names))
        identity |= {"perplexity": [NLL_QUANTILE, NLL_MARGIN]}
    found.append(Stage(
        f"readings/{where}", identity,
        lambda f, p: grade_replies(task, examples, session.folder / replies, verdicts, f, scored),
        needs,
    ))  # fmt: skip
    return found


def _grader_options(task: Task) -> dict[str, object]:
    """The task's options that are not already in the items themselves."""
    elsewhere = {"path", "train_path", "items", "train_items", "revision", "instruction"}
    elsewhere |= {"columns", "data_seed"}
    elsewhere |= {"task", "include_path", "overrides"}  # hashed with the items
    return {"options": task.options.model_dump(mode="json", exclude=elsewhere)}
