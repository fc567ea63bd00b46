"""Collects what there is to show of a plan and its finished stages from the run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.analysis import trainings
from holdfast.analysis.agreement import agreement
from holdfast.analysis.arrays import Measured
from holdfast.analysis.caveats import UNSCORED_LIMIT
from holdfast.analysis.recommend import methods_of
from holdfast.analysis.results import (
    Agreement,
    ArmInfo,
    Learned,
    Meter,
    PairAgreement,
    ReplyShown,
    TaskInfo,
)
from holdfast.grading.answer import QUESTIONS, read_replies
from holdfast.grading.grade import read_readings
from holdfast.grading.judge import read_verdicts
from holdfast.grading.safety_outcomes import INCOHERENT, UNSURE
from holdfast.judges import VOTES
from holdfast.runs import records, store
from holdfast.runs.plan import ArmPlan, Plan, again_place, member_place, place
from holdfast.train import meters
from holdfast.types import BASE, Point, Reading

UNREAD, RAW = 2, 60
"""Sayings of an unsure judge that are shown, and the characters of each."""


def task_infos(plan: Plan) -> list[TaskInfo]:
    """How each ability is measured."""
    return [
        TaskInfo(
            task.name,
            plan.study.tasks[task.name].role,
            task.label,
            task.items,
            task.how,
            task.inverted,
            dict(task.judge or {}),
            task.unit,
        )
        for task in plan.tasks.values()
    ]


def arm_infos(plan: Plan, done: Collection[str] | None = None) -> list[ArmInfo]:
    """What each arm was trained on and what it cost, from the records of its stages.

    Here and below, `done` are the finished stages of a run that is under way; None: all are. Of an
    arm that is not trained with every seed yet its recipe alone is known.
    """
    found = [ArmInfo(BASE, "the untouched model", family=BASE)]
    for name, arm in plan.arms.items():
        wanted = {
            one.stage for seed in plan.study.seeds for one in plan.trainings(arm.source, seed)
        }
        spec = plan.study.arms.get(arm.family)
        remedies = None if spec is None else methods_of(spec)
        if arm.source == BASE or (done is not None and not wanted.issubset(done)):
            found.append(ArmInfo(name, arm.recipe, family=arm.family, methods=remedies))
            continue
        source = plan.arms[arm.source]
        data = trainings.data_summary(plan, arm.source)
        runs = [trainings.run_summary(plan, arm.source, seed) for seed in plan.study.seeds]
        taught = trainings.lessons(plan, arm)
        after = {
            name: _mean(one.get(name, 0) for one in taught) if taught else 0.0
            for name in ("steps", "supervised_tokens", "tokens")
        }
        spent = trainings.cost_of(plan, source, data, runs, after["tokens"])
        found.append(
            ArmInfo(
                name=name,
                recipe=arm.recipe,
                examples=data["examples"],
                by_source=data["by_source"],
                steps=round(_mean(run["steps"] for run in runs) + after["steps"]),
                supervised_tokens=round(
                    _mean(run["supervised_tokens"] for run in runs) + after["supervised_tokens"]
                ),
                examples_seen=round(_mean(run["examples_seen"] for run in runs)),
                seconds=spent.seconds,
                notes=tuple(
                    [
                        *data["notes"],
                        *trainings.rewarded(plan, source.name),
                        *_stopped(plan, runs),
                        *_validated(plan, runs),
                        *_interrupted(plan, source),
                        *trainings.told(taught),
                    ]
                ),
                loss=tuple((step, loss) for step, loss in runs[0]["loss"]),
                family=arm.family,
                shared_seconds=spent.shared_seconds,
                flops=spent.flops,
                tokens=spent.tokens,
                generated_tokens=spent.generated_tokens,
                methods=remedies,
            )
        )
    return found


def learned(plan: Plan) -> list[Learned]:
    """The tasks that were learned one after the other, and when each was over."""
    return [Learned(one.task, one.end) for one in plan.chapters]


def trained_alike(plan: Plan) -> list[str]:
    """Arms of which all seeds see the same questions, where those of others see different ones."""
    trained = [name for name, arm in plan.arms.items() if arm.source == name]
    return [name for name in trained if trainings.data_summary(plan, name).get("alike")]


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)


def _stopped(plan: Plan, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for seed, run in zip(plan.study.seeds, runs, strict=True):
        if run.get("stopped_at"):
            why = "a meter passed its limit"
            if run.get("validation", {}).get("ended"):
                why = "the loss of held-out examples was no longer lower"
            found.setdefault(why, []).append(f"seed {seed} after step {run['stopped_at']}")
    return [f"{why} and ended training: {', '.join(ends)}" for why, ends in found.items()]


def _validated(plan: Plan, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    lowest = [
        f"{run['validation']['best_loss']:.3f} after step {run['validation']['best_step']} "
        f"(seed {seed})"
        for seed, run in zip(plan.study.seeds, runs, strict=True)
        if "validation" in run
    ]
    return [f"lowest loss of held-out examples: {', '.join(lowest)}"] if lowest else []


def _interrupted(plan: Plan, arm: ArmPlan) -> list[str]:
    """What to say where seconds add up several sittings."""
    trained = trainings.folders(plan, arm.name, plan.study.seeds)
    folders = [*trained, *(plan.folder / "shared" / name for name in arm.shared)]
    sittings = [records.finished(folder).get("sittings", 1) for folder in folders]
    count = sum(isinstance(one, int) and one > 1 for one in sittings)
    return [f"interrupted: the seconds of {count} stages add up all sittings"] if count else []


def measured_readings(plan: Plan, done: Collection[str] | None = None) -> list[Measured]:
    """All readings, seeds of one point together.

    Of a run under way what is there, without tasks on which the untouched model is not measured.
    """
    found = []
    for arm in (BASE, *plan.arms):
        for step, scale in plan.places(arm):
            for task in plan.tasks:
                at = {seed: Point(arm, seed, step, scale) for seed in plan.seeds(arm)}
                seeds = [seed for seed, point in at.items() if _is_read(point, task, done)]
                if not seeds or not _is_read(Point(BASE), task, done):
                    continue
                where = [place(at[seed], task) for seed in seeds]
                readings = [
                    judged_at_all(read_readings(plan.folder / "readings" / one)) for one in where
                ]
                ends = [_summary(plan.folder / "replies" / one) for one in where]
                cut = sum(one["cut_off"] for one in ends)
                again = [arm != BASE and plan.repeated(at[s]) for s in seeds]
                unread = _unread(plan, where, readings)
                found.append(
                    Measured(
                        arm, step, task, readings, cut, scale, seeds, again, unread,
                        *_thinking(ends),
                    )
                )  # fmt: skip
    return found


def _is_read(point: Point, task: str, done: Collection[str] | None) -> bool:
    """Whether a point's readings are there."""
    return done is None or f"readings/{place(point, task)}" in done


