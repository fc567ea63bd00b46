"""Puts the readings of a run folder to the rule for shipping, in the words of its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.analysis import selection
from holdfast.analysis.arrays import as_share, item_ids, values
from holdfast.analysis.results import Choice, Decision, Front
from holdfast.analysis.selection import Candidate, attainable, needs
from holdfast.analysis.selection.power import Attainable
from holdfast.analysis.selection.rule import ERROR, confidence, error_of
from holdfast.analysis.stats import Values
from holdfast.errors import DataError
from holdfast.grading.grade import read_readings
from holdfast.runs.plan import Plan, place
from holdfast.types import BASE, Point, Reading


@dataclass(frozen=True)
class Evidence:
    """Everything that a decision rests on.

    Attributes:
        ids: of the items by task, in the order of all values.
        base: the untouched model's values by task.
        candidates: every model of every arm.
        trained: those whose weights are not the untouched model's, which alone can be shipped.
    """

    ids: Mapping[str, Sequence[str]]
    base: Mapping[str, Values]
    candidates: Sequence[Candidate]
    trained: Sequence[Candidate]


def gather(
    plan: Plan, tasks: Sequence[str] | None = None, points: Sequence[Point] | None = None
) -> Evidence:
    """Read the readings of a study.

    Args:
        plan: of the study.
        tasks: that are read; None: all.
        points: whose models are read, besides the untouched one; None: all.

    Raises:
        DataError: a file of readings is missing, or speaks of other items.
    """
    before = {task: _read(plan, Point(BASE), task) for task in tasks or plan.tasks}
    ids = {task: item_ids(before[task]) for task in before}
    found = [
        Candidate(point, {task: _values(plan, point, task, ids[task]) for task in ids})
        for point in (plan.points() if points is None else points)
        if point.arm != BASE and not plan.repeated(point)
    ]
    return Evidence(
        ids,
        {task: values(readings, ids[task]) for task, readings in before.items()},
        found,
        [one for one in found if not plan.untouched(one.point.arm)],
    )


def power(plan: Plan) -> list[Attainable]:
    """What every need of a study's rule that allows a loss takes, of the first model in line.

    Of a measure that is no share nothing can be said beforehand: no answers are lost in it.
    """
    rule, target, models = plan.study.ship, plan.study.targets, plan.candidates
    found = []
    for need in needs(rule, plan.tasks, target, _tasks(plan).units):
        if need.margin <= 0 and not need.gain and not need.unit and models:
            orders = need.task == rule.maximize
            level = confidence(ERROR / models if orders else error_of(0, models))
            task = plan.tasks[need.task]
            found.append(attainable(need, level, task.items, task.available))
    return found


def decide(plan: Plan, evidence: Evidence) -> selection.Decision:
    """The decision of a study by its own rule."""
    study, about = plan.study, _tasks(plan)
    return selection.decide(evidence.trained, evidence.base, study.ship, study.targets, about)


def confirm(
    plan: Plan, evidence: Evidence, candidate: Candidate, levels: Mapping[str, float] | None = None
) -> selection.Decision:
    """The decision on one model alone, see `holdfast.analysis.selection.confirm`."""
    rule, aims, models = plan.study.ship, plan.study.targets, len(evidence.trained)
    about = _tasks(plan)
    return selection.confirm(candidate, evidence.base, rule, aims, models, levels, about)


def as_decision(decision: selection.Decision) -> Decision:
    """A decision as results keep it."""
    return Decision(
        answer=decision.answer,
        summary=decision.summary,
        reason=decision.reason,
        next_step=decision.next_step,
        rule=decision.rule,
        chosen=_choice(decision.chosen),
        runner_up=_choice(decision.runner_up),
        why_not=decision.why_not,
        more_items=decision.more_items,
        passed=decision.passed,
        items=decision.items,
    )


def fronts(plan: Plan, evidence: Evidence) -> tuple[Front, ...]:
    """Every arm's hypervolume as results keep it."""
    rule, targets = plan.study.ship, plan.study.targets
    found = selection.fronts(evidence.candidates, evidence.base, targets, seed=rule.seed)
    return tuple(Front(one.arm, as_share(one.volume), one.points) for one in found)


def _choice(choice: selection.Choice | None) -> Choice | None:
    if choice is None:
        return None
    point = choice.point
    changes = {task: as_share(one) for task, one in choice.changes.items()}
    return Choice(
        point.arm, point.seed, point.step, point.scale, changes, choice.levels, choice.allowed
    )


def _tasks(plan: Plan) -> selection.Tasks:
    return selection.Tasks(
        {name: task.available for name, task in plan.tasks.items()},
        {name: task.unit for name, task in plan.tasks.items()},
    )


def _read(plan: Plan, point: Point, task: str) -> list[Reading]:
    return read_readings(plan.folder / "readings" / place(point, task))


def _values(plan: Plan, point: Point, task: str, ids: Sequence[str]) -> Values:
    readings = _read(plan, point, task)
    if {*item_ids(readings)} != {*ids}:
        raise DataError(
            "are of other items than the untouched model's",
            where=str(plan.folder / "readings" / place(point, task)),
            remedy=f"grade both again: --rebuild 'readings/*/{task}'",
        )
    return values(readings, ids)
