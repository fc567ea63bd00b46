"""What each arm had lost by the time that it had gained as much as the others, as texts."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.lookup import retained
from holdfast.analysis.results import EqualGain, Results, TaskInfo
from holdfast.report.words import NONE, difference, signed

EXPLAINED = (
    "An arm that gains less forgets less for that reason alone. Here every arm’s curve over its "
    "checkpoints is followed to where the gain on the target first reaches a common value (half, "
    "and four fifths, of the most that the first arm gained), and the change by then is read off "
    "between the two checkpoints around it. Differences to the first arm are on the same items. "
    "Intervals: items resampled, seeds left out in turn; there is none where an arm gains that "
    "much in fewer than 95 % of the resamples."
)
HEAD = ("Arm", "Change against base, points", "Against the first arm, points")


@dataclass(frozen=True, slots=True)
class AtGain:
    """One retained task at one common gain.

    Attributes:
        task: the retained one.
        gain: on the target, in points.
        rows: arm, change, and difference to the first arm.
    """

    task: TaskInfo
    gain: str
    rows: tuple[tuple[str, str, str], ...]


def at_equal_gain(results: Results) -> list[AtGain]:
    """Every retained task at every common gain, in the study's order."""
    found = []
    for task in retained(results):
        mine = [one for one in results.equal_gain if one.task == task.name]
        for gain in dict.fromkeys(one.gain for one in mine):
            rows = tuple(
                (one.arm, _change(one, task), _against(one, task))
                for one in mine
                if one.gain == gain
            )
            found.append(AtGain(task, signed(gain), rows))
    return found


def _change(one: EqualGain, task: TaskInfo) -> str:
    change = difference(one.change, task.inverted)
    if change is None:
        return "never gains that much"
    if not change.interval:
        return f"{change.points} (gains that much in {100 * one.reached:.0f} % of resamples)"
    return f"{change.arrow} {change.points} {change.interval}"


def _against(one: EqualGain, task: TaskInfo) -> str:
    change = difference(one.against, task.inverted)
    if change is None:
        return NONE
    text = f"{change.points} {change.interval}".strip()
    return f"{change.arrow} {text}" if change.interval else text
