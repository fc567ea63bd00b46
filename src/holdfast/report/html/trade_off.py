"""The page's trade-off charts: which there are, and what lies where in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from holdfast.analysis.lookup import (
    cells_at,
    mean_change,
    mean_score,
    retained,
    scales_of,
    targets,
    worst_change,
)
from holdfast.analysis.results import Results, Share, TaskInfo
from holdfast.report import language
from holdfast.report.charts.axis import Kind
from holdfast.report.charts.marks import Chart, Dot, Role, Span
from holdfast.report.charts.plots import Track, trade_off
from holdfast.report.html.pictures import line_of, looks, tip
from holdfast.report.language import Said, Speech, joined, same
from holdfast.report.words import percent, plain, points
from holdfast.types import BASE

Place = tuple[float, Span | None, list[Said]]  # where on an axis, its interval, the tooltip's lines
NO_SPAN = (None, None)
HEAD = ("arm", "point", "kept", "kept_low", "kept_high", "target", "target_low", "target_high")
Axis = Callable[[str, int, float], Place | None]  # of arm, step and scale


@dataclass(frozen=True, slots=True)
class View:
    """One picture of the trade-off: what counts as kept, drawn for two widths."""

    name: Said
    x_title: Said
    note: Said
    wide: Chart
    narrow: str


def views(results: Results) -> list[View]:
    """The trade-off pictures: over all retained tasks first, then one at a time."""
    aims, kept, speech = targets(results), retained(results), language.of(results)
    made: list[View | None] = []
    if aims and len(kept) > 1:
        told = (speech.say("trade.worst_name"), speech.say("trade.worst_x"))
        note = speech.say("trade.worst_note")
        made.append(_view(results, (*told, note), "root", _worst(results, kept)))
    shares = [task for task in kept if not task.unit]  # a measure has no place from 0 to 100 %
    if aims and len(shares) > 1:
        sides = [joined([same(task.name), _good_side(speech, task)], ": ") for task in shares]
        name = speech.say("trade.mean_name", n=len(shares))
        title = speech.say("trade.kept_x", name=name)
        whole = (name, title, joined(sides, "; "))
        made.append(_view(results, whole, "share", _mean(results, shares)))
    for task in kept if aims else []:
        title = speech.say("trade.kept_x", name=task.name)
        one = (same(task.name), title, _good_side(speech, task))
        if task.unit:
            made.append(_view(results, one, "root", _worst(results, [task])))
        else:
            made.append(_view(results, one, "share", _mean(results, [task])))
    return [view for view in made if view]


@dataclass(frozen=True, slots=True)
class Area:
    """One arm's hypervolume, ready to print."""

    arm: str
    share: Share
    text: str
    interval: str
    front: int  # how many of its points are on the frontier
    reach: float  # how far its bar goes


def areas(results: Results) -> list[Area]:
    """The area that each arm dominates, in the order of the arms."""
    known = {arm.name for arm in results.arms}
    found = []
    for front in results.fronts:
        if front.arm not in known or front.volume.mean is None:
            continue
        text, _, ends = plain(front.volume, 3).partition(" ")
        reach = max(front.volume.mean, front.volume.high or 0.0)
        found.append(Area(front.arm, front.volume, text, ends, len(front.points), reach))
    return found


def families(results: Results) -> list[Said]:
    """Families of more than one arm: what their common colour stands for."""
    names = [arm.family for arm in results.arms if arm.family]
    several = {name: names.count(name) for name in dict.fromkeys(names)}
    speech = language.of(results)
    return [
        speech.say("trade.variants", name=name, n=count)
        for name, count in several.items()
        if count > 1
    ]


def _view(
    results: Results, words: tuple[Said, Said, Said], kind: Kind, across: Axis
) -> View | None:
    aims = targets(results)
    measure = any(aim.unit for aim in aims)
    upward = _gain(results, aims) if measure else _mean(results, aims)
    tracks = _tracks(results, across, upward)
    if not any(track.course for track in tracks):
        return None
    label = language.of(results).say("trade.label", name=words[0])
    stairs = kind == "root" and bool(results.fronts)  # the frontier is of the worst change
    wide, narrow = (
        trade_off(
            tracks,
            kind=kind,
            narrow=small,
            label=label,
            stairs=stairs,
            upward="points" if measure else "share",
        )
        for small in (False, True)
    )
    rows = tuple(
        (track.name, dot.role, dot.x, *(dot.x_span or NO_SPAN), dot.y, *(dot.y_span or NO_SPAN))
        for track in tracks
        for dot in track.dots
        if dot.role != "corner"
    )
    return View(*words, Chart(f"trade-off-{words[0].en}", wide, HEAD, rows), narrow)


