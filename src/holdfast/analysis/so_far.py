"""The results of a run that is not finished: what is measured so far, by the same statistics.

The statistics are those of the finished study (`summarize.assemble`, `cells.cells`), over the
readings that there are. What needs all of them is left out, and said: the decision, the agreement
of judges. The frontier is that of the models which are measured on every task begun so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from holdfast.analysis.arrays import Measured
from holdfast.analysis.cells import cells
from holdfast.analysis.collect import (
    arm_infos,
    judged_at_all,
    learned,
    measured_readings,
    meter_readings,
    repeated_readings,
    task_infos,
)
from holdfast.analysis.conditions import conditions, notices
from holdfast.analysis.findings import ArmInfo, Cell, Front
from holdfast.analysis.results import FrontierPoint, Results
from holdfast.analysis.selection import from_run
from holdfast.analysis.summarize import RunData, assemble
from holdfast.errors import HoldfastError
from holdfast.grading.grade import read_readings
from holdfast.progress.remaining import in_words
from holdfast.runs import live
from holdfast.runs.live import Look
from holdfast.runs.plan import Plan, again_place, place
from holdfast.train.job import HISTORY
from holdfast.types import BASE, Point

NOTHING = "Nothing is measured yet."


def results_so_far(plan: Plan, look: Look) -> Results:
    """What a run has measured so far; its first note says how far it is."""
    done = look.done.keys()
    there = [one for one in plan.tasks if f"readings/{place(Point(BASE), one)}" in done]
    measured = measured_readings(plan, done)
    found = assemble(
        RunData(
            plan.study.name,
            plan.study.model.id,
            plan.study.seeds,
            [task for task in task_infos(plan) if task.name in there],
            [_trained_so_far(plan, look, arm) for arm in arm_infos(plan, done)],
            measured,
            conditions(plan, done) if measured else {},
            repeated_readings(_asked_again(plan, done)),
            meter_readings(plan, done),
            _fronts(plan, look),
            notices=(_note(plan, look, measured), *notices(plan, done)),
            learned=learned(plan),
        )
    )
    return replace(found, verdict=f"So far: {found.verdict}" if measured else NOTHING)


def _whole(plan: Plan, look: Look) -> tuple[list[str], list[Point]]:
    """The tasks that are begun, and the models that are measured on every one of them.

    A task is begun when the untouched model and one more are measured on it. None are of a
    comparison, which has no frontier.
    """
    there: dict[str, set[Point]] = {}
    for stage, (point, task) in measured_stages(plan).items():
        if stage in look.done:
            there.setdefault(task, set()).add(point)
    base = Point(BASE)
    tasks = [one for one in plan.tasks if base in there.get(one, ()) and len(there[one]) > 1]
    models = [
        point
        for point in plan.points()
        if tasks and point != base and plan.arms[point.arm].model is None
        and all(point in there[task] for task in tasks)
    ]  # fmt: skip
    return tasks, models


def _fronts(plan: Plan, look: Look) -> tuple[Front, ...]:
    tasks, models = _whole(plan, look)
    if not set(plan.study.targets) <= set(tasks) or not models:
        return ()
    return from_run.fronts(plan, from_run.gather(plan, tasks, models))


def frontier_so_far(plan: Plan, look: Look) -> tuple[list[FrontierPoint], str]:
    """What the models measured on every task begun so far gained and lost, and which these are.

    Returns:
        See `Results.frontier`, of these models alone; and how many on what, in words; "" before
        the first.
    """
    tasks, models = _whole(plan, look)
    kinds = {(one.arm, one.step, one.scale) for one in models}
    found = results_so_far(plan, look).frontier() if models else []
    rows = [row for row in found if (row.arm, row.step, row.scale) in kinds]
    every = len(plan.points()) - 1
    return rows, f"{len(models)} of {every} models, on {', '.join(tasks)}" if models else ""


def ungraded(plan: Plan, look: Look) -> dict[str, int]:
    """By task, of how many models answers are there that wait to be judged or scored."""
    found: dict[str, int] = {}
    for stage, (_, task) in measured_stages(plan).items():
        where = stage.removeprefix("readings/")
        how = plan.tasks[task]
        waits = stage not in look.done and f"replies/{where}" in look.done
        if waits and (how.judge or how.perplexity) and f"verdicts/{where}" not in look.working:
            found[task] = found.get(task, 0) + 1
    return found


def waiting(plan: Plan, look: Look) -> str:
    """What is answered and waits to be judged or scored, in a sentence; "" where nothing does."""
    parts = []
    for task, count in ungraded(plan, look).items():
        by = plan.tasks[task].judge_title or "the untouched model's loss"
        parts.append(f"{task} of {count} model{'s' * (count > 1)} ({by})")
    return f"Answered, not judged yet: {', '.join(parts)}." if parts else ""


def _asked_again(plan: Plan, done: Collection[str]) -> Plan:
    """The plan with those tasks alone of which every asking of the untouched model is graded."""
    kept = {
        name: task
        for name, task in plan.tasks.items()
        if all(
            f"readings/{where}" in done
            for where in (place(Point(BASE), name), *(again_place(k, name) for k in plan.repeats))
        )
    }
    return replace(plan, tasks=kept)


def _trained_so_far(plan: Plan, look: Look, arm: ArmInfo) -> ArmInfo:
    """An arm that trains with the losses of its first seed, as far as they are there."""
    if arm.loss or arm.name not in plan.arms or not plan.arms[arm.name].trains:
        return arm
    return replace(arm, loss=tuple(losses(plan, look, arm.name, plan.study.seeds[0])))


def losses(plan: Plan, look: Look, arm: str, seed: int) -> list[tuple[int, float]]:
    """(step, loss) of one training, as far as it is; in order, each step once."""
    found = {
        of.before + row["step"]: float(row["loss"])
        for of in plan.trainings(arm, seed)
        for row in live.rows(live.training_folder(plan.folder, of.stage, look) / HISTORY)
        if isinstance(row.get("step"), int) and isinstance(row.get("loss"), int | float)
    }
    return sorted((step, loss) for step, loss in found.items() if math.isfinite(loss))


def _note(plan: Plan, look: Look, measured: Sequence[Measured]) -> str:
    """What a reader must know before any figure."""
    all_of = sum(1 for _ in plan.points()) * len(plan.tasks)
    here = sum(len(one.readings) for one in measured)
    return (
        f"This study is not finished ({how_far(look)}): {here} of {all_of} measurements are shown. "
        "The decision and all that needs every measurement come at its end; the frontier is of the "
        "models that are measured on every task begun so far, and intervals of a point speak of "
        f"the seeds that are there. {waiting(plan, look)}"
    ).rstrip()


def how_far(look: Look) -> str:
    """State, stages, what is at work and the time left, in a line."""
    gone = f"{look.state}: process {look.pid} is gone"
    words = [gone if look.state == "broken off" else look.state]
    words.append(f"{len(look.done)} of {look.total} stages done")
    if look.state == "under way":
        here, others = look.told.get("stage"), len(look.working) - 1
        if here:
            more = look.told.get("words")
            words.append(f"at work on {here}" + (f", {more}" if more else ""))
        elif look.working:
            words.append(f"at work on {look.working[0]}" + f" and {others} more" * (others > 0))
        left = look.told.get("left_s")
        if isinstance(left, int | float) and left == left:
            spent = time.time() - float(look.told.get("at", time.time()))
            words.append(f"about {in_words(max(1.0, left - spent))} left")
    return "; ".join(words)


def cell_of(plan: Plan, point: Point, task: str) -> Cell | None:
    """The figure of one model with one seed, and its difference to the untouched model.

    Returns:
        None where the readings of either are not there, or cannot be read.
    """
    found: list[Measured] = []
    for one in dict.fromkeys([Point(BASE), point]):
        folder = plan.folder / "readings" / place(one, task)
        with suppress(HoldfastError, OSError):
            readings = judged_at_all(read_readings(folder))
            found.append(
                Measured(one.arm, one.step, task, [readings], scale=one.scale, seeds=(one.seed,))
            )
    if len(found) < len({Point(BASE), point}):
        return None
    return cells(found)[-1]


def measured_stages(plan: Plan) -> Mapping[str, tuple[Point, str]]:
    """Every stage of readings of a model that is to be measured, with its point and task."""
    return {
        f"readings/{place(point, task)}": (point, task)
        for point in plan.points()
        for task in plan.tasks
    }
