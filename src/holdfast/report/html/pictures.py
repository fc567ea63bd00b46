"""The page's small charts: tasks, loss and drift meters over training steps, groups, doses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.analysis.lookup import (
    find,
    gains_and_losses,
    groups_by_loss,
    meter_course,
    steps_of,
    targets,
)
from holdfast.analysis.results import Cell, Dose, Meter, Results, TaskInfo
from holdfast.report import language, words
from holdfast.report.charts import panels
from holdfast.report.charts.marks import BASE as BASE_LOOK
from holdfast.report.charts.marks import Chart, Dot, Line, Look, data_of
from holdfast.report.charts.marks import looks as choose_looks
from holdfast.report.charts.plots import scatter
from holdfast.report.figures import figure, groups
from holdfast.report.language import Said, Speech, joined, same
from holdfast.report.tables import responses
from holdfast.types import BASE

METERS = ("kl", "cross_entropy")
FEW = 4
"""Trained arms that share a chart; more of them have one each."""


def looks(results: Results) -> dict[str, Look]:
    """Each arm's colour and shape, everywhere the same."""
    trained = [arm for arm in results.arms if arm.name != BASE]
    found = choose_looks([arm.family or arm.name for arm in trained])
    return {BASE: BASE_LOOK} | {arm.name: one for arm, one in zip(trained, found, strict=True)}


def tip(speech: Speech, place: tuple[str, int, float], last: int, lines: Sequence[Said]) -> Said:
    """What a tooltip says of one measured point: arm, step and scale, then the lines."""
    arm, step, scale = place
    when = speech.say("step_final" if step == last else "step", step=f"{step:,}")
    if not step:
        when = speech.say("before" if arm == BASE else "untrained")
    if scale != 1:
        when = speech.say("in_part", first=when, scale=f"{scale:g}")
    return joined([speech.say("at", arm=arm, when=when), *lines])


def aim_said(results: Results) -> Said:
    """What training is for, in words: the target, or the mean over several."""
    aims = targets(results)
    if len(aims) == 1:
        return same(aims[0].name)
    return language.of(results).say("trade.target_mean", n=len(aims))


def line_of(speech: Speech, cell: Cell, task: TaskInfo) -> Said:
    """A tooltip's line on one task."""
    found = figure(cell.score, task)
    if found is None:
        return same("")
    text = f"{found.text} {found.interval}"
    said = speech.say("course.tip", task=task.name, label=task.label, figure=text, n=f"{found.n:,}")
    if found.unscored:
        missing = speech.say("unscored", some=f"{found.missing:,}", all=f"{found.asked:,}")
        return speech.say("course.tip_unscored", first=said, unscored=missing)
    return said


def courses(results: Results) -> list[tuple[TaskInfo, list[Chart]]]:
    """Every task's figure over training steps, all on one scale; no chart without a figure."""
    every = [_course(results, task) for task in results.tasks]
    pairs, speech = list(zip(results.tasks, every, strict=True)), language.of(results)
    shares = panels.scale_of([lines for task, lines in pairs if not task.unit], percent=True)
    found = []
    for task, lines in pairs:
        scale = panels.scale_of([lines], percent=False) if task.unit else shares
        whole = speech.say("course.label", task=task.name, label=task.label)
        each = {
            line.name: speech.say("course.label_arm", task=task.name, arm=line.name)
            for line in lines
        }
        found.append((task, _charts(f"course-{task.name}", lines, scale, whole, each)))
    return found


def _charts(
    name: str, lines: Sequence[Line], scale: panels.Scale, whole: Said, each: dict[str, Said]
) -> list[Chart]:
    """One chart for few arms, else one for each of them."""
    if not any(line.dots for line in lines):
        return []
    head = ("arm", "step", "value", "low", "high")
    trained = [line for line in lines if line.look.number >= 0 and line.dots]
    if len(trained) <= FEW:
        return [Chart(name, panels.course(lines, scale, whole), head, data_of(lines))]
    return [
        Chart(
            f"{name}-{line.name}",
            panels.single(lines, line, scale, each[line.name]),
            head,
            data_of([line]),
            line.name,
        )
        for line in trained
        if any(dot.x for dot in line.dots)  # the table has what was never trained
    ]


