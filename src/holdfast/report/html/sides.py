"""Which items changed sides, and does forgetting grow with the gain?"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.lookup import BASE, final, retained, targets
from holdfast.analysis.results import ArmInfo, Cell, Dose, Flips, Results, TaskInfo
from holdfast.report import charts, sentences, words
from holdfast.report.html.figures import looks, tip


@dataclass(frozen=True, slots=True)
class Flipped:
    """Items of one retained task that changed sides, an arm a row."""

    task: TaskInfo
    rows: tuple[tuple[ArmInfo, Flips, str], ...]  # arm, its flips, the share kept in words
    groups: tuple[tuple[str, tuple[Flips | None, ...]], ...]  # a group, and its flips of every row
    top: int  # most items that went one way, for the bars


@dataclass(frozen=True, slots=True)
class Response:
    """Gain against loss on one retained task."""

    task: TaskInfo
    sentence: str
    chart: str
    rows: tuple[tuple[charts.Look, Dose], ...]  # of single families


def flipped(results: Results) -> list[Flipped]:
    """Every retained task of which the flips are known."""
    found = []
    for task in retained(results):
        rows: list[tuple[ArmInfo, Flips, str]] = []
        cells: list[Cell] = []
        for arm in results.arms:
            cell = final(results, arm.name, task.name)
            if cell and cell.flips:
                rows.append((arm, cell.flips, kept(cell)))
                cells.append(cell)
        names = list(dict.fromkeys(name for cell in cells for name in cell.group_flips))
        groups = tuple((n, tuple(cell.group_flips.get(n) for cell in cells)) for n in names)
        if rows:
            top = max(max(one.lost, one.won) for _, one, _ in rows)
            found.append(Flipped(task, tuple(rows), groups, max(top, 1)))
    return found


def kept(cell: Cell) -> str:
    """The good share after training over the one before, as a percentage."""
    one = cell.retained_share
    return words.NONE if one is None else f"{words.percent(one.mean)} {words.interval(one)}".strip()


def responses(results: Results) -> list[Response]:
    """Every retained task of which the dose-response is known."""
    found = []
    for task in retained(results):
        mine = [one for one in results.dose if one.task == task.name]
        if mine:
            pooled = next((one for one in mine if not one.arm), None)
            sentence = sentences.dose(pooled) if pooled else ""
            rows = tuple((_look(results, one.arm), one) for one in mine if one.arm)
            found.append(Response(task, sentence, _chart(results, task, pooled), rows))
    return found


def _look(results: Results, family: str) -> charts.Look:
    """The look of a family's first arm."""
    own = looks(results)
    mine = [own[arm.name] for arm in results.arms if family in (arm.family, arm.name)]
    return mine[0] if mine else own[BASE]


def _chart(results: Results, task: TaskInfo, pooled: Dose | None) -> str:
    """Every checkpoint's gain against its loss, and the fit; empty if there is nothing."""
    aims = targets(results)
    if not aims:
        return ""
    gains = {
        (cell.arm, cell.step, cell.scale): cell.diff.mean
        for cell in results.cells
        if cell.task == aims[0].name and cell.diff
    }
    lines = []
    for name, look in looks(results).items():
        dots = []
        for cell in results.cells:
            gain = gains.get((cell.arm, cell.step, cell.scale))
            if (cell.arm, cell.task) != (name, task.name) or name == BASE or gain is None:
                continue
            if not cell.step or cell.diff is None or cell.diff.mean is None:
                continue  # dose and response are of training
            lost = -cell.diff.mean
            lines_told = [
                f"gained {words.signed(gain)} points on {aims[0].name}",
                f"lost {words.signed(lost)} points on {task.name}",
            ]
            last = results.last_step(name)
            told = tip(name, cell.step, last, lines_told, cell.scale)
            dots.append(charts.Dot(gain, lost, told))
        lines.append(charts.Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    label = f"What was lost on {task.name} against what was gained on {aims[0].name}, in points."
    return charts.scatter(lines, pooled.curve if pooled else (), label=label)
