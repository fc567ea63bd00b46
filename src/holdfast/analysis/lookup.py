"""Figures looked up in results, or put together from several of them, for tables and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from holdfast.analysis.findings import Cell, Meter, Share, TaskInfo
from holdfast.analysis.results import Results
from holdfast.types import BASE


def find(results: Results, arm: str, step: int, task: str, scale: float = 1.0) -> Cell | None:
    """The cell, or None where it was not measured."""
    try:
        return results.cell(arm, step, task, scale)
    except KeyError:
        return None


def final(results: Results, arm: str, task: str) -> Cell | None:
    """An arm's cell at the point by which it is shown."""
    step, scale = results.final_point(arm)
    return find(results, arm, step, task, scale)


def steps_of(results: Results, arm: str, task: str) -> list[int]:
    """The steps at which one arm was measured as it was trained, in order."""
    return sorted({c.step for c in results.cells if (c.arm, c.task, c.scale) == (arm, task, 1.0)})


def scales_of(results: Results, arm: str) -> dict[int, list[float]]:
    """At each step the shares of the training's change that were measured besides all of it."""
    found: dict[int, set[float]] = {}
    for cell in results.cells:
        if cell.arm == arm and cell.scale != 1.0:
            found.setdefault(cell.step, set()).add(cell.scale)
    return {step: sorted(found[step]) for step in sorted(found)}


def group_names(results: Results, task: str) -> list[str]:
    """The groups of one task that the base or a final checkpoint has, in order of appearance."""
    finals = [final(results, arm.name, task) for arm in results.arms]
    return list(dict.fromkeys(name for cell in finals if cell for name in cell.groups))


def targets(results: Results) -> list[TaskInfo]:
    """What training is for."""
    return [task for task in results.tasks if task.role == "target"]


def retained(results: Results) -> list[TaskInfo]:
    """What must not be lost."""
    return [task for task in results.tasks if task.role != "target"]


def cells_at(
    results: Results, tasks: Sequence[TaskInfo], arm: str, step: int, scale: float
) -> list[tuple[Cell, TaskInfo]]:
    """What was measured at one point, in the order of the tasks; others are left out."""
    cells = [(find(results, arm, step, task.name, scale), task) for task in tasks]
    return [(cell, task) for cell, task in cells if cell]


def mean_score(cells: Sequence[Cell]) -> Share | None:
    """Mean over tasks at one point; None where a task could not be scored, or there is none.

    The interval is the mean of the tasks' interval ends: right if the tasks' errors go together,
    too wide if they do not.
    """
    scores = [cell.score for cell in cells]
    means = [score.mean for score in scores if score.mean is not None]
    if not means or len(means) < len(cells):
        return None
    lows = [score.low for score in scores if score.low is not None]
    highs = [score.high for score in scores if score.high is not None]
    low = high = None
    if len(lows) == len(highs) == len(means):
        low, high = sum(lows) / len(lows), sum(highs) / len(highs)
    return Share(sum(means) / len(means), low, high, sum(score.n for score in scores))


def final_gains(results: Results) -> list[tuple[str, Share]]:
    """What each arm gained over all targets at the point by which it is shown; several alone."""
    found = {(one.arm, (one.step, one.scale)): one.change for one in results.mean_gain}
    keys = [(arm.name, results.final_point(arm.name)) for arm in results.arms]
    return [(key[0], found[key]) for key in keys if key in found]


def mean_change(cells: Sequence[tuple[Cell, TaskInfo]]) -> float | None:
    """The mean paired difference to base; None unless all were scored."""
    found = [cell.diff.mean for cell, _ in cells if cell.diff and cell.diff.mean is not None]
    return sum(found) / len(found) if found and len(found) == len(cells) else None


def worst_change(cells: Sequence[tuple[Cell, TaskInfo]]) -> tuple[Share, TaskInfo] | None:
    """The least paired difference to base, and of which task; None unless all were scored."""
    diffs = [(cell.diff, task) for cell, task in cells if cell.diff]
    scored = [(diff.mean, diff, task) for diff, task in diffs if diff.mean is not None]
    if not scored or len(scored) < len(cells):
        return None
    _, diff, task = min(scored, key=lambda change: change[0])
    return diff, task


class GainAndLoss(NamedTuple):
    """What one trained model gained on the targets and lost on a retained task, as shares."""

    step: int
    scale: float
    gain: float
    loss: float


def gains_and_losses(results: Results, arm: str, task: str) -> list[GainAndLoss]:
    """Every checkpoint of one arm, in the order of the cells; none of the untouched model."""
    aims, found = targets(results), []
    for cell in results.cells:
        if (cell.arm, cell.task) != (arm, task) or arm == BASE or not cell.step:
            continue
        whole = cells_at(results, aims, arm, cell.step, cell.scale)
        gain = mean_change(whole) if len(whole) == len(aims) else None
        if gain is not None and cell.diff is not None and cell.diff.mean is not None:
            found.append(GainAndLoss(cell.step, cell.scale, gain, -cell.diff.mean))
    return found


def reading_spread(shares: Sequence[Share | None]) -> float | None:
    """Largest less smallest share of the same replies read in several ways; None without any."""
    means = [share.mean for share in shares if share is not None and share.mean is not None]
    return max(means) - min(means) if means else None


@dataclass(frozen=True, slots=True)
class MeterMean:
    """One drift meter at one step: the mean over seeds, and their range where there are several."""

    step: int
    mean: float
    ends: tuple[float, float] | None


def meter_course(readings: Sequence[Meter], meter: str) -> list[MeterMean]:
    """One arm's meter over training steps; readings that are not a number are left out.

    Args:
        readings: of one arm, all seeds.
        meter: ``kl``, ``cross_entropy`` or ``norm``.
    """
    by_step: dict[int, list[float]] = {}
    for reading in readings:
        value: float | None = getattr(reading, meter)
        if value is not None and value == value:
            by_step.setdefault(reading.step, []).append(value)
    return [
        MeterMean(
            step,
            sum(found) / len(found),
            (min(found), max(found)) if len(found) > 1 else None,
        )
        for step, found in sorted(by_step.items())
    ]


class LastMeters(NamedTuple):
    """The drift meters of one arm at its last reading, means over seeds."""

    step: int
    kl: float
    cross_entropy: float
    norm: float | None


def last_meters(readings: Sequence[Meter]) -> LastMeters | None:
    """Where the meters of one arm ended; None where none were read."""
    if not readings:
        return None
    last = max(reading.step for reading in readings)
    ends = [reading for reading in readings if reading.step == last]
    norms = [reading.norm for reading in ends if reading.norm is not None]
    return LastMeters(
        last,
        sum(reading.kl for reading in ends) / len(ends),
        sum(reading.cross_entropy for reading in ends) / len(ends),
        sum(norms) / len(norms) if norms else None,
    )


def groups_by_loss(results: Results, task: str) -> list[str]:
    """The groups of one task, the one first on which an arm lost most against base.

    Groups without figures of base and an arm come last, in the order of the data.
    """
    before = final(results, BASE, task)
    worst: dict[str, float] = {}
    for arm in results.arms:
        after = final(results, arm.name, task)
        if before is None or after is None or arm.name == BASE:
            continue
        for name, share in after.groups.items():
            was = before.groups.get(name)
            if was is not None and was.mean is not None and share.mean is not None:
                worst[name] = max(worst.get(name, -1.0), was.mean - share.mean)
    names = group_names(results, task)
    return sorted(names, key=lambda name: -worst.get(name, -2.0))
