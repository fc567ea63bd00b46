"""Which checkpoint may be shipped, by the readings of a run folder?

Reads what was measured into the arrays of `holdfast.frontier`, and writes its answers in the words
of `holdfast.report.results`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast import frontier
from holdfast.evaluate import read_readings
from holdfast.frontier import Candidate, Halves
from holdfast.plan import BASE, Plan, place
from holdfast.report.arrays import as_share, item_ids, values
from holdfast.report.results import Choice, Decision, Front
from holdfast.stats import Values
from holdfast.types import Point, Reading


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
        split[task] = frontier.halves(ids[task], [group[i] for i in ids[task]], _seed(plan))
    return Evidence(
        ids,
        {task: values(readings, ids[task]) for task, readings in before.items()},
        split,
        found,
        [one for one in found if plan.arms[one.point.arm].variant.source != BASE],
    )


def decide(plan: Plan, evidence: Evidence) -> frontier.Decision:
    """The decision of a study by its own rule."""
    return frontier.decide(
        evidence.trained, evidence.base, plan.study.ship, plan.study.target, evidence.halves
    )


def as_decision(decision: frontier.Decision) -> Decision:
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
    found = frontier.fronts(evidence.candidates, evidence.base, plan.study.target, evidence.halves)
    return tuple(Front(one.arm, as_share(one.volume), one.points) for one in found)


def _choice(choice: frontier.Choice | None) -> Choice | None:
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
