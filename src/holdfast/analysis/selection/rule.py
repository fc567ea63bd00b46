"""The rule for shipping: what it asks for, and whether a model meets it on a half of the items.

Every need is met, missed or left open by the interval of a paired difference to the untouched
model. A model must meet all of them, so none has to be corrected for the number of the others (an
intersection-union test, Berger 1982, Technometrics 24:295-300).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from holdfast.analysis.selection.frontier import Candidate, Halves
from holdfast.analysis.stats import Interval, Values, paired_difference
from holdfast.config import ShipSpec
from holdfast.errors import StudyError
from holdfast.registry import nearest
from holdfast.types import Point

MARGIN = -0.02
"""Allowed on every retained task when a rule names none: two points, by the worse end."""
UNSCORED_LIMIT = 0.05
"""Share of unscored items from which a task cannot be judged."""

MOST = 1_000_000
"""More items than this are no answer."""
CHOOSING, REPORTING = 0, 1
"""The two halves of the items."""
UNKNOWN = -1.0
"""The change where nothing could be scored: the worst there is."""

State = Literal["met", "missed", "open", "unscored"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a rule asks for.

    Attributes:
        task: its name.
        margin: least change, as a share; higher is better.
        gain: the change must be above the margin, not just at it: no change is no gain.
    """

    task: str
    margin: float
    gain: bool = False

    def state(self, change: Interval) -> State:
        """Whether a paired difference meets the need.

        ``met``: its interval's worse end does; ``missed``: not even the better end does;
        ``unscored``: more than 5 % of the items have no score; ``open``: all else.
        """
        if change.low is None or change.high is None:
            return "unscored"
        if change.unscored > UNSCORED_LIMIT * (change.n + change.unscored):
            return "unscored"
        if change.low > self.margin or (change.low == self.margin and not self.gain):
            return "met"
        return "missed" if change.high < self.margin else "open"

    def kept(self) -> str:
        """The need met, in words that follow "it": ``loses at most 2.0 points on ailuminate``."""
        if self.margin > 0:
            return f"gains at least {100 * self.margin:.1f} points on {self.task}"
        if self.margin < 0:
            return f"loses at most {-100 * self.margin:.1f} points on {self.task}"
        return f"{'gains' if self.gain else 'loses nothing'} on {self.task}"

    def broken(self) -> str:
        """The need missed, likewise: ``loses more than 2.0 points on ailuminate``."""
        if self.margin > 0:
            return f"gains less than {100 * self.margin:.1f} points on {self.task}"
        if self.margin < 0:
            return f"loses more than {-100 * self.margin:.1f} points on {self.task}"
        return f"{'does not gain' if self.gain else 'loses'} on {self.task}"


def needs(rule: ShipSpec, tasks: Iterable[str], target: str) -> tuple[Need, ...]:
    """What a rule asks for: a gain on the target, and the margins that it names.

    Args:
        rule: of the study; one without margins allows every retained task `MARGIN`.
        tasks: all tasks of the study.
        target: the task that training is for.
    """
    margins = dict(rule.retain) or {name: MARGIN for name in tasks if name != target}
    gain = Need(target, margins.pop(target, 0.0), True)
    return gain, *(Need(task, margin) for task, margin in margins.items())


def in_words(rule: ShipSpec, tasks: Iterable[str], target: str) -> str:
    """The rule as a sentence, for reports and cards."""
    return (
        f"A model may be shipped if it {listed(n.kept() for n in needs(rule, tasks, target))}, by "
        "the worse end of each 95 % interval; of those that may, the one best on "
        f"{rule.maximize or target} is."
    )


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def in_points(share: float) -> str:
    """A change of a share in percentage points, always with its sign: ``−1.5``."""
    return f"{100 * share:+.1f}".replace("-", "\u2212")


def check_rule(rule: ShipSpec, tasks: Iterable[str], where: str = "") -> None:
    """Refuse a rule that speaks of what is not measured, or in points instead of shares.

    Args:
        rule: of the study.
        tasks: all tasks of the study.
        where: the study file's name, for messages.

    Raises:
        StudyError: naming the key and what to write.
    """
    known = list(tasks)
    named = [(f"ship.retain.{name}", name) for name in rule.retain]
    for key, name in [*named, ("ship.maximize", rule.maximize or known[0])]:
        if name not in known:
            raise StudyError(
                f"{key}: no task is called {name!r}{nearest(name, known)}",
                where=where,
                remedy=f"this study measures: {', '.join(known)}",
            )
    for name, margin in rule.retain.items():
        if not -1 < margin < 1:
            raise StudyError(
                f"ship.retain.{name}: {margin:g} is no share",
                where=where,
                remedy="it is the least change allowed, as a share: write "
                f"{-abs(margin) / 100:g} to allow a loss of {abs(margin):g} points; a positive one "
                "demands a gain",
            )


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
class RuleEvaluator:
    """Judges models by one rule on each half of the items.

    Attributes:
        base: the untouched model's values by task.
        rule: of the study.
        target: the task that training is for.
        halves: the items that choose and those that report, by task.
    """

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


def more_items(need: Need, base: Values, tuned: Values) -> int | None:
    """About how many items beyond those scored would meet the need, or show that it is missed.

    For ones and zeros: the smallest number at which the interval, computed for the same shares of
    lost, won and unchanged items, leaves the margin. For means over several samples: its distance
    from the mean is taken to shrink with the root of the number.

    Args:
        need: one whose state is open.
        base: shape (items,).
        tuned: the same items.

    Returns:
        None where the observed mean lies on the margin, or more than a million would be needed.
    """
    scored = ~(np.isnan(base) | np.isnan(tuned))
    before, after = base[scored], tuned[scored]
    now = paired_difference(before, after[None, :])
    if now.mean is None or now.low is None or now.high is None:
        return None
    above = now.mean > need.margin
    distance = abs(now.mean - need.margin)
    if distance < 1e-9:
        return None
    pairs, counts = np.unique(np.stack([before, after]), axis=1, return_counts=True)
    if not np.isin(pairs, (0.0, 1.0)).all():
        reach = now.mean - now.low if above else now.high - now.mean
        wanted = math.ceil(now.n * (reach / distance) ** 2)
        return wanted - now.n if wanted <= MOST else None

    def settled(n: int) -> bool:
        exact = n * counts / now.n
        times = np.floor(exact).astype(int)
        times[np.argsort(times - exact, kind="stable")[: n - times.sum()]] += 1  # largest remainder
        one, two = (np.repeat(row, times) for row in pairs)
        return need.state(paired_difference(one, two[None, :])) == ("met" if above else "missed")

    few, many = now.n, 2 * now.n
    while not settled(many):
        few, many = many, 2 * many
        if few > MOST:
            return None
    while many - few > max(1, few // 100):  # one in a hundred is close enough for "about"
        middle = (few + many) // 2
        few, many = (few, middle) if settled(middle) else (middle, many)
    return many - now.n
