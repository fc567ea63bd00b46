"""The results of a run that is not finished: what is measured so far, by the same statistics.

The statistics are those of the finished study (`summarize.assemble`, `cells.cells`), over the
readings that there are. What needs all of them is left out, and said: the decision, the frontier,
the agreement of judges.
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
    measured_readings,
    meter_readings,
    repeated_readings,
    task_infos,
)
from holdfast.analysis.conditions import conditions, notices
from holdfast.analysis.findings import ArmInfo, Cell
from holdfast.analysis.results import Results
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
            notices=(_note(plan, look, measured), *notices(plan, done)),
        )
    )
    return replace(found, verdict=f"So far: {found.verdict}" if measured else NOTHING)


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
    rows = live.rows(live.training_folder(plan.folder, f"train/{arm}/seed{seed}", look) / HISTORY)
    found = {
        row["step"]: float(row["loss"])
        for row in rows
        if isinstance(row.get("step"), int) and isinstance(row.get("loss"), int | float)
    }
    return sorted((step, loss) for step, loss in found.items() if math.isfinite(loss))


def _note(plan: Plan, look: Look, measured: Sequence[Measured]) -> str:
    """What a reader must know before any figure."""
    all_of = sum(1 for _ in plan.points()) * len(plan.tasks)
    here = sum(len(one.readings) for one in measured)
    return (
        f"This study is not finished ({how_far(look)}): {here} of {all_of} measurements are shown. "
        "The decision, the frontier and all that needs every measurement come at its end; "
        "intervals of a point speak of the seeds that are there."
    )


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
