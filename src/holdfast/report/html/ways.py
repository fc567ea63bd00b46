"""How do the very same replies score under every way of reading them?

A grader's way of finding the answer can move a score by tens of points, so a task that knows more
than one has all of them shown beside the one that the study counts by.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.lookup import final
from holdfast.analysis.results import ArmInfo, Results, TaskInfo
from holdfast.report import words
from holdfast.report.html import figures

COUNTS = {2: "two", 3: "three", 4: "four"}
EXPLAINED = (
    "The final checkpoint of each arm. Nothing was asked again: the same replies, and the answer "
    "looked for in other ways. Spread: the largest less the smallest share, in percentage points. "
    "Figures of others are comparable only where they read the same way."
)


@dataclass(frozen=True, slots=True)
class Ways:
    """One task's replies under every way of reading: a row per arm, a figure per way."""

    task: TaskInfo
    title: str
    names: tuple[str, ...]
    rows: tuple[tuple[ArmInfo, tuple[figures.Figure | None, ...], str], ...]


def ways(results: Results) -> list[Ways]:
    """Every task that knows more ways than one, in the study's order."""
    found = []
    for task in results.tasks:
        cells = [(arm, final(results, arm.name, task.name)) for arm in results.arms]
        names = tuple(dict.fromkeys(way for _, cell in cells if cell for way in cell.read_as))
        if len(names) < 2:
            continue
        rows = []
        for arm, cell in cells:
            if cell is None:
                continue
            shares = [cell.read_as.get(name) for name in names]
            means = [one.mean for one in shares if one is not None and one.mean is not None]
            spread = f"{100 * (max(means) - min(means)):.1f}" if means else words.NONE
            rows.append((arm, tuple(figures.figure(one, task) for one in shares), spread))
        title = f"The same replies, {COUNTS.get(len(names), len(names))} readings"
        found.append(Ways(task, title, names, tuple(rows)))
    return found
