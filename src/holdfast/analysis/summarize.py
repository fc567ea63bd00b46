"""Readings to results: what the measurements of a whole study add up to.

`assemble` turns readings (arm x seed x checkpoint x task) into `Results`: cells with intervals and
paired differences, noise, dose and response, and the verdict in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Front,
    Learned,
    Meter,
    Noise,
    Share,
    TaskInfo,
    Transfer,
)
from holdfast.analysis.results import Results
from holdfast.analysis.selection.rule import in_points, span
from holdfast.analysis.stats import Values, noise_floor
from holdfast.analysis.stats.dose import DosePoint, dose_response
from holdfast.analysis.stats.equal_gain import Curve, at_gain
from holdfast.analysis.story import forgot
from holdfast.analysis.transfer import in_words, transfers
from holdfast.types import BASE, Reading

COMMON = (0.5, 0.8)
"""Parts of the first arm's largest gain at which all arms are compared."""
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
    found = all_cells(run.measured, {one.name for one in run.tasks if one.role == "target"})
    transfer = transfers(run.learned, run.measured)
    families = {arm.name: arm.family or arm.name for arm in run.arms}
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
        equal_gain=() if run.learned else tuple(at_equal_gain(run.tasks, run.arms, run.measured)),
        learned=tuple(run.learned),
        transfer=tuple(transfer),
    )


def _target(tasks: Sequence[TaskInfo]) -> str:
    return next((task.name for task in tasks if task.role == "target"), "")


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
    ships = "" if run.decision is None else run.decision.summary
    return " ".join(filter(None, (said, ships, forgetting(run.tasks, found))))


def _first(tasks: Sequence[TaskInfo], found: Sequence[Cell]) -> tuple[str, str]:
    """The first trained arm whose gain could be scored: what it gained, and lost at worst."""
    target = _target(tasks)
    for arm in dict.fromkeys(cell.arm for cell in found if cell.arm != BASE):
        step = max(cell.step for cell in found if cell.arm == arm)
        scale = max(cell.scale for cell in found if cell.arm == arm and cell.step == step)
        final = [c for c in found if (c.arm, c.step, c.scale) == (arm, step, scale)]
        diffs = {c.task: c.diff for c in final if c.diff is not None and c.diff.mean is not None}
        if target not in diffs:
            continue
        unknown = [
            c.task
            for c in final
            if c.task != target and caveats.unscored(c) > caveats.UNSCORED_LIMIT
        ]
        text = f"{arm} {_change(diffs.pop(target))} on {target}"
        if diffs:
            worst = min(diffs, key=lambda task: diffs[task].mean or 0.0)
            text += f" and {_change(diffs[worst])} on {worst}"
        if unknown:
            text += f"; {', '.join(unknown)} could not be judged (too many unscored replies)"
        return arm, f"{text}."
    return "", NOTHING


def _change(share: Share) -> str:
    mean, low, high = (one or 0.0 for one in (share.mean, share.low, share.high))
    interval = span(low, high)
    if low > 0:
        return f"gained {100 * mean:.1f} points {interval}"
    if high < 0:
        return f"lost {-100 * mean:.1f} points {interval}"
    return f"changed nothing measurable ({in_points(mean)} points {interval})"


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

    Args:
        tasks: that were measured.
        measured: all readings; only trained models that differ from an earlier one take part.
        families: by arm, the arm of the study file that it is a variant of.
    """
    target = _target(tasks)
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
    gains = tables.get(target, {})  # of a run under way some are not there yet
    for task in [info.name for info in tasks if info.name != target and info.name in tables]:
        points = [
            DosePoint(families[key[0]], key[3], gains[key], retained)
            for key, retained in tables[task].items()
            if key in gains
        ]
        if not points:
            continue
        for dose in dose_response(points, base[target], base[task]):
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
    target = _target(tasks)
    tables = _changes(measured)
    names = [arm.name for arm in arms if (arm.name, target) in tables]
    kept = [one.name for one in tasks if one.name != target]
    found = []
    for task in kept:
        curves = {
            arm: Curve(tables[arm, target], tables[arm, task])
            for arm in names
            if (arm, task) in tables and tables[arm, target].shape[0] == len(tables[arm, task])
        }
        first = next((arm for arm, one in curves.items() if one.most > 0), None)
        if first is None or len(curves) < 2:
            continue
        for part in COMMON:
            gain = part * curves[first].most
            read = {arm: at_gain(one, gain) for arm, one in curves.items()}
            for arm, one in read.items():
                against = None if arm == first else as_share(one.less(read[first]))
                reached = round(one.reached, 3)
                share = as_share(one.interval)
                found.append(EqualGain(arm, task, round(gain, 6), share, reached, against))
    return found


def _changes(measured: Sequence[Measured]) -> dict[tuple[str, str], Values]:
    """Differences to the untouched model by arm and task, of shape (checkpoints, seeds, items).

    An arm's checkpoints with all of its change; where there are none, the parts of it in order.
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
        used = whole if len(whole) > 1 else some
        tables = [used[at] for at in sorted(used)]
        if len({table.shape for table in tables}) == 1:
            found[key] = np.stack(tables)
    return found