def _thinking(summaries: Sequence[Mapping[str, Any]]) -> tuple[int, float | None]:
    """Replies that ended in thinking, and the mean of the tokens thought, over the seeds."""
    some = [one["thinking"] for one in summaries if "thinking" in one]
    counts = [one["mean_tokens"] for one in some]
    mean = None if None in counts else sum(counts) / max(1, len(summaries))
    return sum(one["cut_off"] for one in some), mean


def judged_at_all(readings: list[Reading]) -> list[Reading]:
    """The readings, without values where the judge understood nothing.

    A judge that is unsure of every coherent reply leaves the incoherent ones, which count as bad
    without it: a rate of those alone would read as if everything were unsafe.
    """
    scored = {one.outcome for one in readings if one.value is not None}
    unsure = any(one.outcome == UNSURE for one in readings)
    if unsure and scored == {INCOHERENT}:
        return [replace(one, value=None) for one in readings]
    return readings


def _unread(
    plan: Plan, where: Sequence[str], readings: Sequence[Sequence[Reading]]
) -> list[tuple[str, int]]:
    """What a judge said most often where a reply is unscored for it, over the seeds of a point."""
    found: Counter[str] = Counter()
    for one, some in zip(where, readings, strict=True):
        folder = plan.folder / "verdicts" / one
        open_ones = {(o.example_id, o.sample) for o in some if o.outcome == UNSURE}
        if len(open_ones) > UNSCORED_LIMIT * len(some) and folder.is_dir():
            verdicts = read_verdicts(folder)
            found.update(v.raw[:RAW] for v in verdicts if (v.example_id, v.sample) in open_ones)
    return found.most_common(UNREAD)


