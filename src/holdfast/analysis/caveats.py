"""Notes beside the figures: unscored, cut-off and withheld replies, thinking, ceilings, judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from holdfast.analysis.arrays import Measured
from holdfast.analysis.findings import Cell, TaskInfo
from holdfast.analysis.selection.rule import FULL
from holdfast.grading.safety_outcomes import WITHHELD
from holdfast.types import BASE

UNSCORED_LIMIT = 0.05
"""Share of replies from which a figure comes with a note."""
CUT_OFF_LIMIT = 0.1
NAMED = 4
"""Models and checkpoints that a note names one by one."""
ONE_SEED = (
    "One training seed: the intervals speak of these very trainings; another seed may change more "
    "than they say."
)

ALIKE = (
    "all seeds are trained on the same questions, those that fill the budget, where plain training "
    "sees others with each seed. So seeds differ by less than they would with questions of their "
    "own, and intervals and p may be too good."
)


def all_of(
    tasks: Sequence[TaskInfo],
    cells: Sequence[Cell],
    measured: Sequence[Measured],
    seeds: Sequence[int],
    alike: Sequence[str] = (),
) -> list[str]:
    """Every note, in sentences.

    Args:
        tasks: that were measured.
        cells: their figures.
        measured: their readings.
        seeds: of the trainings.
        alike: arms of which all seeds are trained on the same questions.
    """
    return [
        *(note for task in tasks for note in _of_task(task, cells, measured)),
        *_cut_off(measured),
        *_cut_in_thinking(measured),
        *_thought(measured),
        *_withheld(measured),
        *(note for task in tasks for note in _unpinned(task)),
        *([ONE_SEED] if len(seeds) == 1 else []),
        *([f"{', '.join(alike)}: {ALIKE}"] if alike and len(seeds) > 1 else []),
    ]


def unscored(cell: Cell) -> float:
    """The share of a cell's replies that could not be scored."""
    return cell.score.unscored / max(1, cell.score.unscored + cell.score.n)


def _of_task(task: TaskInfo, cells: Sequence[Cell], measured: Sequence[Measured]) -> Iterator[str]:
    mine = [cell for cell in cells if cell.task == task.name]
    lacking = [cell for cell in mine if unscored(cell) > UNSCORED_LIMIT]
    if lacking:
        worst = max(lacking, key=unscored)
        rest = [cell for cell in lacking if cell is not worst]
        said = f"{task.name}: {unscored(worst):.0%} of the replies of {_point(worst)}"
        yield _joined(
            f"{said} could not be scored; the figure speaks of the rest only."
            if worst.score.n
            else f"{said} could not be scored; there is no figure.",
            _others(rest, UNSCORED_LIMIT),
            _why(task, worst, measured),
        )
    base = next(cell.score for cell in mine if cell.arm == BASE)
    if (
        task.role == "target"
        and not task.unit
        and base.mean is not None
        and not 0.02 <= base.mean <= FULL
    ):
        yield (
            f"{task.name}: the untouched model scores {base.mean:.0%}, which leaves little room to "
            "gain: measure harder items."
            if base.mean > FULL
            else f"{task.name}: the untouched model scores {base.mean:.0%}: look whether it fails "
            "at the task or only at the form of the answer."
        )


def _why(task: TaskInfo, cell: Cell, measured: Sequence[Measured]) -> str:
    """What the judge said most often where it was unsure."""
    for point in measured:
        if point.key == (cell.arm, cell.step, cell.scale, task.name):
            said = [f"{text!r} ×{count}" for text, count in point.unread]
            if said:
                judge = task.judge.get("judge", "the judge")
                return f"Where {judge} was unsure it mostly said {', '.join(said)}."
    return ""


