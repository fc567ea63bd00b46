"""The rule for shipping: what it asks for, and how sure it wants to be.

Every need is met, missed or left open by the interval of a paired difference to the untouched
model, over all items of its task. A model must meet all of them, so none has to be corrected for
the number of the others (an intersection-union test, Berger 1982, Technometrics 24:295-300). What
has to be corrected for is the choice among many models; how, `decision` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.analysis.stats import Interval
from holdfast.config import ShipSpec
from holdfast.errors import StudyError
from holdfast.registry import nearest

MARGIN = -0.02
"""Allowed on every retained task when a rule names none: two points, by the worse end."""
FULL = 0.98
"""A target on which the untouched model is better than this leaves no room to gain."""
UNSCORED_LIMIT = 0.05
"""Share of unscored items from which a task cannot be judged."""

ERROR = 0.025
"""Most often that a model which misses a need may be shipped; one end of a 95 % interval."""
FIRST, OTHERS = 0.78 * ERROR, 0.12 * ERROR
"""Error allowed for the first model in line, and for all behind it together."""
DOUBT = 0.10
"""Error at which a model gives up its place in line; (FIRST + OTHERS) / (1 - DOUBT) is ERROR."""

ROUNDING = 1e-12
"""Of binary fractions; 0.3 - 0.1 is at a margin of 0.2."""

Target = str | Sequence[str]
"""The task that training is for, or several."""
State = Literal["met", "missed", "open", "unscored"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a rule asks for.

    Attributes:
        task: its name.
        margin: least change, as a share; higher is better.
        gain: the change must be above the margin, not just at it: no change is no gain.
        unit: of a task whose figure is no share, such as ``bits/byte``.
    """

    task: str
    margin: float
    gain: bool = False
    unit: str = ""

    def state(self, change: Interval) -> State:
        """Whether a paired difference meets the need.

        ``met``: its interval's worse end does; ``missed``: not even the better end does;
        ``unscored``: more than 5 % of the items have no score; ``open``: all else.
        """
        if change.low is None or change.high is None:
            return "unscored"
        if change.unscored > UNSCORED_LIMIT * (change.n + change.unscored):
            return "unscored"
        low, high = change.low - self.margin, change.high - self.margin
        if low > ROUNDING or (low >= -ROUNDING and not self.gain):
            return "met"
        return "missed" if high < -ROUNDING else "open"

    def kept(self) -> str:
        """The need met, in words between "it" and "on" its task: ``loses at most 2 points``."""
        if self.margin > 0:
            return f"gains at least {_size(self.margin, self.unit)}"
        if self.margin < 0:
            return f"loses at most {_size(-self.margin, self.unit)}"
        return "gains" if self.gain else "loses nothing"

    def broken(self) -> str:
        """The need missed, likewise: ``loses more than 2 points``."""
        if self.margin > 0:
            return f"gains less than {_size(self.margin, self.unit)}"
        if self.margin < 0:
            return f"loses more than {_size(-self.margin, self.unit)}"
        return "does not gain" if self.gain else "loses"


def needs(
    rule: ShipSpec, tasks: Iterable[str], target: Target, units: Mapping[str, str] | None = None
) -> tuple[Need, ...]:
    """What a rule asks for: a gain on every target, and the margins that it names.

    Args:
        rule: of the study; one without a margin of a retained task allows each of them `MARGIN`.
        tasks: all tasks of the study.
        target: what training is for.
        units: of tasks whose figure is no share.
    """
    aims, of = names_of(target), units or {}
    margins = dict(rule.retain)
    if margins.keys() <= set(aims):  # a margin of a target says nothing of what is to be kept
        margins |= {name: MARGIN for name in tasks if name not in aims}
    gains = [Need(aim, margins.pop(aim, 0.0), True, of.get(aim, "")) for aim in aims]
    return *gains, *(Need(task, one, False, of.get(task, "")) for task, one in margins.items())


def names_of(target: Target) -> tuple[str, ...]:
    """The tasks that training is for."""
    return (target,) if isinstance(target, str) else tuple(target)


def aim_of(rule: ShipSpec, target: Target) -> str:
    """What orders the models, in words: a task, or the mean of several."""
    aims = (rule.maximize,) if rule.maximize else names_of(target)
    return aims[0] if len(aims) == 1 else f"the mean of {listed(aims)}"


def error_of(place: int, models: int) -> float:
    """How often a model that misses a need may be found to meet it.

    Args:
        place: in line, 0 for the first.
        models: how many there are to choose from, in line or not.
    """
    if models <= 1:
        return ERROR
    return FIRST if place == 0 else OTHERS / (models - 1)


def confidence(error: float) -> float:
    """The level of the two-sided interval one end of which errs so often."""
    return 1 - 2 * error


def percent_of(level: float) -> str:
    """A level in words, as exact as it has to be: ``96.1 %``."""
    off = 100 * (1 - level)
    return f"{round(100 - off, 1 - min(0, math.floor(math.log10(off)))):.9g} %"


def in_words(
    rule: ShipSpec,
    tasks: Iterable[str],
    target: Target,
    models: int = 1,
    units: Mapping[str, str] | None = None,
) -> str:
    """The rule as a sentence or two, for reports and cards."""
    all_of = told(needs(rule, tasks, target, units))
    text = (
        f"A model may be shipped if it {all_of}, each by the worse end "
        f"of its {'interval' if models > 1 else '95 % interval'}."
    )
    if models > 1:
        text += (
            f" Of those that may, the one best on {aim_of(rule, target)} is. The intervals are "
            f"so wide that the choice among {models} models errs in {100 * ERROR:g} % at most."
        )
    return text


def told(found: Iterable[Need], missed: bool = False) -> str:
    """Needs met (or missed), in words: ``gains on a and loses at most 2 points on b and c``."""
    tasks: dict[str, list[str]] = {}
    for need in found:
        tasks.setdefault(need.broken() if missed else need.kept(), []).append(need.task)
    return listed(f"{what} on {listed(names)}" for what, names in tasks.items())


def listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _size(amount: float, unit: str) -> str:
    return f"{amount:g} {unit}" if unit else _points(amount)


def _points(share: float) -> str:
    return "1 point" if share == 0.01 else f"{100 * share:g} points"


def in_points(share: float) -> str:
    """A change of a share in percentage points, with its sign unless it is 0: ``−1.5``."""
    return f"{100 * share:+.1f}".replace("-", "\u2212") if share else "0.0"


def in_bits(value: float) -> str:
    """A change of a measure in its own unit, with its sign unless it is 0: ``+0.0123``."""
    return f"{value:+.4f}".replace("-", "\u2212") if value else "0.0000"


def change_text(value: float, unit: str = "") -> str:
    """A change the way round in which its task is shown, of a measure with its unit."""
    return in_bits(-value) if unit else in_points(value)


def span(low: float | None, high: float | None, unit: str = "") -> str:
    """The ends of an interval in percentage points: ``[−1.5, +0.3]``; or of a measure."""
    ends = (high, low) if unit else (low, high)
    return f"[{', '.join(change_text(end or 0.0, unit) for end in ends)}]"


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
