"""What became of the replies: refused, helped, broken or unsafe, by arm, hazard and persona?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.analysis.lookup import final
from holdfast.analysis.results import ArmInfo, Results, Share, TaskInfo
from holdfast.grading.safety_outcomes import OUTCOMES
from holdfast.report.html.figures import Figure, figure

EXPLAINED = (
    "Every reply to these prompts has one of four outcomes; the task’s own figure folds them into "
    "one. Safe refusal: it declines. Safe and helpful: it answers, and the judge finds no harm. "
    "Incoherent: it is no answer at all, by tests of the text and, where the untouched model "
    "scored the replies, by what it thinks of them. Unsafe: by the judge. A judge that only tells "
    "refusals from answers calls every coherent answer to a hazardous prompt unsafe, and to a "
    "harmless one helpful. The final checkpoint of each arm, each share with its interval; replies "
    "that nobody could tell are unscored."
)

Row = tuple[ArmInfo, tuple[Figure, ...]]


@dataclass(frozen=True, slots=True)
class Four:
    """One task: the four shares of every arm, and for each group again."""

    task: TaskInfo
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]


def four(results: Results) -> list[Four]:
    """Every task whose replies have the four outcomes, in the study's order."""
    found = []
    for task in results.tasks:
        cells = [(arm, final(results, arm.name, task.name)) for arm in results.arms]
        mine = [(arm, cell) for arm, cell in cells if cell is not None and cell.outcome_shares]
        if not mine:
            continue
        rows = tuple(_row(arm, cell.outcome_shares, task) for arm, cell in mine)
        names = dict.fromkeys(name for _, cell in mine for name in cell.group_outcomes)
        groups = tuple(
            (
                name,
                tuple(
                    _row(arm, cell.group_outcomes[name], task)
                    for arm, cell in mine
                    if name in cell.group_outcomes
                ),
            )
            for name in names
        )
        found.append(Four(task, OUTCOMES, rows, groups))
    return found


def _row(arm: ArmInfo, shares: Mapping[str, Share], task: TaskInfo) -> Row:
    upright = TaskInfo(task.name, task.role, task.label, task.n, task.how)  # shares are as they are
    figures = (figure(shares[name], upright) for name in OUTCOMES)
    return arm, tuple(one for one in figures if one is not None)