def repeated_readings(plan: Plan) -> dict[str, list[list[Reading]]]:
    """By task: the readings of every asking of the base, the first one included."""
    return {
        task: [
            read_readings(plan.folder / "readings" / one)
            for one in (place(Point(BASE), task), *(again_place(k, task) for k in plan.repeats))
        ]
        for task in plan.tasks
    }


def agreements(plan: Plan) -> list[Agreement]:
    """Where several judges decide together: how far they agree on each arm's final replies."""
    found: list[Agreement] = []
    for arm in (BASE, *plan.arms):
        step, scale = plan.places(arm)[-1]
        points = [Point(arm, seed, step, scale) for seed in plan.seeds(arm)]
        for task in plan.tasks:
            seats = plan.tasks[task].seats
            if not seats:
                continue
            where = [place(point, task) for point in points]
            votes = [
                [
                    VOTES.get(verdict.label)
                    for at in where
                    for verdict in read_verdicts(plan.folder / member_place(seat.folder, at))
                ]
                for seat in seats
            ]
            said = agreement([seat.title for seat in seats], votes)
            titles = said["members"]
            pairs = tuple(
                PairAgreement(
                    (titles[pair["of"][0]], titles[pair["of"][1]]),
                    pair["replies"],
                    pair["agree"],
                    pair["kappa"],
                )
                for pair in said["pairs"]
            )
            cast = dict(zip(titles, said["votes"], strict=True))
            found.append(Agreement(arm, task, said["replies"], cast, said["alpha"], pairs))
    return found


def meter_readings(plan: Plan, done: Collection[str] | None = None) -> list[Meter]:
    """What the meters read in every training."""
    return [
        Meter(arm, seed, of.before + one["step"], one["kl"], one["cross_entropy"], one["norm"])
        for arm, seed in plan.trained
        for of in plan.trainings(arm, seed)
        if done is None or of.stage in done
        for one in meters.read(plan.folder / of.stage)
    ]


def replies_shown(plan: Plan, count: int) -> list[ReplyShown]:
    """Replies to `count` items of each task, for readers who ask; what changed sides comes first.

    Of every arm the final checkpoint, first seed and first sample. Where texts are measured by
    their loss there is nothing to read.
    """
    found = []
    for task in [name for name, one in plan.tasks.items() if not one.unit]:
        questions = plan.folder / "replies" / place(Point(BASE), task) / QUESTIONS
        asked = {str(row["id"]): str(row["question"]) for _, row in store.read_objects(questions)}
        where = {
            arm: place(Point(arm, plan.seeds(arm)[0], *plan.places(arm)[-1]), task)
            for arm in (BASE, *plan.arms)
        }
        graded = {arm: _firsts(plan.folder / "readings" / one) for arm, one in where.items()}
        changes = {
            arm: {item: _change(graded[BASE].get(item), one) for item, one in mine.items()}
            for arm, mine in graded.items()
        }
        calm = [not any(mine.get(item) for mine in changes.values()) for item in asked]
        shown = [item for _, item in sorted(zip(calm, asked, strict=True), key=lambda one: one[0])]
        for arm, one in where.items():
            replies = {
                reply.example_id: reply.text
                for reply in reversed(read_replies(plan.folder / "replies" / one))
            }
            for item in shown[:count]:
                read = graded[arm][item]
                groups = tuple(filter(None, (read.group, read.also)))
                about = (read.outcome, item, groups, changes[arm][item])
                found.append(ReplyShown(arm, task, asked[item], replies[item], *about))
    order = [BASE, *plan.arms]
    return sorted(found, key=lambda shown: order.index(shown.arm))


def _firsts(folder: Path) -> dict[str, Reading]:
    """The reading of each item's first sample."""
    return {one.example_id: one for one in reversed(read_readings(folder))}


def _change(before: Reading | None, after: Reading) -> str:
    """What became of one item: lost, won, or nothing that can be told."""
    if before is None or before.value is None or after.value is None:
        return ""
    if before.value == after.value:
        return ""
    return "lost" if after.value < before.value else "won"


def _summary(folder: Path) -> dict[str, Any]:
    return records.summary(folder)
