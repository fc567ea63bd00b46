"""Readings to results: what the measurements of a whole study add up to.

`assemble` turns readings (arm x seed x checkpoint x task) into `Results`: cells with intervals and
paired differences, noise, dose and response, and the verdict in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.analysis import caveats
from holdfast.analysis.arrays import Measured, as_share, item_ids, values
from holdfast.analysis.cells import all_cells
from holdfast.analysis.findings import (
    Agreement,
    ArmInfo,
    Cell,
    Decision,
    Dose,
    EqualGain,
    EqualLoss,
    Front,
    Learned,
    Meter,
    Noise,
    Share,
    TaskInfo,
    Transfer,
)
from holdfast.analysis.results import Results
from holdfast.analysis.selection.rule import change_text, listed, span
from holdfast.analysis.stats import Values, noise_floor
from holdfast.analysis.stats.dose import DosePoint, dose_response
from holdfast.analysis.stats.equal_gain import AtCommon, Curve, at_gain, at_loss
from holdfast.analysis.story import forgot
from holdfast.analysis.targets import mean_gains, pooled
from holdfast.analysis.transfer import in_words, transfers
from holdfast.types import BASE, Reading

COMMON = (0.5, 0.8)
"""Parts of the first arm's largest gain, or loss, at which all arms are compared."""
NOTHING = "Nothing was trained, or the target could not be scored."


@dataclass(frozen=True, slots=True)
class RunData:
    """What was read of a finished run; `assemble` makes `Results` of it.

    Attributes:
        name: of the study.
        model: that it starts from.
        seeds: of its trainings.
        tasks: that were measured.
        arms: that were trained, the untouched model first.
        measured: all readings.
        conditions: under which they were taken.
        again: by task, the readings of every asking of the untouched model.
        meters: what was read in training.
        fronts: of every arm.
        decision: which checkpoint may be shipped.
        agreements: of the judges of an ensemble.
        notices: what was found in the data and settings before anything ran.
        alike: arms of which all seeds are trained on the same questions.
        learned: tasks in the order in which they were learned; empty where one was.
    """

    name: str
    model: str
    seeds: Sequence[int]
    tasks: Sequence[TaskInfo]
    arms: Sequence[ArmInfo]
    measured: Sequence[Measured]
    conditions: Mapping[str, str]
    again: Mapping[str, Sequence[Sequence[Reading]]] = field(default_factory=dict)
    meters: Sequence[Meter] = ()
    fronts: Sequence[Front] = ()
    decision: Decision | None = None
    agreements: Sequence[Agreement] = ()
    notices: Sequence[str] = ()
    alike: Sequence[str] = ()
    learned: Sequence[Learned] = ()


def assemble(run: RunData) -> Results:
    """Everything that a report shows, computed from what was read of a run."""
    found = all_cells(run.measured, _targets(run.tasks))
    transfer = transfers(run.learned, run.measured)
    families = {arm.name: arm.family or arm.name for arm in run.arms}
    compared = run.tasks, run.arms, run.measured
    return Results(
        name=run.name,
        model=run.model,
        seeds=tuple(run.seeds),
        verdict=_in_stages(run, found, transfer) or verdict(run.tasks, found, run.decision),
        tasks=tuple(run.tasks),
        arms=tuple(run.arms),
        cells=tuple(found),
        conditions=dict(run.conditions),
        warnings=(
            *run.notices,
            *caveats.all_of(run.tasks, found, run.measured, run.seeds, run.alike),
        ),
        noise=tuple(noise(run.again)),
        dose=() if run.learned else tuple(doses(run.tasks, run.measured, families)),
        meters=tuple(run.meters),
        fronts=tuple(run.fronts),
        decision=run.decision,
        agreements=tuple(run.agreements),
        mean_gain=tuple(mean_gains(run.tasks, run.measured)),
        equal_gain=() if run.learned else tuple(at_equal_gain(*compared)),
        equal_loss=() if run.learned else tuple(at_equal_loss(*compared)),
        learned=tuple(run.learned),
        transfer=tuple(transfer),
    )


def _targets(tasks: Sequence[TaskInfo]) -> list[str]:
    return [task.name for task in tasks if task.role == "target"]


def verdict(tasks: Sequence[TaskInfo], found: Sequence[Cell], decision: Decision | None) -> str:
    """What the first arm gained and lost, what may be shipped, and which arms forgot.

    The sentence on shipping is the decision's own: nothing else says which model is best. Where it
    ships another arm than the first, it says why not that one.
    """
    arm, first = _first(tasks, found)
    parts = [first]
    if decision is not None and arm:
        parts.append(decision.summary)
        if decision.chosen is not None and arm in decision.passed:
            parts.append(decision.passed[arm].partition(" (")[0].rstrip(".") + ".")
    return " ".join(filter(None, (*parts, forgetting(tasks, found))))


