"""How do the results of a study become one page that needs nothing but itself?

The page is one file: style, script and charts are inside, nothing is fetched, and a content
security policy forbids it to. Every text goes through Jinja's autoescape or `charts`' own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from holdfast.report import charts, markdown
from holdfast.report.results import ArmInfo, Cell, Results, Share, TaskInfo

GLANCE = ("date", "device", "engine")  # conditions that stand under the title already


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
    diff: markdown.Difference | None = None


@dataclass(frozen=True, slots=True)
class View:
    """One picture of the trade-off: what counts as kept, drawn for two widths."""

    name: str
    x_title: str
    note: str
    wide: str
    narrow: str


def render(results: Results) -> str:
    """The page.

    Args:
        results: what the study found.

    Returns:
        HTML that is complete in itself.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("holdfast.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    against = markdown.reference(results)
    page = environment.get_template("report.html.j2").render(
        results=results,
        numbers=_numbers(results),
        glance=[v for k, v in results.conditions.items() if k.lower() in GLANCE],
        swatch=charts.swatch,
        tone=charts.tone,
        views=_views(results),
        targets=[task for task in results.tasks if task.role == "target"],
        finals=_finals(results),
        before={task.name: _before(results, task) for task in results.tasks},
        panels=[(task, _course(results, task), _along(results, task)) for task in results.tasks],
        grouped=[(t, _groups(results, t)) for t in results.tasks if _grouped(results, t)],
        budget=markdown.budget(results),
        against=against,
        ratios={arm.name: markdown.ratio(arm, against) for arm in results.arms},
        duration=markdown.duration,
        loss=_loss(results),
        statistics=markdown.STATISTICS,
        replies=_replies(results),
    )
    # The only script that may run is the one in the template; model output could not, escaped or
    # not. The first mention of the mark is the policy's own.
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("SCRIPT-DIGEST", f"sha256-{digest}", 1)


def _numbers(results: Results) -> dict[str, int]:
    """Each arm's place, which decides its colour and shape everywhere; -1 is base."""
    trained = [arm.name for arm in results.arms if arm.name != markdown.BASE]
    return {markdown.BASE: -1, **{name: number for number, name in enumerate(trained)}}


def _figure(share: Share | None, task: TaskInfo, diff: Share | None = None) -> Figure | None:
    if share is None:
        return None
    one = markdown.shown(share, task.inverted)
    mean, low, high = (None if v is None else 100 * v for v in (one.mean, one.low, one.high))
    return Figure(
        markdown.percent(one.mean),
        markdown.interval(one),
        markdown.unscored(one),
        one.n,
        mean,
        low,
        high,
        markdown.difference(diff, task.inverted),
    )


def _finals(results: Results) -> list[tuple[ArmInfo, int, list[Figure | None]]]:
    rows = []
    for arm in results.arms:
        step = results.last_step(arm.name)
        cells = [markdown.find(results, arm.name, step, task.name) for task in results.tasks]
        figures = [
            _figure(cell.score, task, cell.diff) if cell else None
            for cell, task in zip(cells, results.tasks, strict=True)
        ]
        rows.append((arm, step, figures))
    return rows


def _before(results: Results, task: TaskInfo) -> Figure | None:
    cell = markdown.find(results, markdown.BASE, 0, task.name)
    return _figure(cell.score, task) if cell else None


def _along(results: Results, task: TaskInfo) -> tuple[list[int], list[Any]]:
    """The steps, and for each arm its figures at them: the chart as a table."""
    steps = sorted({cell.step for cell in results.cells if cell.task == task.name})
    rows = []
    for arm in results.arms:
        cells = [markdown.find(results, arm.name, step, task.name) for step in steps]
        rows.append((arm, [_figure(cell.score, task) if cell else None for cell in cells]))
    return steps, rows


def _grouped(results: Results, task: TaskInfo) -> bool:
    return bool(markdown.group_names(results, task.name))


def _groups(results: Results, task: TaskInfo) -> list[tuple[str, list[tuple[ArmInfo, Figure]]]]:
    """For each group the final figure of every arm that has it."""
    blocks = []
    for name in markdown.group_names(results, task.name):
        rows = []
        for arm in results.arms:
            cell = markdown.find(results, arm.name, results.last_step(arm.name), task.name)
            figure = _figure(cell.groups.get(name), task) if cell else None
            if figure:
                rows.append((arm, figure))
        blocks.append((name, rows))
    return blocks


def _tip(arm: str, step: int, last: int, lines: Sequence[str]) -> str:
    when = f"step {step} (final)" if step == last else f"step {step}"
    return "\n".join([f"{arm}, {when if step else 'before training'}", *lines])


def _line_of(cell: Cell, task: TaskInfo) -> str:
    one = _figure(cell.score, task)
    if one is None:
        return ""
    extra = f", {one.unscored}" if one.unscored else ""
    return f"{task.name}, {task.label}:\n    {one.text} {one.interval}, n = {one.n:,}{extra}"


def _course(results: Results, task: TaskInfo) -> str:
    """The task's figure over training steps."""
    lines = []
    for name, number in _arms_in_order(results):
        last, dots = results.last_step(name), []
        for owner, step in _path(name, markdown.steps_of(results, name, task.name)):
            cell = markdown.find(results, owner, step, task.name)
            one = markdown.shown(cell.score, task.inverted) if cell else None
            if cell and one and one.mean is not None:
                span = None if one.low is None or one.high is None else (one.low, one.high)
                tip = _tip(owner, step, last, [_line_of(cell, task)])
                dots.append(charts.Dot(step, one.mean, tip, None, span))
        lines.append(charts.Line(name, number, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    label = f"{task.name}, {task.label}, over training steps; the figures follow as a table."
    return charts.course(lines, percent=True, label=label)


def _path(arm: str, steps: Sequence[int]) -> list[tuple[str, int]]:
    """Where an arm's line goes through: base, then its checkpoints; nowhere if it has none."""
    start = [(markdown.BASE, 0)] if steps and arm != markdown.BASE else []
    return [*start, *((arm, step) for step in steps)]


def _arms_in_order(results: Results) -> list[tuple[str, int]]:
    numbers = _numbers(results)
    return [(arm.name, numbers[arm.name]) for arm in results.arms]


def _loss(results: Results) -> str:
    lines = []
    for name, number in _arms_in_order(results):
        losses = next(arm.loss for arm in results.arms if arm.name == name)
        dots = [charts.Dot(s, v, f"{name}, step {s}\nloss {v:.3f}") for s, v in losses if v == v]
        lines.append(charts.Line(name, number, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    return charts.course(lines, percent=False, label="Training loss over steps, per arm.")


def _views(results: Results) -> list[View]:
    """The trade-off pictures: the mean over what was to be kept first, then one task at a time."""
    targets = [task for task in results.tasks if task.role == "target"]
    retained = [task for task in results.tasks if task.role != "target"]
    choices = [(task.name, [task], _good_side(task)) for task in retained]
    if len(retained) > 1:
        told = "; ".join(f"{task.name}: {_good_side(task)}" for task in retained)
        choices.insert(0, (f"mean over {len(retained)} retained tasks", retained, told))
    views = []
    for name, kept, note in choices if targets else []:
        lines = _paths(results, targets, kept)
        if any(line.dots for line in lines):
            label = f"Target ability against what was kept ({name}), a path per arm from base."
            wide = charts.trade_off(lines, narrow=False, label=label)
            narrow = charts.trade_off(lines, narrow=True, label=label)
            views.append(View(name, f"kept: {name}", note, wide, narrow))
    return views


def _good_side(task: TaskInfo) -> str:
    """The label, said so that more is better."""
    return f"100\u202f% minus {task.label}" if task.inverted else task.label


def _paths(results: Results, targets: list[TaskInfo], kept: list[TaskInfo]) -> list[charts.Line]:
    lines = []
    for name, number in _arms_in_order(results):
        last, dots = results.last_step(name), []
        steps = {cell.step for cell in results.cells if cell.arm == name}
        for owner, step in _path(name, sorted(steps)):
            x = _mean_of(results, owner, step, kept)
            y = _mean_of(results, owner, step, targets)
            if x is None or y is None:
                continue
            told = [_line_of(cell, task) for cell, task in (*y[2], *x[2])]
            if len(kept) > 1:
                ends = f" [{100 * x[1][0]:.1f}, {100 * x[1][1]:.1f}]" if x[1] else ""
                told.append(f"kept, mean of {len(kept)}: {markdown.percent(x[0])}{ends}")
            dots.append(charts.Dot(x[0], y[0], _tip(owner, step, last, told), x[1], y[1]))
        lines.append(charts.Line(name, number, tuple(dots)))
    return lines


def _mean_of(
    results: Results, arm: str, step: int, tasks: list[TaskInfo]
) -> tuple[float, charts.Span | None, list[tuple[Cell, TaskInfo]]] | None:
    """Mean over tasks at one checkpoint, 1 is good; None unless every task was measured.

    The interval is the mean of the tasks' interval ends: right if the tasks' errors go
    together, too wide if they do not.
    """
    cells = [(markdown.find(results, arm, step, task.name), task) for task in tasks]
    whole = [(cell, task) for cell, task in cells if cell]
    means = [cell.score.mean for cell, _ in whole if cell.score.mean is not None]
    if len(means) < len(tasks):
        return None
    lows = [cell.score.low for cell, _ in whole if cell.score.low is not None]
    highs = [cell.score.high for cell, _ in whole if cell.score.high is not None]
    span = None
    if len(lows) == len(highs) == len(means):
        span = (sum(lows) / len(lows), sum(highs) / len(highs))
    return sum(means) / len(means), span, whole


def _replies(results: Results) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    """Replies by task, then by prompt, so that the arms' answers stand side by side."""
    tasks = []
    for task, some in groupby(sorted(results.replies, key=lambda r: r.task), lambda r: r.task):
        by_prompt: dict[str, list[Any]] = {}
        for reply in some:
            by_prompt.setdefault(reply.prompt, []).append(reply)
        tasks.append((task, list(by_prompt.items())))
    return tasks
