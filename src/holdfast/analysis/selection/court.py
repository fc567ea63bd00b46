"""How is one model judged by a rule, on one half of the items?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.analysis.selection.evidence import more_items
from holdfast.analysis.selection.frontier import Candidate
from holdfast.analysis.selection.halves import Halves
from holdfast.analysis.selection.rule import Need, State, needs
from holdfast.analysis.stats import Interval, Values, paired_difference
from holdfast.config import ShipSpec
from holdfast.types import Point

CHOOSING, REPORTING = 0, 1
UNKNOWN = -1.0
"""The change where nothing could be scored: the worst there is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One model, with its changes on both halves.

    Attributes:
        point: whose weights.
        chosen_on: paired differences to the base by task, on the items that choose.
        reported_on: the same on the items that had no part in the choice.
        allowed: meets the whole rule on the items that choose.
    """

    point: Point
    chosen_on: Mapping[str, Interval]
    reported_on: Mapping[str, Interval]
    allowed: bool


@dataclass(frozen=True)
class Court:
    """What a decision rests on."""

    base: Mapping[str, Values]
    rule: ShipSpec
    target: str
    halves: Mapping[str, Halves]

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Items in each half, by task."""
        return {task: (int(a.sum()), int(b.sum())) for task, (a, b) in self.halves.items()}

    @property
    def needs(self) -> tuple[Need, ...]:
        """All that must be met."""
        return needs(self.rule, self.base, self.target)

    @property
    def aim(self) -> str:
        """The task that decides among allowed models."""
        return self.rule.maximize or self.target

    def changes(self, candidate: Candidate, half: int) -> dict[str, Interval]:
        """Paired differences to the base on one half, by task."""
        found = {}
        for task, before in self.base.items():
            mask = self.halves[task][half]
            found[task] = paired_difference(before[mask], candidate.readings[task][None, mask])
        return found

    def states(self, changes: Mapping[str, Interval]) -> list[tuple[Need, State]]:
        """Every need and how it stands."""
        return [(need, need.state(changes[need.task])) for need in self.needs]

    def allows(self, changes: Mapping[str, Interval]) -> bool:
        """Whether every need is met."""
        return all(state == "met" for _, state in self.states(changes))

    def choice(self, candidate: Candidate, chosen_on: Mapping[str, Interval]) -> Choice:
        """The model with its changes on both halves."""
        reported_on = self.changes(candidate, REPORTING)
        return Choice(candidate.point, chosen_on, reported_on, self.allows(chosen_on))

    def rank(self, candidate: Candidate, changes: Mapping[str, Interval]) -> tuple[float, ...]:
        """Higher is better: the aim, then what is retained, then fewer steps, a smaller scale."""
        kept = [mean_of(changes[need.task]) for need in self.needs if need.task != self.target]
        blind = Need(self.aim, -1.0).state(changes[self.aim]) == "unscored"
        best = (UNKNOWN if blind else mean_of(changes[self.aim]), min(kept, default=0.0))
        point = candidate.point
        return *(round(one, 9) for one in best), -point.step, -point.scale

    def slack(self, changes: Mapping[str, Interval]) -> float:
        """How far the worst end lies above its margin; below 0 it misses."""
        ends = [(need, changes[need.task].low) for need in self.needs]
        gaps = [-2.0 if low is None else low - need.margin for need, low in ends]
        unscored = any(state == "unscored" for _, state in self.states(changes))
        return min(gaps) - (2.0 if unscored else 0.0)

    def wanted(
        self, candidate: Candidate, changes: Mapping[str, Interval], half: int
    ) -> tuple[int, str] | None:
        """Items that would decide, both halves together, and of which task.

        One need that turns out missed decides; otherwise all of them must be met.
        """
        states = self.states(changes)
        if any(state == "unscored" for _, state in states):
            return None
        below: list[tuple[float, str]] = []
        above: list[tuple[float, str]] = []
        for need in (need for need, state in states if state == "open"):
            mask = self.halves[need.task][half]
            before, after = self.base[need.task][mask], candidate.readings[need.task][mask]
            more = more_items(need, before, after)
            missed = mean_of(changes[need.task]) < need.margin
            (below if missed else above).append((math.inf if more is None else 2 * more, need.task))
        count, task = min(below) if below else max(above)
        return None if math.isinf(count) else (int(count), task)


def mean_of(change: Interval) -> float:
    """The mean change, `UNKNOWN` where there is none."""
    return UNKNOWN if change.mean is None else change.mean