def _in_stages(run: RunData, found: Sequence[Cell], transfer: Sequence[Transfer]) -> str:
    """What came of all stages, what may be shipped, and which arms forgot; "" without stages."""
    said = in_words(transfer, len(run.learned))
    if not said:
        return ""
    if worst := _worst(run.tasks, found, transfer[0].arm):
        said += f" {transfer[0].arm} {worst}."
    ships = "" if run.decision is None else run.decision.summary
    return " ".join(filter(None, (said, ships, forgetting(run.tasks, found))))


def _first(tasks: Sequence[TaskInfo], found: Sequence[Cell]) -> tuple[str, str]:
    """The first trained arm whose gain could be scored: what it gained, and lost at worst."""
    aims, units = _targets(tasks), {task.name: task.unit for task in tasks}
    for arm in dict.fromkeys(cell.arm for cell in found if cell.arm != BASE):
        step = max(cell.step for cell in found if cell.arm == arm)
        scale = max(cell.scale for cell in found if cell.arm == arm and cell.step == step)
        final = [c for c in found if (c.arm, c.step, c.scale) == (arm, step, scale)]
        diffs = {c.task: c.diff for c in final if c.diff is not None and c.diff.mean is not None}
        if not aims or not diffs.keys() >= set(aims):
            continue
        unknown = [
            c.task
            for c in final
            if c.task not in aims and caveats.unscored(c) > caveats.UNSCORED_LIMIT
        ]
        gains = [f"{_change(diffs.pop(aim), units[aim])} on {aim}" for aim in aims]
        text = f"{arm} {listed(gains)}"
        if diffs:
            worst = min(diffs, key=lambda task: diffs[task].mean or 0.0)
            text += f" and {_change(diffs[worst], units[worst])} on {worst}"
        if unknown:
            text += f"; {', '.join(unknown)} could not be judged (too many unscored replies)"
        return arm, f"{text}."
    return "", NOTHING


def _worst(tasks: Sequence[TaskInfo], found: Sequence[Cell], arm: str) -> str:
    """What an arm lost at its end of the retained task on which it lost most; "" for none."""
    kept = {task.name: task.unit for task in tasks if task.role != "target"}
    last = max((cell.step for cell in found if cell.arm == arm), default=0)
    final = [c for c in found if (c.arm, c.step, c.scale) == (arm, last, 1) and c.task in kept]
    lost = [c for c in final if c.diff is not None and c.diff.direction == "worse"]
    if not lost:
        return ""
    worst = min(lost, key=lambda cell: (cell.diff and cell.diff.mean) or 0.0)
    assert worst.diff is not None
    return f"{_change(worst.diff, kept[worst.task])} on {worst.task}"


def _change(share: Share, unit: str = "") -> str:
    mean, low, high = (one or 0.0 for one in (share.mean, share.low, share.high))
    size = f"{abs(mean):.4f} {unit}" if unit else f"{100 * abs(mean):.1f} points"
    interval = span(low, high, unit)
    if low > 0:
        return f"gained {size} {interval}"
    if high < 0:
        return f"lost {size} {interval}"
    text = change_text(mean, unit)
    return f"shows no clear change ({text} {unit or 'points'} {interval})"


def forgetting(tasks: Sequence[TaskInfo], found: Sequence[Cell]) -> str:
    """Which arms forget by more than chance once all of them are allowed for, in a sentence."""
    kept = {task.name for task in tasks if task.role != "target"}
    tested = [c for c in found if c.p_holm is not None and c.task in kept and c.scale == 1]
    if len({cell.arm for cell in tested}) < 2:
        return ""
    names = ", ".join(dict.fromkeys(c.arm for c in tested if forgot(c))) or "none of the arms"
    return f"More than chance allows once all arms are counted (Holm): {names} forgot."


def noise(again: Mapping[str, Sequence[Sequence[Reading]]]) -> list[Noise]:
    """What differs between the askings of the untouched model, by task."""
    found = []
    for task, askings in again.items():
        if len(askings) < 2:
            continue
        ids = item_ids(askings[0])
        table = np.stack([values(readings, ids) for readings in askings])
        if np.isnan(table).any(axis=0).all():
            continue  # no item was scored every time
        flipped, floor = noise_floor(table)
        found.append(Noise(task, len(askings), round(flipped, 6), round(floor, 6)))
    return found


def doses(
    tasks: Sequence[TaskInfo], measured: Sequence[Measured], families: Mapping[str, str]
) -> list[Dose]:
    """Whether more gain goes with more forgetting, for every retained task.

    Of several targets the gain is the mean.

    Args:
        tasks: that were measured.
        measured: all readings; only trained models that differ from an earlier one take part.
        families: by arm, the arm of the study file that it is a variant of.
    """
    aims = _targets(tasks)
    before = {point.task: point.readings[0] for point in measured if point.arm == BASE}
    ids = {task: item_ids(readings) for task, readings in before.items()}
    base = {task: values(readings, ids[task]) for task, readings in before.items()}
    tables: dict[str, dict[tuple[str, int, float, int | None], Values]] = {}
    for point in measured:
        if point.arm == BASE or not point.step:
            continue
        runs = zip(point.seeds, point.readings, point.repeated, strict=True)
        for seed, readings in [(s, r) for s, r, repeated in runs if not repeated]:
            key = (point.arm, point.step, point.scale, seed)
            tables.setdefault(point.task, {})[key] = values(readings, ids[point.task])
    found = []
    each = [tables.get(aim, {}) for aim in aims]  # of a run under way some are not there yet
    keys = [key for key in each[0] if all(key in one for one in each)] if each else []
    gains = {
        key: pooled([one[key] - base[aim] for one, aim in zip(each, aims, strict=True)])
        for key in keys
    }
    for task in [info.name for info in tasks if info.name not in aims and info.name in tables]:
        points = [
            DosePoint(families[key[0]], key[3], gains[key], retained)
            for key, retained in tables[task].items()
            if key in gains
        ]
        if not points:
            continue
        for dose in dose_response(points, np.zeros(points[0].target.shape), base[task]):
            rho, rise = (None if o is None else as_share(o) for o in (dose.rho, dose.rise))
            found.append(
                Dose(dose.arm, task, dose.points, rho, dose.words, tuple(dose.curve), rise)
            )
    return found


