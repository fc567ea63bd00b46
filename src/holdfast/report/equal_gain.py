"""What each arm had lost where it had gained as much as the others, and the reverse, as texts."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.lookup import retained, targets
from holdfast.analysis.results import EqualGain, EqualLoss, Results, Share, TaskInfo
from holdfast.analysis.selection.rule import in_bits
from holdfast.analysis.stats.equal_gain import REACHES
from holdfast.report import language
from holdfast.report.language import Said, Speech
from holdfast.report.words import NONE, Shown, difference, signed


@dataclass(frozen=True, slots=True)
class _Points:
    """How a mean over several targets is written: as a share, better high."""

    inverted: bool = False
    unit: str = ""


POINTS = _Points()


@dataclass(frozen=True, slots=True)
class AtCommon:
    """One retained task at one common gain or loss.

    Attributes:
        task: the retained one.
        far: how much was gained on the target, or lost of this task, with its unit.
        rows: arm, change, and difference to the first arm.
    """

    task: TaskInfo
    far: Said
    rows: tuple[tuple[str, Said, str], ...]


def at_equal_gain(results: Results) -> list[AtCommon]:
    """Every retained task at every common gain, in the study's order."""
    found, speech, aim = [], language.of(results), _aim(results)
    for task in retained(results):
        mine = [one for one in results.equal_gain if one.task == task.name]
        for gain in dict.fromkeys(one.gain for one in mine):
            rows = tuple(
                (one.arm, _change(one, task, speech), _against(one.against, task))
                for one in mine
                if one.gain == gain
            )
            found.append(AtCommon(task, _far(gain, aim, speech), rows))
    return found


def at_equal_loss(results: Results) -> list[AtCommon]:
    """Every retained task at every common loss of it, in the study's order."""
    found, speech, aim = [], language.of(results), _aim(results)
    for task in retained(results):
        mine = [one for one in results.equal_loss if one.task == task.name]
        for loss in dict.fromkeys(one.loss for one in mine):
            rows = tuple(
                (one.arm, _gain(one, aim, speech), _against(one.against, aim))
                for one in mine
                if one.loss == loss
            )
            found.append(AtCommon(task, _far(-loss, task, speech), rows))
    return found


def _aim(results: Results) -> Shown:
    """What a gain is told in: the target's unit; of several the mean, in points."""
    aims = targets(results)
    return aims[0] if len(aims) == 1 else POINTS


def _change(one: EqualGain, task: TaskInfo, speech: Speech) -> Said:
    change = difference(one.change, task)
    if change is None:
        return speech.say("equal_gain.never")
    if not change.interval and one.reached >= REACHES:
        return speech.say("equal_gain.one_seed", change=change.points)
    if not change.interval:
        share = f"{100 * one.reached:.0f}"
        return speech.say("equal_gain.seldom", change=change.points, share=share)
    return language.same(f"{change.arrow} {change.points} {change.interval}")


def _far(change: float, task: Shown, speech: Speech) -> Said:
    """How far all have come, the way round in which the task is shown."""
    if task.unit:
        return language.same(f"{in_bits(-change)} {task.unit}")
    return speech.say("in_points", points=signed(-change if task.inverted else change))


def _gain(one: EqualLoss, task: Shown, speech: Speech) -> Said:
    """The gain, and whether the arm loses that much at all: in most resamples it does or not."""
    text = _against(one.gain, task)
    if one.reached >= 0.5:
        return language.same(text)
    return speech.say("equal_loss.never", gain=text)


def _against(share: Share | None, task: Shown) -> str:
    change = difference(share, task)
    if change is None:
        return NONE
    text = f"{change.points} {change.interval}".strip()
    return f"{change.arrow} {text}" if change.interval else text