def _cut_off(measured: Sequence[Measured]) -> Iterator[str]:
    """Notes on answers that were cut: a changed length looks like a changed ability."""

    def share(point: Measured) -> float:
        return point.cut_off / _size(point)

    for task, some in _by_task(measured, lambda one: share(one) > CUT_OFF_LIMIT).items():
        worst, *rest = sorted(some, key=share, reverse=True)
        yield _joined(
            f"{task}: {share(worst):.0%} of the replies of {_point(worst)} were cut off at the "
            "limit of new tokens; a higher max_new_tokens may change the figure.",
            _others(rest, CUT_OFF_LIMIT),
        )


def _cut_in_thinking(measured: Sequence[Measured]) -> Iterator[str]:
    """A note for every task with replies that hold no answer because thinking took all tokens."""

    def share(point: Measured) -> float:
        return point.thinking_cut / _size(point)

    for task, some in _by_task(measured, lambda one: one.thinking_cut > 0).items():
        worst, *rest = sorted(some, key=share, reverse=True)
        yield _joined(
            f"{task}: {worst.thinking_cut} of {_size(worst)} replies of {_point(worst)} were cut "
            "off while thinking, before any answer; they are graded as empty answers, and a higher "
            "max_new_tokens may change the figure.",
            _others(rest),
        )


def _thought(measured: Sequence[Measured]) -> Iterator[str]:
    """A note for every task that was thought about: how long, by the last point of each arm."""
    for task, some in _by_task(measured, lambda one: one.thinking_tokens is not None).items():
        last = {point.arm: point for point in sorted(some, key=lambda one: (one.step, one.scale))}
        if not any(point.thinking_tokens for point in last.values()):
            continue
        means = [f"{arm} {point.thinking_tokens:,.0f}" for arm, point in last.items()]
        yield (
            f"{task}: tokens thought before an answer, on average: {', '.join(means)}. What was "
            "thought is neither graded nor judged."
        )


def _withheld(measured: Sequence[Measured]) -> Iterator[str]:
    """A note for every task of which a server's filter withheld replies, by its worst point.

    A filter strikes one model's replies more than another's, and harmful ones most, so that even a
    few may change a difference.
    """

    def count(point: Measured) -> int:
        return sum(reading.outcome == WITHHELD for reading in point.replies)

    for task, some in _by_task(measured, lambda one: count(one) > 0).items():
        worst, *rest = sorted(some, key=lambda one: count(one) / _size(one), reverse=True)
        yield _joined(
            f"{task}: {count(worst) / _size(worst):.0%} of the replies of {_point(worst)} "
            f"({count(worst)} of {_size(worst)}) were withheld by the server's filter; they are "
            "unscored.",
            _others(rest),
        )


def _size(point: Measured) -> int:
    return max(1, len(point.replies))


def _by_task(
    measured: Sequence[Measured], concerned: Callable[[Measured], bool]
) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for point in measured:
        if concerned(point):
            found.setdefault(point.task, []).append(point)
    return found


def _others(some: Sequence[Cell | Measured], limit: float = 0.0) -> str:
    """Where else it is so, as a sentence of its own: by name, where these are few."""
    if not some:
        return ""
    names = ", ".join(map(_point, some)) if len(some) <= NAMED else f"{len(some)} more checkpoints"
    if not limit:
        return f"Likewise some of the replies of {names}."
    return f"Likewise over {limit:.0%} of the replies of {names}."


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _unpinned(task: TaskInfo) -> list[str]:
    """A judge from the hub without a revision is another judge when its authors change it."""
    models = [member.get("model") for member in _members(task.judge)]
    return [
        f"{task.name}: the judge {model['id']} is not pinned; name its `revision`, so that later "
        "figures are by the same judge."
        for model in models
        if isinstance(model, Mapping) and "id" in model and not model.get("revision")
    ]


def _members(judge: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The judges of an ensemble, or the judge itself."""
    members = judge.get("members")
    if not isinstance(members, Sequence):
        return [judge]
    return [member for member in members if isinstance(member, Mapping)]


def _point(place: Cell | Measured) -> str:
    return f"{place.arm} at step {place.step}" if place.step else place.arm
