"""What each arm had lost by the time that it had gained as much as the others, as texts."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.lookup import retained
from holdfast.analysis.results import EqualGain, Results, TaskInfo
from holdfast.report import language
from holdfast.report.language import Said, Speech
from holdfast.report.words import NONE, difference, signed


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
    rows: tuple[tuple[str, Said, str], ...]


def at_equal_gain(results: Results) -> list[AtGain]:
    """Every retained task at every common gain, in the study's order."""
    found, speech = [], language.of(results)
    for task in retained(results):
        mine = [one for one in results.equal_gain if one.task == task.name]
        for gain in dict.fromkeys(one.gain for one in mine):
            rows = tuple(
                (one.arm, _change(one, task, speech), _against(one, task))
                for one in mine
                if one.gain == gain
            )
            found.append(AtGain(task, signed(gain), rows))
    return found


def _change(one: EqualGain, task: TaskInfo, speech: Speech) -> Said:
    change = difference(one.change, task)
    if change is None:
        return speech.say("equal_gain.never")
    if not change.interval:
        share = f"{100 * one.reached:.0f}"
        return speech.say("equal_gain.seldom", change=change.points, share=share)
    return language.same(f"{change.arrow} {change.points} {change.interval}")


def _against(one: EqualGain, task: TaskInfo) -> str:
    change = difference(one.against, task)
    if change is None:
        return NONE
    text = f"{change.points} {change.interval}".strip()
    return f"{change.arrow} {text}" if change.interval else text
