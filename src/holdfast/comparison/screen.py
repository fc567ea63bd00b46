"""A comparison on one screen: what was lost, what was gained, how sure that is, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.analysis.lookup import final
from holdfast.analysis.results import Cell, Results, TaskInfo
from holdfast.analysis.selection import visible
from holdfast.analysis.selection.rule import change_text, span
from holdfast.comparison import suite
from holdfast.comparison.request import Request
from holdfast.comparison.verdict import ONE_TRAINING, SEEN
from holdfast.progress.language import wrapped
from holdfast.progress.translation import told
from holdfast.report.decision_words import headline
from holdfast.report.words import SIGNIFICANT

SURE, LIKELY = "sure", "likely, not sure"
SHOWN_ARMS, SHOWN_NOTES = 3, 6
STANDING = (SEEN, ONE_TRAINING)  # notes that every comparison has; they are in the report


def screen(
    results: Results, request: Request, folder: Path, width: int = 80, notes: int = SHOWN_NOTES
) -> list[str]:
    """The lines, none wider than the terminal.

    Args:
        results: of the comparison.
        request: what was asked.
        folder: of the run.
        width: of the terminal, in characters; the command at the end is never broken.
        notes: that are shown; the others are counted.
    """
    lines, arms = list[str](), [arm.name for arm in results.arms[1:]]
    for arm in arms[:SHOWN_ARMS]:
        measures = all(task.unit for task in results.tasks)
        lines += [
            f"{arm} against {results.model} [95 %]:" if measures else
            f"{arm} against {results.model}, in points of good answers [95 %]:"
        ]  # fmt: skip
        lines += [*_arm(results, arm), ""]
    more = len(arms) - SHOWN_ARMS
    lines += [f"{more} more models are in the report.", ""] if more > 0 else []
    lines += [*_sure(results), *_judges(results)]
    if results.decision is not None:
        lines += [f"Rule: {headline(results.decision)}. {results.decision.reason}"]
    first = [chosen.words(), *chosen.notes] if (chosen := suite.kept(folder)) else []
    said = [*first, *(one for one in results.warnings if one not in (*STANDING, *first))]
    lines += [f"Note: {one}" for one in said[:notes]]
    more = len(said) - notes
    lines += [f"{more} more notes are in the report."] if more > 0 else []
    why, command = _next(results, request, folder)
    folded = [part for line in lines for part in _folded(line, width)]
    return [*folded, f"Next, {why}:", f"  {command}"]  # never broken, so that it can be copied


def _judges(results: Results) -> list[str]:
    """Whose word the figures rest on, a line for each judge."""
    found: dict[str, list[str]] = {}
    for task in results.tasks:
        if who := task.label.partition("by judge ")[2].partition(";")[0]:
            found.setdefault(who, []).append(task.name)
    return [f"{', '.join(names)}: by judge {who}" for who, names in found.items()]


def _folded(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return wrapped(told(line), max(40, width), indent)


def _arm(results: Results, arm: str) -> Iterator[str]:
    """Lost, gained, without a clear change, unscored."""
    cells = [(task, final(results, arm, task.name)) for task in results.tasks]
    measured = [(task, cell) for task, cell in cells if cell is not None]
    wide = max((len(task.name) for task, _ in measured), default=0)
    for word, way in (("lost", "worse"), ("gained", "better")):
        for task, cell in measured:
            if cell.diff is not None and cell.diff.mean is not None and cell.diff.direction == way:
                sure = SURE if _is_sure(cell) else LIKELY
                yield f"  {word:<8} {task.name:<{wide}}  {_change(task, cell)}  {sure}"
    same = [(t, c) for t, c in measured if c.diff is not None and c.diff.mean is not None
            and c.diff.direction == "no clear change"]  # fmt: skip
    for task, cell in same:
        yield f"  {'open':<8} {task.name:<{wide}}  {_change(task, cell)}  {_blind_below(cell)}"
    for task, cell in measured:
        if cell.diff is None or cell.diff.mean is None:
            yield f"  {'unscored':<8} {task.name:<{wide}}  {cell.score.unscored} replies"


def _is_sure(cell: Cell) -> bool:
    return cell.p_holm is not None and cell.p_holm < SIGNIFICANT


def _change(task: TaskInfo, cell: Cell) -> str:
    assert cell.diff is not None
    change = change_text(cell.diff.mean or 0.0, task.unit)
    ends = span(cell.diff.low, cell.diff.high, task.unit)
    return f"{change:>6} {ends:<15}" + (f" {task.unit}" if task.unit else "")


def _blind_below(cell: Cell) -> str:
    """The smallest loss that would have been seen."""
    if cell.flips is None:
        return ""
    loss = visible.of_flips(cell.flips.lost, cell.flips.won, cell.flips.n)
    return "too few items" if loss is None else f"sees {100 * loss:.0f} and more"


def _sure(results: Results) -> list[str]:
    """What the words mean; only those that are there."""
    found = []
    cells = [cell for arm in results.arms[1:] for task in results.tasks
             if (cell := final(results, arm.name, task.name)) and cell.diff]  # fmt: skip
    clear = [c for c in cells if c.diff is not None and c.diff.direction != "no clear change"]
    if any(map(_is_sure, clear)):
        found.append("sure: also after correction for the number of tasks and models.")
    if not all(map(_is_sure, clear)):
        found.append("likely: one such finding in twenty is chance.")
    if len(clear) < len(cells):
        found.append("open: no clear change; a true loss so large is seen in 8 of 10 cases.")
    return found


def _next(results: Results, request: Request, folder: Path) -> tuple[str, str]:
    """What to do now, and the command that does it."""
    place = shlex.quote(str(folder))
    if _named(results, "worse"):
        return "to read what was lost", f"holdfast report {place} --replies 20"
    if any(not task.unit for task in _named(results, "no clear change")):
        return "to see how many items would decide", f"holdfast power {place}"
    models = " ".join(shlex.quote(one) for one in request.models)
    files = " --replies" if request.replies else ""
    asked = f" --tasks {','.join(request.tasks)}" if request.tasks else ""
    given = [("study", request.study), ("limit", request.limit), ("data", request.data)]
    given += [("set", one) for one in request.settings]
    more = "".join(f" --{key} {shlex.quote(str(one))}" for key, one in given if one is not None)
    task = results.tasks[0].name
    again = f"holdfast compare{files} {models}{asked}{more} --retain {task}=-0.02"
    return "to name what must be kept", again


def _named(results: Results, way: str) -> Sequence[TaskInfo]:
    """Tasks on which some model changed so."""
    return [
        task
        for task in results.tasks
        for arm in results.arms[1:]
        if (cell := final(results, arm.name, task.name)) is not None
        and cell.diff is not None
        and cell.diff.mean is not None
        and cell.diff.direction == way
    ]
