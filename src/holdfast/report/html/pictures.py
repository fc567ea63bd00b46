"""The page's small charts: tasks, loss and drift meters over training steps, gain against loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.analysis.lookup import (
    find,
    gains_and_losses,
    meter_course,
    steps_of,
    targets,
)
from holdfast.analysis.results import Cell, Dose, Meter, Results, TaskInfo
from holdfast.report import words
from holdfast.report.charts.marks import BASE as BASE_LOOK
from holdfast.report.charts.marks import Dot, Line, Look
from holdfast.report.charts.marks import looks as choose_looks
from holdfast.report.charts.plots import course as draw_course
from holdfast.report.charts.plots import scatter
from holdfast.report.figures import figure
from holdfast.report.tables import responses
from holdfast.types import BASE

METERS = (("KL, base against tuned", "kl"), ("Cross-entropy on base’s answers", "cross_entropy"))


def looks(results: Results) -> dict[str, Look]:
    """Each arm's colour and shape, everywhere the same."""
    trained = [arm for arm in results.arms if arm.name != BASE]
    found = choose_looks([arm.family or arm.name for arm in trained])
    return {BASE: BASE_LOOK} | {arm.name: one for arm, one in zip(trained, found, strict=True)}


def tip(arm: str, step: int, last: int, lines: Sequence[str], scale: float = 1.0) -> str:
    """What a tooltip says of one measured point."""
    when = f"step {step} (final)" if step == last else f"step {step}"
    if not step:
        when = "before training" if arm == BASE else "not trained here"
    part = f", {words.factor(scale)}" if scale != 1 else ""
    return "\n".join([f"{arm}, {when}{part}", *lines])


def line_of(cell: Cell, task: TaskInfo) -> str:
    """A tooltip's line on one task."""
    found = figure(cell.score, task)
    if found is None:
        return ""
    extra = f", {found.unscored}" if found.unscored else ""
    return f"{task.name}, {task.label}:\n    {found.text} {found.interval}, n = {found.n:,}{extra}"


def course(results: Results, task: TaskInfo) -> str:
    """The task's figure over training steps; empty if nothing could be scored."""
    lines = []
    for name, look in _arms(results):
        last, dots = results.last_step(name), []
        steps = steps_of(results, name, task.name)
        start = [(BASE, 0)] if steps and name != BASE else []
        for owner, step in [*start, *((name, step) for step in steps)]:
            cell = find(results, owner, step, task.name)
            score = words.shown(cell.score, task.inverted) if cell else None
            if cell and score and score.mean is not None:
                span = None if score.low is None or score.high is None else (score.low, score.high)
                told = tip(owner, step, last, [line_of(cell, task)])
                dots.append(Dot(step, score.mean, told, None, span))
        lines.append(Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    label = f"{task.name}, {task.label}, over training steps; the figures follow as a table."
    return draw_course(lines, percent=True, label=label)


def loss(results: Results) -> str:
    """Training loss over steps; empty if there is none."""
    lines = []
    for name, look in _arms(results):
        losses = next(arm.loss for arm in results.arms if arm.name == name)
        dots = [Dot(s, v, f"{name}, step {s}\nloss {v:.3f}") for s, v in losses if v == v]
        lines.append(Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    return draw_course(lines, percent=False, label="Training loss over steps, per arm.")


def meters(results: Results) -> list[tuple[str, str, str]]:
    """The drift meters over training steps: title, unit and chart; empty if none were read."""
    if not results.meters:
        return []
    drawn = []
    for title, meter in METERS:
        lines = []
        for name, look in _arms(results):
            mine = [reading for reading in results.meters if reading.arm == name]
            lines.append(Line(name, look, tuple(_readings(name, mine, title, meter))))
        label = f"{title}, over training steps, per arm."
        drawn.append((title, "nats per token", draw_course(lines, percent=False, label=label)))
    return drawn


def _readings(arm: str, readings: Sequence[Meter], title: str, meter: str) -> list[Dot]:
    """Means over seeds by step, with the range of the seeds."""
    dots = []
    for point in meter_course(readings, meter):
        ends = point.ends
        seeds = f", seeds from {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        told = f"{arm}, step {point.step}\n{title}: {point.mean:.3f} nats per token{seeds}"
        dots.append(Dot(point.step, point.mean, told, None, ends))
    return dots


def _arms(results: Results) -> list[tuple[str, Look]]:
    own = looks(results)
    return [(arm.name, own[arm.name]) for arm in results.arms]


@dataclass(frozen=True, slots=True)
class DosePicture:
    """Gain against loss on one retained task, drawn and arm by arm."""

    task: TaskInfo
    sentence: str
    chart: str
    rows: tuple[tuple[Look, Dose], ...]  # of single families


def doses(results: Results) -> list[DosePicture]:
    """Every retained task of which the dose-response is known."""
    return [
        DosePicture(
            response.task,
            response.sentence,
            _chart(results, response.task, response.curve),
            tuple((_look(results, dose.arm), dose) for dose in response.rows),
        )
        for response in responses(results)
    ]


def _look(results: Results, family: str) -> Look:
    """The look of a family's first arm."""
    own = looks(results)
    mine = [own[arm.name] for arm in results.arms if family in (arm.family, arm.name)]
    return mine[0] if mine else own[BASE]


def _chart(results: Results, task: TaskInfo, fit: Sequence[tuple[float, float]]) -> str:
    """Every checkpoint's gain against its loss, and the fit; empty if there is nothing."""
    aims = targets(results)
    if not aims:
        return ""
    target, lines = aims[0].name, []
    for name, look in looks(results).items():
        last, dots = results.last_step(name), []
        for point in gains_and_losses(results, name, target, task.name):
            told = [
                f"gained {words.signed(point.gain)} points on {target}",
                f"lost {words.signed(point.loss)} points on {task.name}",
            ]
            said = tip(name, point.step, last, told, point.scale)
            dots.append(Dot(point.gain, point.loss, said))
        lines.append(Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    label = f"What was lost on {task.name} against what was gained on {target}, in points."
    return scatter(lines, fit, label=label)