def _course(results: Results, task: TaskInfo) -> list[Line]:
    speech, lines = language.of(results), []
    for name, look in looks(results).items():
        last, dots = results.last_step(name), []
        steps = steps_of(results, name, task.name)
        start = [(BASE, 0)] if steps and name != BASE else []
        for owner, step in [*start, *((name, step) for step in steps)]:
            cell = find(results, owner, step, task.name)
            score = words.shown(cell.score, task) if cell else None
            if cell and score and score.mean is not None:
                span = None if score.low is None or score.high is None else (score.low, score.high)
                told = tip(speech, (owner, step, 1.0), last, [line_of(speech, cell, task)])
                dots.append(Dot(step, score.mean, told, None, span))
        lines.append(Line(name, look, tuple(dots)))
    return lines


def loss(results: Results) -> list[Chart]:
    """Training loss over steps; none where there is no loss."""
    lines, speech = [], language.of(results)
    for name, look in looks(results).items():
        losses = next((arm.loss for arm in results.arms if arm.name == name), ())
        dots = [
            Dot(s, v, speech.say("meters.loss_tip", arm=name, step=f"{s:,}", value=f"{v:.3f}"))
            for s, v in losses
            if v == v
        ]
        lines.append(Line(name, look, tuple(dots)))
    if not any(line.dots for line in lines):
        return []
    svg = panels.course(
        lines, panels.scale_of([lines], percent=False), speech.say("meters.loss_label")
    )
    return [Chart("training-loss", svg, ("arm", "step", "loss", "low", "high"), data_of(lines))]


def meters(results: Results) -> list[tuple[Said, list[Chart]]]:
    """The drift meters over training steps: title and charts; empty if none were read."""
    if not results.meters:
        return []
    drawn, speech = [], language.of(results)
    for meter in METERS:
        title, lines = speech.say(f"meters.{meter}"), []
        for name, look in looks(results).items():
            mine = [reading for reading in results.meters if reading.arm == name]
            lines.append(Line(name, look, tuple(_readings(speech, name, mine, meter))))
        label = speech.say("meters.label", title=title)
        scale = panels.scale_of([lines], percent=False)
        each = {line.name: joined([label, same(line.name)], " ") for line in lines}
        drawn.append((title, _charts(f"meter-{meter}", lines, scale, label, each)))
    return drawn


def _readings(speech: Speech, arm: str, readings: Sequence[Meter], meter: str) -> list[Dot]:
    """Means over seeds by step, with the range of the seeds."""
    dots = []
    for point in meter_course(readings, meter):
        told = speech.say(
            "meters.tip",
            arm=arm,
            step=f"{point.step:,}",
            title=speech.say(f"meters.{meter}"),
            value=f"{point.mean:.3f}",
        )
        if point.ends:
            low, high = (f"{end:.3f}" for end in point.ends)
            told = speech.say("meters.tip_seeds", first=told, low=low, high=high)
        dots.append(Dot(point.step, point.mean, told, None, point.ends))
    return dots


