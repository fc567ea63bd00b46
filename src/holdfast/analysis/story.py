"""What a study comes to, in facts that one sentence can be made of.

Nothing is computed anew: directions are those of the intervals, forgetting is what is left of it
after Holm's correction where there is one, and what may be shipped is the decision's own word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.analysis.findings import Cell, Direction, Share
from holdfast.analysis.lookup import final, retained, targets
from holdfast.analysis.results import Results
from holdfast.types import BASE

ALPHA = 0.05
"""A task counts as forgotten below this p, after Holm's correction."""
NOTICED = 0.05
"""A share that falls by so much is not said to be kept, however wide the interval."""


@dataclass(frozen=True, slots=True)
class Story:
    """The first arm that was measured, and what became of the others.

    Attributes:
        arm: the first trained (or tuned) one; "" where there is none with figures.
        targets: what it was trained for; empty where nothing was.
        gain: what it did on the target; of several: better on one and worse on none, or the other
            way round. None where that was not measured.
        gained: tasks other than the target that it is better on.
        lost: retained tasks that it forgot.
        doubtful: others that it is worse on by the interval, and not after Holm's correction; or by
            the estimate alone, if that is a loss of `NOTICED` or more.
        tasks: number of retained tasks on which it was compared.
        other: the arm that the decision ships, or, without a decision, the first that does not seem
            to have forgotten any of `lost`; "" where that is nobody or `arm` itself.
        kept: of `lost`, what `other` holds: its interval does not lie below 0.
        ships: a model may be shipped by the decision's rule; None without such a decision.
        answer: the decision's own; "" without one.
    """

    arm: str
    targets: tuple[str, ...] = ()
    gain: Direction | None = None
    gained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    tasks: int = 0
    other: str = ""
    kept: tuple[str, ...] = ()
    ships: bool | None = None
    answer: str = ""


def story(results: Results) -> Story:
    """The facts of the headline."""
    made = results.decision
    aims, kept = targets(results), retained(results)
    answer = made.answer if made else ""
    named = [arm.name for arm in results.arms if arm.name != BASE]
    for_, names = tuple(task.name for task in aims), [task.name for task in kept]
    arm = next((one for one in named if _measured(results, one, for_ or names)), "")
    if not arm:
        return Story("", answer=answer)
    cells = [cell for name in names if (cell := final(results, arm, name)) and cell.diff]
    lost = tuple(cell.task for cell in cells if forgot(cell))
    units = {task.name: task.unit for task in kept}
    gained = tuple(cell.task for cell in cells if cell.diff and cell.diff.direction == "better")
    doubtful = tuple(
        cell.task
        for cell in cells
        if cell.diff and cell.task not in lost and may_have_lost(cell.diff, units[cell.task])
    )
    ships = None if made is None or answer in ("kept", "not kept") else made.chosen is not None
    if ships is not None and not results.seeds and not results.trained:
        ships = None  # a comparison ships nothing
    other, held = _other(results, named, arm, lost)
    return Story(
        arm,
        for_,
        _gain(results, arm, for_),
        gained,
        lost,
        doubtful,
        len(cells),
        other,
        held,
        ships,
        answer,
    )


def _gain(results: Results, arm: str, targets: Sequence[str]) -> Direction | None:
    """Which way an arm went on what it was trained for."""
    cells = [final(results, arm, target) for target in targets]
    ways = {cell.diff.direction for cell in cells if cell and cell.diff}
    if not ways:
        return None
    if {"better", "worse"} <= ways:
        return "no clear change"
    return next((way for way in ("better", "worse") if way in ways), "no clear change")


def may_have_lost(diff: Share, unit: str = "") -> bool:
    """Whether a change is a loss by its interval, or by an estimate that nobody would call none.

    Args:
        diff: to the untouched model; below 0 is worse.
        unit: of a measure, whose estimate alone says nothing; "" for a share.
    """
    return diff.direction == "worse" or (
        not unit and diff.mean is not None and diff.mean <= -NOTICED
    )


def forgot(cell: Cell) -> bool:
    """Whether a retained task fell by more than chance allows."""
    if cell.diff is None or (cell.diff.mean or 0.0) >= 0:
        return False
    return cell.diff.direction == "worse" if cell.p_holm is None else cell.p_holm < ALPHA


def _other(
    results: Results, named: Sequence[str], arm: str, lost: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """Who is to be named beside the first arm, and what of its losses that one holds."""
    made = results.decision
    if made is not None:
        if made.chosen is None or made.chosen.arm == arm:
            return "", ()
        changes = made.chosen.changes
        held = [one for one in lost if one in changes and changes[one].direction != "worse"]
        return made.chosen.arm, tuple(held)
    units = {task.name: task.unit for task in results.tasks}
    for one in named if lost else ():
        cells = [final(results, one, task) for task in lost]
        if one != arm and all(
            cell
            and cell.diff
            and not forgot(cell)
            and not may_have_lost(cell.diff, units[cell.task])
            for cell in cells
        ):
            return one, tuple(lost)
    return "", ()


def _measured(results: Results, arm: str, tasks: Sequence[str]) -> bool:
    """Whether one of the tasks was scored for the arm."""
    cells = [final(results, arm, task) for task in tasks]
    return any(cell and cell.diff and cell.diff.mean is not None for cell in cells)