def _tracks(results: Results, across: Axis, upward: Axis) -> list[Track]:
    best = {(one.arm, *point) for one in results.fronts for point in one.points}
    own, found, speech = looks(results), [], language.of(results)
    for arm in (info.name for info in results.arms):
        last = results.final_point(arm)

        def dot(
            owner: str, step: int, scale: float, role: Role, last: tuple[int, float] = last
        ) -> Dot | None:
            x, y = across(owner, step, scale), upward(owner, step, scale)
            if x is None or y is None:
                return None
            told = tip(speech, (owner, step, scale), last[0], [*y[2], *x[2]])
            marked = role != "corner" and (owner, step, scale) in best
            return Dot(x[0], y[0], told, x[1], y[1], role, marked)

        begin = dot(BASE, 0, 1.0, "corner") if arm != BASE else None
        steps = sorted({cell.step for cell in results.cells if (cell.arm, cell.scale) == (arm, 1)})
        course = _there(dot(arm, step, 1.0, "way") for step in steps)
        scaled = {
            step: _there(dot(arm, step, s, "corner" if s == 1 else "scaled") for s in order)
            for step, order in ((k, sorted({*v, 1.0})) for k, v in scales_of(results, arm).items())
        }
        line = "line"
        if not course and last[0] in scaled:  # never measured but in part
            course, line = scaled.pop(last[0]), "line part"
        if not course:
            continue
        course[-1] = replace(course[-1], role="final")
        paths = tuple(_from(begin, some) for some in scaled.values())
        found.append(Track(arm, own[arm], _from(begin, course), line, paths))
    return found


def _there(dots: Iterable[Dot | None]) -> list[Dot]:
    return [dot for dot in dots if dot]


def _from(begin: Dot | None, dots: list[Dot]) -> tuple[Dot, ...]:
    return (begin, *dots) if begin else tuple(dots)


def _mean(results: Results, tasks: Sequence[TaskInfo]) -> Axis:
    """Mean over tasks at one point, 1 is good; None unless every task was measured."""
    speech = language.of(results)

    def place(arm: str, step: int, scale: float) -> Place | None:
        whole = cells_at(results, tasks, arm, step, scale)
        mean = mean_score([cell for cell, _ in whole]) if len(whole) == len(tasks) else None
        if mean is None or mean.mean is None:
            return None
        span = None if mean.low is None or mean.high is None else (mean.low, mean.high)
        told = [line_of(speech, cell, task) for cell, task in whole]
        if len(tasks) > 1:
            ends = f" [{100 * span[0]:.1f}, {100 * span[1]:.1f}]" if span else ""
            figure = f"{percent(mean.mean)}{ends}"
            told.append(speech.say("trade.tip_mean", n=len(tasks), figure=figure))
        return mean.mean, span, told

    return place


def _gain(results: Results, tasks: Sequence[TaskInfo]) -> Axis:
    """Mean change of the targets against base; for targets of which one is a measure."""
    speech = language.of(results)

    def place(arm: str, step: int, scale: float) -> Place | None:
        whole = cells_at(results, tasks, arm, step, scale)
        told = [line_of(speech, cell, task) for cell, task in whole]
        mean = 0.0 if arm == BASE else mean_change(whole)
        return None if mean is None or len(whole) < len(tasks) else (mean, None, told)

    return place


def _worst(results: Results, tasks: Sequence[TaskInfo]) -> Axis:
    """The least change of a retained task against base, with the interval of that task."""
    speech = language.of(results)

    def place(arm: str, step: int, scale: float) -> Place | None:
        whole = cells_at(results, tasks, arm, step, scale)
        told = [line_of(speech, cell, task) for cell, task in whole]
        if len(whole) < len(tasks):
            return None
        if arm == BASE:
            return 0.0, None, told
        worst = worst_change(whole)
        if worst is None or worst[0].mean is None:
            return None
        diff, task = worst
        span = None if diff.low is None or diff.high is None else (diff.low, diff.high)
        key = "trade.tip_worst_turned" if task.lower_is_better else "trade.tip_worst"
        told.append(speech.say(key, task=task.name, figure=points(diff)))
        return worst[0].mean, span, told

    return place


def _good_side(speech: Speech, task: TaskInfo) -> Said:
    """A task's label, said so that more is better."""
    if task.unit:
        return speech.say("trade.measure", label=task.label, unit=task.unit)
    return speech.say("trade.minus", label=task.label) if task.lower_is_better else same(task.label)
