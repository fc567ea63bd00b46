"""Tasks that were learned one after the other: a matrix for each arm, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from holdfast.analysis.lookup import find
from holdfast.analysis.results import Results, Share, TaskInfo, Transfer
from holdfast.analysis.transfer import MEASURES
from holdfast.report import language
from holdfast.report.figures import Figure, figure
from holdfast.report.language import Said
from holdfast.report.words import (
    NONE,
    UNMEASURED,
    Difference,
    difference,
    interval,
    percent,
    points,
)
from holdfast.types import BASE


@dataclass(frozen=True, slots=True)
class Row:
    """Every task after one stage.

    Attributes:
        when: ``before``, or ``after 2: code``.
        figures: one for each task; None where it was not measured.
        own: the place of the task that was just learned; None before the first.
        since: after the last stage, by place: what became of an earlier task since it was learned.
    """

    when: Said
    figures: tuple[Figure | None, ...]
    own: int | None
    since: Mapping[int, Difference] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Matrix:
    """One arm after every stage that it was measured after."""

    arm: str
    rows: tuple[Row, ...]


def columns(results: Results) -> list[TaskInfo]:
    """The tasks of the matrices: those that were learned, in that order, then the others."""
    tasks = {task.name: task for task in results.tasks}
    order = [one.task for one in results.learned if one.task in tasks]
    return [tasks.pop(name) for name in order] + [*tasks.values()]


def matrices(results: Results) -> list[Matrix]:
    """Every arm's figures, a row for each stage and a column for each task; none without stages."""
    found = []
    for one in results.transfer:
        rows = list(_rows(results, one))
        if len(rows) > 1:
            found.append(Matrix(one.arm, tuple(rows)))
    return found


def _rows(results: Results, one: Transfer) -> Iterator[Row]:
    speech, tasks = language.of(results), columns(results)
    names = [task.name for task in tasks]
    yield Row(speech.say("stages.before"), _figures(results, tasks, BASE, 0, 1.0), None)
    for number, of in enumerate(results.learned, 1):
        figures = _figures(results, tasks, one.arm, of.step, one.scale)
        if any(figures):
            when = speech.say("stages.after", number=number, task=of.task)
            last = number == len(results.learned)
            yield Row(when, figures, names.index(of.task), _since(one, tasks) if last else {})


def _since(one: Transfer, tasks: list[TaskInfo]) -> dict[int, Difference]:
    changes = {
        place: difference(one.since.get(task.name), task) for place, task in enumerate(tasks)
    }
    return {place: change for place, change in changes.items() if change is not None}


def _figures(
    results: Results, tasks: list[TaskInfo], arm: str, step: int, scale: float
) -> tuple[Figure | None, ...]:
    cells = [find(results, arm, step, task.name, scale) for task in tasks]
    return tuple(
        figure(cell.score, task, cell.diff) if cell else None
        for cell, task in zip(cells, tasks, strict=True)
    )


def texts(row: Row) -> list[tuple[str, str]]:
    """Each figure with its interval, and what became of the task since it was learned."""
    found = []
    for place, one in enumerate(row.figures):
        parts = [one.text, one.interval, f"({one.unscored})" * bool(one.unscored)] if one else []
        change = row.since.get(place)
        more = f"{change.arrow} {change.points} {change.interval}".rstrip() if change else ""
        found.append((" ".join(filter(None, parts)) or UNMEASURED, more))
    return found


def measures(results: Results) -> list[tuple[str, tuple[str, ...]]]:
    """Every arm with its `MEASURES` as texts: a share in percent, differences in points."""
    return [
        (one.arm, (_share(one.average), *(_points(getattr(one, name)) for name in MEASURES[1:])))
        for one in results.transfer
    ]


def _share(share: Share | None) -> str:
    return NONE if share is None else f"{percent(share.mean)} {interval(share)}".strip()


def _points(share: Share | None) -> str:
    return NONE if share is None else points(share)
