"""Puts the readings of a run folder to the rule for shipping.

Reads what was measured into the arrays of `holdfast.analysis.selection`, and writes its answers in
the words of `holdfast.analysis.results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.analysis import selection
from holdfast.analysis.arrays import as_share, item_ids, values
from holdfast.analysis.results import Choice, Decision, Front
from holdfast.analysis.selection import Candidate, Halves
from holdfast.analysis.stats import Values
from holdfast.grading.grade import read_readings
from holdfast.runs.plan import Plan, place
from holdfast.types import BASE, Point, Reading


@dataclass(frozen=True)
class Evidence:
    """Everything that a decision rests on.

    Attributes:
        ids: of the items by task, in the order of all values.
        base: the untouched model's values by task.
        halves: the items that choose and those that report, by task.
        candidates: every model of every arm.
        trained: those whose weights are not the untouched model's, which alone can be shipped.
    """

    ids: Mapping[str, Sequence[str]]
    base: Mapping[str, Values]
    halves: Mapping[str, Halves]
    candidates: Sequence[Candidate]
    trained: Sequence[Candidate]


def gather(plan: Plan) -> Evidence:
    """Read all readings of a finished study.

    Raises:
        DataError: a file of readings is missing.
    """
    before = {task: _read(plan, Point(BASE), task) for task in plan.tasks}
    ids = {task: item_ids(before[task]) for task in before}
    found = [
        Candidate(point, {task: values(_read(plan, point, task), ids[task]) for task in ids})
        for point in plan.points()
        if point.arm != BASE and not plan.repeated(point)
    ]
    split = {}
    for task, readings in before.items():
        group = {one.example_id: one.group for one in readings}
        split[task] = selection.split_halves(ids[task], [group[i] for i in ids[task]], _seed(plan))
    return Evidence(
        ids,
        {task: values(readings, ids[task]) for task, readings in before.items()},
        split,
        found,
        [one for one in found if not plan.untouched(one.point.arm)],
    )


def decide(plan: Plan, evidence: Evidence) -> selection.Decision:
    """The decision of a study by its own rule."""
    return selection.decide(
        evidence.trained, evidence.base, plan.study.ship, plan.study.target, evidence.halves
    )


def as_decision(decision: selection.Decision) -> Decision:
    """A decision as results keep it."""
    return Decision(
        answer=decision.answer,
        reason=decision.reason,
        rule=decision.rule,
        chosen=_choice(decision.chosen),
        runner_up=_choice(decision.runner_up),
        why_not=decision.why_not,
        more_items=decision.more_items,
        items=decision.items,
    )


def fronts(plan: Plan, evidence: Evidence) -> tuple[Front, ...]:
    """Every arm's hypervolume as results keep it."""
    found = selection.fronts(evidence.candidates, evidence.base, plan.study.target)
    return tuple(Front(one.arm, as_share(one.volume), one.points) for one in found)


def _choice(choice: selection.Choice | None) -> Choice | None:
    if choice is None:
        return None
    point = choice.point
    chosen_on = {task: as_share(one) for task, one in choice.chosen_on.items()}
    reported_on = {task: as_share(one) for task, one in choice.reported_on.items()}
    return Choice(
        point.arm, point.seed, point.step, point.scale, chosen_on, reported_on, choice.allowed
    )


def _read(plan: Plan, point: Point, task: str) -> list[Reading]:
    return read_readings(plan.folder / "readings" / place(point, task))


def _seed(plan: Plan) -> int:
    return plan.study.ship.seed