def group_dots(results: Results, task: TaskInfo) -> list[Chart]:
    """A dot plot of the task's groups for every arm, the largest loss first."""
    speech, own = language.of(results), looks(results)
    order = groups_by_loss(results, task.name)
    places: dict[str, dict[str, Dot]] = {}
    for name, figures in groups(results, task):
        for info, found in figures:
            if found.mean is None:
                continue
            text = f"{found.text} {found.interval}"
            told = speech.say(
                "groups.tip", arm=info.name, group=name, figure=text, n=f"{found.n:,}"
            )
            whole = found.low is not None and found.high is not None
            span = ((found.low or 0.0) / 100, (found.high or 0.0) / 100) if whole else None
            places.setdefault(info.name, {})[name] = Dot(found.mean / 100, 0.0, told, span)
    charts, before = [], places.get(BASE, {})
    for arm, dots in places.items():
        if arm == BASE and len(places) > 1:
            continue
        shown = dots if arm != BASE else {}
        rows = [
            panels.Row(said, before.get(name), shown.get(name))
            for name, said in zip(order, _without(f"{task.name}_", order), strict=True)
        ]
        data: list[tuple[object, ...]] = []
        for name in [one for one in order if one in dots]:
            was, dot = before.get(name), dots[name]
            ends = dot.x_span or (None, None)
            data.append((arm, name, dot.x, *ends, was.x if was else None))
        label = speech.say("groups.label", task=task.name, arm=arm)
        head = ("arm", "group", "value", "low", "high", "base")
        svg = panels.dots(rows, own[arm], own[BASE], label)
        charts.append(Chart(f"groups-{task.name}-{arm}", svg, head, tuple(data), arm))
    return charts


def _without(begin: str, names: Sequence[str]) -> list[str]:
    """Names of groups without what all of them begin with, the task's own."""
    return [one.removeprefix(begin) if all(x.startswith(begin) for x in names) else one
            for one in names]  # fmt: skip


@dataclass(frozen=True, slots=True)
class DosePicture:
    """Gain against loss on one retained task, drawn and arm by arm."""

    task: TaskInfo
    pooled: Dose | None
    chart: Chart | None
    rows: tuple[tuple[Look, Dose], ...]  # of single families


def doses(results: Results) -> list[DosePicture]:
    """Every retained task of which the dose-response is known, all on one scale."""
    found = responses(results)
    every = [_gains(results, one.task) for one in found]
    fits = [one.curve for one in found]
    spots = [(d.x, d.y) for lines in every for line in lines for d in line.dots]
    spots += [spot for fit in fits for spot in fit]
    drawn = []
    for response, lines in zip(found, every, strict=True):
        chart = _dose_chart(results, response.task, lines, (response.curve, spots))
        rows = tuple((_look(results, dose.arm), dose) for dose in response.rows)
        drawn.append(DosePicture(response.task, response.pooled, chart, rows))
    return drawn


def _look(results: Results, family: str) -> Look:
    """The look of a family's first arm."""
    own = looks(results)
    mine = [own[arm.name] for arm in results.arms if family in (arm.family, arm.name)]
    return mine[0] if mine else own[BASE]


def _gains(results: Results, task: TaskInfo) -> list[Line]:
    """Every checkpoint's gain on the targets against its loss on a task, by arm."""
    aims, speech = targets(results), language.of(results)
    lines = []
    for name, look in looks(results).items() if aims else ():
        last, dots = results.last_step(name), []
        for point in gains_and_losses(results, name, task.name):
            gain, lost = words.signed(point.gain), words.signed(point.loss)
            told = [
                speech.say("dose.tip_gain", points=gain, task=aim_said(results)),
                speech.say("dose.tip_loss", points=lost, task=task.name),
            ]
            said = tip(speech, (name, point.step, point.scale), last, told)
            dots.append(Dot(point.gain, point.loss, said))
        lines.append(Line(name, look, tuple(dots)))
    return lines


Spots = Sequence[tuple[float, float]]


def _dose_chart(
    results: Results, task: TaskInfo, lines: Sequence[Line], fit: tuple[Spots, Spots]
) -> Chart | None:
    """The picture; None if there is nothing in it."""
    if not any(line.dots for line in lines):
        return None
    speech, target = language.of(results), aim_said(results)
    label = speech.say("dose.label", task=task.name, target=target)
    rows = tuple((line.name, dot.x, dot.y) for line in lines for dot in line.dots)
    svg = scatter(lines, *fit, label=label)
    return Chart(f"dose-{task.name}", svg, ("arm", "gain", "loss"), rows)
