"""What a run says of its time before its first stage; a long one is measured first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.progress.remaining import in_words
from holdfast.runs.stages import Step
from holdfast.study import calibration
from holdfast.study import speed as speeds
from holdfast.study.duration import how_of, stage_seconds
from holdfast.study.outlook import Outlook, outlook
from holdfast.study.session import Session
from holdfast.study.speed import Speed

DAY_S = 86_400.0
WORTH_MEASURING_S = 600.0
"""A study that the formula gives longer is measured before it begins."""


def at_start(
    session: Session, steps: Sequence[Step], progress: Progress, elsewhere: bool = False
) -> dict[str, float]:
    """Tell what a run will take, measured first where it is worth that, before its first stage.

    Args:
        session: prepared.
        steps: its schedule.
        progress: is told.
        elsewhere: other machines do it, whose speed is not known here: nothing is told or measured.

    Returns:
        Seconds of every stage, by which its progress is weighed.
    """
    speed = speeds.by_formula(session) if elsewhere else speeds.known(session)
    stages = stage_seconds(session, speed)
    if elsewhere:
        return {step.stage.name: stages[step.stage.name].seconds for step in steps}
    undone = {step.stage.name for step in steps if not step.done}
    left = math.fsum(stages[name].seconds for name in undone)
    lines = [
        f"About {in_words(left)} on {speeds.device(session)} ({how_of(stages, undone, speed)})."
    ]
    if left > WORTH_MEASURING_S:
        told = outlook(session, steps, speed)
        if told.measurable:
            told = outlook(session, steps, measured(session, progress))
        lines, stages = start_lines(told), dict(told.stages)
    for line in lines:
        progress.say(line)
    return {name: stages[name].seconds for name in (step.stage.name for step in steps)}


def measured(session: Session, progress: Progress) -> Speed:
    """The speed, measured; the formula's, and a line that says why, where that fails."""
    try:
        return calibration.measure(session, progress)
    except (HoldfastError, RuntimeError, OSError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        progress.say(f"the speed could not be measured: {first[:200]}")
        return speeds.by_formula(session)


def start_lines(told: Outlook) -> list[str]:
    """What is said of the time when a run starts."""
    lines = [f"About {in_words(told.left)} on {told.device} ({told.how})."]
    if told.left > DAY_S:
        lines.append("That is days. What would shorten it:")
        lines += [
            f"  {one.setting} saves {in_words(one.saved)} ({one.words})" for one in told.changes[:5]
        ]
    return lines
