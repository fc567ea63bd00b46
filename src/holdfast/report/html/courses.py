"""What moves over training steps: the tasks' figures, the loss and the drift meters?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from holdfast.analysis.lookup import BASE, find, steps_of
from holdfast.analysis.results import Meter, Results, TaskInfo
from holdfast.report import charts
from holdfast.report.html.figures import line_of, looks, tip
from holdfast.report.words import NONE, shown


@dataclass(frozen=True, slots=True)
class Meters:
    """The drift meters, drawn and as a table of their last readings."""

    charts: tuple[tuple[str, str, str], ...]  # title, unit, picture
    rows: tuple[tuple[str, int, str, str, str], ...]  # arm, step, KL, cross-entropy, norm


def course(results: Results, task: TaskInfo) -> str:
    """The task's figure over training steps; empty if nothing could be scored."""
    lines = []
    for name, look in _arms(results):
        last, dots = results.last_step(name), []
        steps = steps_of(results, name, task.name)
        start = [(BASE, 0)] if steps and name != BASE else []
        for owner, step in [*start, *((name, step) for step in steps)]:
            cell = find(results, owner, step, task.name)
            one = shown(cell.score, task.inverted) if cell else None
            if cell and one and one.mean is not None:
                span = None if one.low is None or one.high is None else (one.low, one.high)
                told = tip(owner, step, last, [line_of(cell, task)])
                dots.append(charts.Dot(step, one.mean, told, None, span))
        lines.append(charts.Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    label = f"{task.name}, {task.label}, over training steps; the figures follow as a table."
    return charts.course(lines, percent=True, label=label)


def loss(results: Results) -> str:
    """Training loss over steps; empty if there is none."""
    lines = []
    for name, look in _arms(results):
        losses = next(arm.loss for arm in results.arms if arm.name == name)
        dots = [charts.Dot(s, v, f"{name}, step {s}\nloss {v:.3f}") for s, v in losses if v == v]
        lines.append(charts.Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return ""
    return charts.course(lines, percent=False, label="Training loss over steps, per arm.")


def meters(results: Results) -> Meters | None:
    """The drift meters, if any were read."""
    if not results.meters:
        return None
    kinds: tuple[tuple[str, Callable[[Meter], float]], ...] = (
        ("KL, base against tuned", lambda one: one.kl),
        ("Cross-entropy on base’s answers", lambda one: one.cross_entropy),
    )
    drawn = []
    for title, value in kinds:
        lines = [
            charts.Line(name, look, tuple(_readings(results, name, title, value)))
            for name, look in _arms(results)
        ]
        label = f"{title}, over training steps, per arm."
        drawn.append((title, "nats per token", charts.course(lines, percent=False, label=label)))
    rows = []
    for name, _ in _arms(results):
        mine = [one for one in results.meters if one.arm == name]
        if mine:
            last = max(one.step for one in mine)
            ends = [one for one in mine if one.step == last]
            norms = [one.norm for one in ends if one.norm is not None]
            norm = f"{_average(norms):.2f}" if norms else NONE
            figures = (_average([value(one) for one in ends]) for _, value in kinds)
            first, second = (f"{one:.3f}" for one in figures)
            rows.append((name, last, first, second, norm))
    return Meters(tuple(drawn), tuple(rows))


def _readings(
    results: Results, arm: str, title: str, value: Callable[[Meter], float]
) -> list[charts.Dot]:
    """Means over seeds by step, with the range of the seeds."""
    by_step: dict[int, list[float]] = {}
    for one in results.meters:
        if one.arm == arm and value(one) == value(one):
            by_step.setdefault(one.step, []).append(value(one))
    dots = []
    for step, found in sorted(by_step.items()):
        ends = (min(found), max(found)) if len(found) > 1 else None
        seeds = f", seeds from {ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
        told = f"{arm}, step {step}\n{title}: {_average(found):.3f} nats per token{seeds}"
        dots.append(charts.Dot(step, _average(found), told, None, ends))
    return dots


def _average(found: Sequence[float]) -> float:
    return sum(found) / len(found)


def _arms(results: Results) -> list[tuple[str, charts.Look]]:
    own = looks(results)
    return [(arm.name, own[arm.name]) for arm in results.arms]
