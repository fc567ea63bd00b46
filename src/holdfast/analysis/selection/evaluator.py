"""Judges one model by the rule: how its needs stand, its place in line, what would settle it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from holdfast.analysis.selection.frontier import Candidate
from holdfast.analysis.selection.power import Wanted, forecast
from holdfast.analysis.selection.rule import (
    DOUBT,
    ERROR,
    Need,
    State,
    Target,
    aim_of,
    confidence,
    in_words,
    names_of,
    needs,
)
from holdfast.analysis.stats import Interval, Values, paired_difference
from holdfast.config import ShipSpec
from holdfast.types import Point

Changes = Mapping[str, Interval]
UNKNOWN = -1.0
"""The change where nothing could be scored: the worst there is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One model, with its changes on all items.

    Attributes:
        point: whose weights.
        changes: paired differences to the base by task.
        levels: of the intervals of the changes, by task; the choice is allowed for.
        allowed: meets the whole rule.
    """

    point: Point
    changes: Changes
    levels: Mapping[str, float]
    allowed: bool


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is known of the tasks besides their readings.

    Attributes:
        available: items that each has in all; a task that is missing, or None, makes as many as one
            likes.
        units: of those whose figure is no share.
    """

    available: Mapping[str, int | None] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RuleEvaluator:
    """Judges models by one rule.

    Attributes:
        base: the untouched model's values by task.
        rule: of the study.
        target: the task that training is for, or several: a model must gain on each, and their mean
            gain orders the models.
        models: how many there were to choose from.
        tasks: what else is known of the tasks.
    """

    base: Mapping[str, Values]
    rule: ShipSpec
    target: Target
    models: int
    tasks: Tasks = field(default_factory=Tasks)

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """All that must be met."""
        return needs(self.rule, self.base, self.target, self.tasks.units)

    @property
    def aim(self) -> str:
        """What orders the models, in words."""
        return aim_of(self.rule, self.target)

    @property
    def aims(self) -> tuple[str, ...]:
        """The tasks by whose mean change the models are ordered."""
        return (self.rule.maximize,) if self.rule.maximize else names_of(self.target)

    def gain(self, changes: Changes) -> float | None:
        """The mean change on what orders the models; None where a task could not be scored."""
        means = [changes[aim].mean for aim in self.aims]
        known = [one for one in means if one is not None]
        return sum(known) / len(known) if len(known) == len(means) else None

    @property
    def words(self) -> str:
        """The rule in words."""
        return in_words(self.rule, self.base, self.target, self.models, self.tasks.units)

    @property
    def items(self) -> dict[str, int]:
        """Items by task."""
        return {task: len(values) for task, values in self.base.items()}

    def levels(self, error: float) -> dict[str, float]:
        """The level of every task's interval, for a model that may err so often on its needs."""
        errors = {task: ERROR for task in self.base} | {one.task: error for one in self.needs}
        for one in self.needs:
            if one.task in self.aims:
                errors[one.task] = ERROR / max(1, self.models)
        return {task: confidence(one) for task, one in errors.items()}

    def change(self, candidate: Candidate, task: str, level: float) -> Interval:
        """The paired difference to the base."""
        return paired_difference(self.base[task], candidate.readings[task][None, :], level)

    def choice(self, candidate: Candidate, levels: Mapping[str, float]) -> Choice:
        """The model judged at these levels."""
        changes = {task: self.change(candidate, task, level) for task, level in levels.items()}
        met = all(state == "met" for _, state in self.states(changes))
        return Choice(candidate.point, changes, levels, met)

    def states(self, changes: Changes) -> list[tuple[Need, State]]:
        """Every need and how it stands."""
        return [(need, need.state(changes[need.task])) for need in self.needs]

    def order(self, candidate: Candidate) -> tuple[float, ...]:
        """Smaller stands first: the best on the aim, then fewer steps, then a smaller scale."""
        changes = {aim: self.change(candidate, aim, confidence(ERROR)) for aim in self.aims}
        gain, point = self.gain(changes), candidate.point
        blind = any(Need(aim, -1.0).state(one) == "unscored" for aim, one in changes.items())
        first = UNKNOWN if gain is None or blind else -round(gain, 9)
        return first, point.step, point.scale

    def in_line(self, candidate: Candidate) -> bool:
        """Whether the aim's need is met, and no other speaks against the model."""
        levels = self.levels(DOUBT)
        states = self.states(self.choice(candidate, levels).changes)
        return all(
            state == "met" if need.task in self.aims else state not in ("missed", "unscored")
            for need, state in states
        )

    def surely_misses(self, candidate: Candidate) -> bool:
        """Whether an ordinary 95 % interval lies wholly below a margin."""
        changes = {one.task: self.change(candidate, one.task, confidence(ERROR))
                   for one in self.needs}  # fmt: skip
        return any(state == "missed" for _, state in self.states(changes))

    def slack(self, choice: Choice) -> float:
        """How far the worst end lies above its margin; below 0 it misses."""
        ends = [(need, choice.changes[need.task].low) for need in self.needs]
        gaps = [-2.0 if low is None else low - need.margin for need, low in ends]
        unscored = any(state == "unscored" for _, state in self.states(choice.changes))
        return min(gaps) - (2.0 if unscored else 0.0)

    def wanted(self, candidate: Candidate, choice: Choice) -> list[Wanted]:
        """What would settle every need that is open; nothing where one could not be scored."""
        states = self.states(choice.changes)
        if any(state == "unscored" for _, state in states):
            return []
        return [
            forecast(
                need,
                self.base[need.task],
                candidate.readings[need.task],
                choice.levels[need.task],
                self.tasks.available.get(need.task),
            )
            for need, state in states
            if state == "open"
        ]
