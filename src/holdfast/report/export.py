"""A report's charts and figures as files: SVG, CSV, and LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.analysis.lookup import final, group_names
from holdfast.analysis.results import Results, TaskInfo
from holdfast.errors import printable
from holdfast.report import stage_texts, tables, words
from holdfast.report.charts.marks import Chart
from holdfast.report.html import pictures, trade_off
from holdfast.report.language import Said
from holdfast.runs.store import write_text

COLOURS = {
    "paper": "#ffffff", "ink": "#1a1f24", "soft": "#59636d", "rule": "#dcdfdc", "hair": "#eaece8",
}  # fmt: skip
TONES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b3a100")
"""The page's light palette (Okabe-Ito), written out: not every reader of SVG knows variables."""
MARKS = ("*", "square*", "triangle*", "pentagon*", "diamond*", "otimes*")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for a formula."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Every chart of a report, drawn once for the page and for the files beside it."""

    views: list[trade_off.View]
    courses: list[tuple[TaskInfo, list[Chart]]]
    grouped: list[tuple[TaskInfo, list[Chart]]]
    doses: list[pictures.DosePicture]
    loss: list[Chart]
    meters: list[tuple[Said, list[Chart]]]

    @property
    def charts(self) -> list[Chart]:
        """All of them, in the order of the page."""
        found = [view.wide for view in self.views]
        found += [chart for _, some in (*self.courses, *self.grouped) for chart in some]
        found += [one.chart for one in self.doses if one.chart]
        return [*found, *self.loss, *(chart for _, some in self.meters for chart in some)]


def draw(results: Results) -> Drawn:
    """The charts of these results."""
    grouped = [task for task in results.tasks if group_names(results, task.name)]
    stepped = any(cell.step for cell in results.cells)
    return Drawn(
        trade_off.views(results),
        pictures.courses(results) if stepped else [],
        [(task, pictures.group_dots(results, task)) for task in grouped],
        pictures.doses(results),
        pictures.loss(results),
        pictures.meters(results),
    )


def chart_files(drawn: Drawn, style: str) -> dict[str, str]:
    """Every chart as SVG and its data as CSV, by path.

    Args:
        drawn: the charts.
        style: the page's style rules for charts.
    """
    found: dict[str, str] = {}
    for chart in drawn.charts:
        name, number = _file_name(chart.name), 1
        while f"charts/{name}.svg" in found:
            number += 1
            name = f"{_file_name(chart.name)}-{number}"
        found[f"charts/{name}.svg"] = _alone(chart.svg, style)
        found[f"charts/{name}.csv"] = _csv(chart.head, chart.rows)
    return found


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write files by their paths below a folder, each atomically, in the order given.

    Raises:
        OSError: the folder cannot be written.
    """
    for name, text in files.items():
        # A model may write half of a surrogate pair, which UTF-8 cannot hold; spell it out.
        write_text(folder / name, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def figures_csv(results: Results) -> str:
    """All figures, a row per arm, step, scale and task; the columns are those of `Results.rows`."""
    rows = results.rows()
    return _csv(tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows])


def stage_files(results: Results) -> dict[str, str]:
    """Every arm's figures after every stage, by path; none where one task was learned."""
    if not results.learned:
        return {}
    return {"stages.csv": _csv(stage_texts.HEAD, stage_texts.numbers(results))}


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:80] or "chart"


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    """A value that a spreadsheet shows and does not carry out."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def _alone(svg: str, style: str) -> str:
    """A chart that needs no page around it."""
    rules = re.sub(r"fill:color-mix\([^;]*;", "", style)
    for name, colour in COLOURS.items():
        rules = rules.replace(f"var(--{name})", colour)
    rules = rules.replace("var(--c)", "currentColor").replace("var(--sans)", "sans-serif")
    tones = "".join(f".c{n}{{color:{colour}}}" for n, colour in enumerate(TONES))
    rules = f".cb{{color:{COLOURS['ink']}}}{tones}{rules}"
    return (
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
            ">", f"><style>{rules}</style>", 1
        )
        + "\n"
    )


TEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "\u2212": "$-$", "\u202f": r"\,", "\u00d7": r"$\times$", "\u03bb": r"$\lambda$",
    "\u2019": "'", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
})  # fmt: skip
NEEDS = "% Needs \\usepackage{booktabs}; text in other scripts needs XeLaTeX or LuaLaTeX.\n"
BESIDE = 3
"""Tasks beside each other in a table; the others are below."""
DRAWS = "% Needs \\usepackage{pgfplots} and \\pgfplotsset{compat=1.16}.\n"


def paper_files(results: Results, drawn: Drawn) -> dict[str, str]:
    """Tables and figures for a paper in LaTeX, by path, to be taken in with `input`."""
    found = {"paper/final.tex": NEEDS + _finals(results)}
    if flipped := tables.flipped(results):
        found["paper/flips.tex"] = NEEDS + "\n".join(_flips(one) for one in flipped)
    if drawn.views:
        found["paper/trade-off.tex"] = DRAWS + _trade_off(drawn.views[0])
    for task, charts in drawn.courses:
        rows = [row for chart in charts for row in chart.rows]
        if rows:
            found[f"paper/course-{_file_name(task.name)}.tex"] = DRAWS + _course(task, rows)
    return found


def _tex(text: object) -> str:
    return printable(str(text)).translate(TEX)


def _tabular(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", "\\toprule"]
    lines += [" & ".join(map(_tex, head)) + r" \\", "\\midrule"]
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _finals(results: Results) -> str:
    """Arms by tasks: the share in percent with its interval, and its difference to base."""
    rows = []
    for arm in results.arms:
        cells = [final(results, arm.name, task.name) for task in results.tasks]
        texts = []
        for cell, task in zip(cells, results.tasks, strict=True):
            score = words.shown(cell.score, task) if cell else None
            text = words.NONE
            if score:
                text = f"{words.amount(score.mean, task)} {words.interval(score, task)}"
            change = words.difference(cell.diff if cell else None, task)
            texts += [text.strip(), f"{change.points} {change.interval}" if change else words.NONE]
        rows.append([arm.name, *texts])
    head = ["Arm", *(name for task in results.tasks for name in (task.name, "change"))]
    beside = 2 * BESIDE
    blocks = [
        _tabular(
            [head[0], *head[at : at + beside]], [[row[0], *row[at : at + beside]] for row in rows]
        )
        for at in range(1, len(head), beside)
    ]
    return "\n\\medskip\n\n".join(blocks).replace(words.NONE, "---")


def _flips(one: tables.Flipped) -> str:
    rows = [
        (arm.name, str(f.lost), str(f.won), str(f.n), words.probability(f.p_holm))
        for arm, f, _ in one.rows
    ]
    found = _tabular(["Arm", "Lost", "Won", "Items", "p (Holm)"], rows)
    title = f"\\multicolumn{{5}}{{l}}{{\\textit{{{_tex(one.task.name)}}}}} \\\\"
    return found.replace("\\toprule", f"\\toprule\n{title}", 1) + "\n"


def _trade_off(view: trade_off.View) -> str:
    """Every arm's points, the last with its intervals."""
    by_arm: dict[str, list[tuple[object, ...]]] = {}
    for row in view.wide.rows:
        by_arm.setdefault(str(row[0]), []).append(row)
    plots = []
    for number, (arm, rows) in enumerate(by_arm.items()):
        spots = [(row[2], row[5], _arms_of(row, 2), _arms_of(row, 5)) for row in rows]
        plots.append(_plot(number, arm, spots))
    return _axis(plots, _tex(view.x_title.en), "target", only=len(by_arm))


