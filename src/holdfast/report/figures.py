"""Figures ready to print, alone and as the tables that the page and the markdown share."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.lookup import final, find, group_names, scales_of, steps_of
from holdfast.analysis.results import ArmInfo, Results, Share, TaskInfo
from holdfast.report import words
from holdfast.types import BASE


@dataclass(frozen=True, slots=True)
class Figure:
    """A share ready to print: text, interval, what was unscored, and where its bar lies."""

    text: str
    interval: str
    unscored: str
    n: int
    mean: float | None  # as shown, in percent, for the bar
    low: float | None
    high: float | None
    diff: words.Difference | None = None
    missing: int = 0

    @property
    def asked(self) -> int:
        """Items that were asked, scored or not."""
        return self.n + self.missing


def figure(share: Share | None, task: TaskInfo, diff: Share | None = None) -> Figure | None:
    """A share, and its difference to base, the way round in which the task is shown."""
    if share is None:
        return None
    turned = words.shown(share, task)
    mean, low, high = (
        None if v is None or task.unit else 100 * v  # a measure has no bar from 0 to 100 %
        for v in (turned.mean, turned.low, turned.high)
    )
    return Figure(
        words.amount(turned.mean, task),
        words.interval(turned, task),
        words.unscored(turned),
        turned.n,
        mean,
        low,
        high,
        words.difference(diff, task),
        turned.unscored,
    )


def finals(results: Results) -> list[tuple[ArmInfo, int, float, list[Figure | None]]]:
    """Every arm at its last checkpoint, with its scale and a figure per task."""
    rows = []
    for arm in results.arms:
        cells = [final(results, arm.name, task.name) for task in results.tasks]
        figures = [
            figure(cell.score, task, cell.diff) if cell else None
            for cell, task in zip(cells, results.tasks, strict=True)
        ]
        rows.append((arm, *results.final_point(arm.name), figures))
    return rows


def before(results: Results, task: TaskInfo) -> Figure | None:
    """The untouched model's figure."""
    cell = find(results, BASE, 0, task.name)
    return figure(cell.score, task) if cell else None


def along(
    results: Results, task: TaskInfo
) -> tuple[list[int], list[tuple[ArmInfo, list[Figure | None]]]]:
    """The steps, and for each arm its figures at them: the chart as a table."""
    steps = sorted(
        {step for arm in results.arms for step in steps_of(results, arm.name, task.name)}
    )
    rows = []
    for arm in results.arms:
        cells = [find(results, arm.name, step, task.name) for step in steps]
        rows.append((arm, [figure(cell.score, task) if cell else None for cell in cells]))
    return steps, rows


def groups(results: Results, task: TaskInfo) -> list[tuple[str, list[tuple[ArmInfo, Figure]]]]:
    """For each group the final figure of every arm that has it."""
    blocks = []
    for name in group_names(results, task.name):
        rows = []
        for arm in results.arms:
            cell = final(results, arm.name, task.name)
            found = figure(cell.groups.get(name), task) if cell else None
            if found:
                rows.append((arm, found))
        blocks.append((name, rows))
    return blocks


def scaled(results: Results) -> list[tuple[ArmInfo, int, float, list[Figure | None]]]:
    """Arm, step and share of every point at which only a part of the change was applied."""
    rows = []
    for arm in results.arms:
        for step, scales in scales_of(results, arm.name).items():
            for scale in scales:
                cells = [find(results, arm.name, step, t.name, scale) for t in results.tasks]
                found = [
                    figure(cell.score, task, cell.diff) if cell else None
                    for cell, task in zip(cells, results.tasks, strict=True)
                ]
                rows.append((arm, step, scale, found))
    return rows
