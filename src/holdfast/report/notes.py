"""What must a reader know before trusting the figures?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.outcomes import WITHHELD
from holdfast.plan import BASE
from holdfast.report.results import Cell, TaskInfo

if TYPE_CHECKING:
    from holdfast.report.summary import Measured

UNSCORED_LIMIT = 0.05
"""Share of replies from which a figure comes with a note."""
CUT_OFF_LIMIT = 0.1
ONE_SEED = (
    "One training seed: the intervals speak of these very trainings; another seed may change more "
    "than they say."
)


def all_of(
    tasks: Sequence[TaskInfo],
    cells: Sequence[Cell],
    measured: Sequence[Measured],
    seeds: Sequence[int],
) -> list[str]:
    """Every note, in sentences.

    Args:
        tasks: that were measured.
        cells: their figures.
        measured: their readings.
        seeds: of the trainings.
    """
    return [
        *(note for task in tasks for note in _of_task(task, cells, measured)),
        *_cut_off(measured),
        *_withheld(measured),
        *(note for task in tasks for note in _unpinned(task)),
        *([ONE_SEED] if len(seeds) == 1 else []),
    ]


def unscored(cell: Cell) -> float:
    """The share of a cell's replies that could not be scored."""
    return cell.score.unscored / max(1, cell.score.unscored + cell.score.n)


def _of_task(task: TaskInfo, cells: Sequence[Cell], measured: Sequence[Measured]) -> Iterator[str]:
    mine = [cell for cell in cells if cell.task == task.name]
    lacking = [cell for cell in mine if unscored(cell) > UNSCORED_LIMIT]
    if lacking:
        worst = max(lacking, key=unscored)
        rest = f", and over {UNSCORED_LIMIT:.0%} of those of {len(lacking) - 1} other points"
        none = not worst.score.n
        yield (
            f"{task.name}: {unscored(worst):.0%} of the replies of {_point(worst)} could not be "
            + f"scored{rest if len(lacking) > 1 else ''}; "
            + ("there is no figure." if none else "the figure speaks of the rest only.")
            + _why(task, worst, measured)
        )
    base = next(cell.score for cell in mine if cell.arm == BASE)
    if task.role == "target" and base.mean is not None and not 0.02 <= base.mean <= 0.98:
        yield (
            f"{task.name}: the untouched model scores {base.mean:.0%}, which leaves little room "
            "to see a change."
        )


def _why(task: TaskInfo, cell: Cell, measured: Sequence[Measured]) -> str:
    """What the judge said most often where it was unsure."""
    for one in measured:
        if (one.arm, one.step, one.scale, one.task) == (cell.arm, cell.step, cell.scale, task.name):
            said = [f"{text!r} ({count} times)" for text, count in one.unread]
            if said:
                judge = task.judge.get("judge", "the judge")
                return f" Where {judge} was unsure it mostly said {', '.join(said)}."
    return ""


def _cut_off(measured: Sequence[Measured]) -> list[str]:
    """Notes on answers that were cut: a changed length looks like a changed ability."""
    worst: dict[str, tuple[float, Measured, int]] = {}
    for one in measured:
        share = one.cut_off / max(1, sum(len(readings) for readings in one.readings))
        if share > CUT_OFF_LIMIT:
            most, which, count = worst.get(one.task, (0.0, one, 0))
            worst[one.task] = (*max((most, which), (share, one), key=lambda o: o[0]), count + 1)
    return [
        f"{task}: {share:.0%} of the replies of {_point(one)} were cut off at the limit of new "
        "tokens"
        + (f", and over {CUT_OFF_LIMIT:.0%} at {count - 1} other points" if count > 1 else "")
        + "; a higher max_new_tokens may change the figure."
        for task, (share, one, count) in worst.items()
    ]


def _withheld(measured: Sequence[Measured]) -> list[str]:
    """A note for every task of which a server's filter withheld replies, by its worst point.

    A filter strikes one model's replies more than another's, and harmful ones most, so that even a
    few may change a difference.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for one in measured:
        every = [reading for readings in one.readings for reading in readings]
        count = sum(reading.outcome == WITHHELD for reading in every)
        if count:
            share = count / len(every)
            said = f"{share:.0%} of the replies of {_point(one)} ({count} of {len(every)})"
            found.setdefault(one.task, []).append((share, said))
    return [_strained(task, some) for task, some in found.items()]


def _strained(task: str, some: Sequence[tuple[float, str]]) -> str:
    said = max(some, key=lambda one: one[0])[1]
    others = f", and some at {len(some) - 1} other points" if len(some) > 1 else ""
    return f"{task}: {said} were withheld by the server's filter{others}; they are unscored."


def _unpinned(task: TaskInfo) -> list[str]:
    """A judge from the hub without a revision is another judge when its authors change it."""
    return [
        f"{task.name}: the judge {model['id']} is not pinned; name its `revision`, so that later "
        "figures are by the same judge."
        for one in _members(task.judge)
        if isinstance(model := one.get("model"), Mapping)
        and "id" in model
        and not model.get("revision")
    ]


def _members(judge: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(judge.get("members", [judge]))


def _point(one: Cell | Measured) -> str:
    return f"{one.arm} at step {one.step}" if one.step else one.arm