def _course(task: TaskInfo, rows: Sequence[Sequence[object]]) -> str:
    by_arm: dict[str, list[Sequence[object]]] = {}
    for row in rows:
        by_arm.setdefault(str(row[0]), []).append(row)
    plots = []
    for number, (arm, some) in enumerate(by_arm.items()):
        # a path starts at base's own point, whose interval is drawn once
        spots = [(row[1], row[2], (0.0, 0.0), _arms_of(row, 2) if row[1] or not number else
                  (0.0, 0.0)) for row in some]  # fmt: skip
        plots.append(_plot(number, arm, spots))
    drawn = _axis(plots, "training step", _tex(task.name), only=len(by_arm))
    return f"% {_tex(task.name)}: {_tex(task.label)}\n{drawn}"


Spot = tuple[object, object, tuple[float, float], tuple[float, float]]


def _arms_of(row: Sequence[object], at: int) -> tuple[float, float]:
    """How far an interval reaches below and above its value."""
    value, low, high = row[at : at + 3]
    numbers = (value, low, high)
    if not all(isinstance(one, int | float) for one in numbers):
        return 0.0, 0.0
    middle, below, above = (float(str(one)) for one in numbers)
    return middle - below, above - middle


def _plot(number: int, arm: str, spots: Sequence[Spot]) -> str:
    lines = [
        f"\\addplot+[color=holdfast{number % len(TONES)}, mark={MARKS[number % len(MARKS)]},"
        " mark options={fill=.}, error bars/.cd, x dir=both, x explicit, y dir=both, y explicit]"
        " coordinates {"
    ]
    for x, y, (left, right), (down, up) in spots:
        lines.append(f"  ({x}, {y}) += ({right:.6f}, {up:.6f}) -= ({left:.6f}, {down:.6f})")
    return "\n".join([*lines, "};", f"\\addlegendentry{{{_tex(arm)}}}"])


def _axis(plots: Sequence[str], across: str, upward: str, only: int) -> str:
    colours = [
        f"\\definecolor{{holdfast{n}}}{{HTML}}{{{colour[1:].upper()}}}"
        for n, colour in enumerate(TONES[:only])
    ]
    return "\n".join([
        *colours, "\\begin{tikzpicture}",
        f"\\begin{{axis}}[xlabel={{{across}}}, ylabel={{{upward}}}, legend pos=outer north east]",
        *plots, "\\end{axis}", "\\end{tikzpicture}", "",
    ])  # fmt: skip