def at_equal_gain(
    tasks: Sequence[TaskInfo], arms: Sequence[ArmInfo], measured: Sequence[Measured]
) -> list[EqualGain]:
    """What every arm had lost by the time that it had gained a part of what the first arm gained.

    The first arm is the first whose gain, at its best checkpoint, is above 0; without one, or with
    no other arm beside it, there is nothing to compare.
    """
    return [
        EqualGain(arm, task, far, change, round(one.reached, 3), against)
        for task, curves in _curves(tasks, arms, measured)
        for arm, far, one, change, against in _compared(curves, lambda one: one.most, at_gain)
    ]


def at_equal_loss(
    tasks: Sequence[TaskInfo], arms: Sequence[ArmInfo], measured: Sequence[Measured]
) -> list[EqualLoss]:
    """The most that every arm had gained before it had lost a part of what the first arm lost.

    The first arm is the first whose loss of a retained task, at its worst checkpoint, is above 0;
    without one, or with no other arm beside it, there is nothing to compare.
    """
    return [
        EqualLoss(arm, task, far, gain, round(one.reached, 3), against)
        for task, curves in _curves(tasks, arms, measured)
        for arm, far, one, gain, against in _compared(curves, lambda one: one.worst, at_loss)
    ]


def _compared(
    curves: Mapping[str, Curve],
    most: Callable[[Curve], float],
    read: Callable[[Curve, float], AtCommon],
) -> Iterator[tuple[str, float, AtCommon, Share, Share | None]]:
    """Every arm at every common value, against the first arm that comes anywhere."""
    first = next((arm for arm, one in curves.items() if most(one) > 0), None)
    if first is None or len(curves) < 2:
        return
    for part in COMMON:
        far = part * most(curves[first])
        found = {arm: read(one, far) for arm, one in curves.items()}
        for arm, one in found.items():
            against = None if arm == first else as_share(one.less(found[first]))
            yield arm, round(far, 6), one, as_share(one.interval), against


def _curves(
    tasks: Sequence[TaskInfo], arms: Sequence[ArmInfo], measured: Sequence[Measured]
) -> Iterator[tuple[str, dict[str, Curve]]]:
    """Of each retained task the curves of the arms that were measured on it and on every target."""
    aims, tables = _targets(tasks), _changes(measured)
    shares = not any(task.unit for task in tasks if task.name in aims)
    gains = {
        arm.name: pooled([tables[arm.name, aim] for aim in aims])
        for arm in arms
        if aims
        and all((arm.name, aim) in tables for aim in aims)
        and len({tables[arm.name, aim].shape[:2] for aim in aims}) == 1
    }
    for task in (one for one in tasks if one.name not in aims):
        yield (
            task.name,
            {
                arm: Curve(gained, tables[arm, task.name], not task.unit, shares)
                for arm, gained in gains.items()
                if (arm, task.name) in tables and len(gained) == len(tables[arm, task.name])
            },
        )


def _changes(measured: Sequence[Measured]) -> dict[tuple[str, str], Values]:
    """Differences to the untouched model by arm and task, of shape (checkpoints, seeds, items).

    An arm's checkpoints with all of its change, or the parts of the change at its last one: either
    is a way from the untouched model on. A single model is none, and is left out.
    """
    before = {point.task: point.readings[0] for point in measured if point.arm == BASE}
    points: dict[tuple[str, str], dict[tuple[int, float], Values]] = {}
    for point in measured:
        if point.arm != BASE and point.step and point.task in before:
            ids = item_ids(before[point.task])
            table = np.stack([values(readings, ids) for readings in point.readings])
            change = table - values(before[point.task], ids)[None, :]
            points.setdefault((point.arm, point.task), {})[point.step, point.scale] = change
    found = {}
    for key, some in points.items():
        whole = {at: table for at, table in some.items() if at[1] == 1.0}
        last = max(step for step, _ in some)
        used = whole if len(whole) > 1 else {at: one for at, one in some.items() if at[0] == last}
        tables = [used[at] for at in sorted(used)]
        if len(tables) > 1 and len({table.shape for table in tables}) == 1:
            found[key] = np.stack(tables)
    return found
