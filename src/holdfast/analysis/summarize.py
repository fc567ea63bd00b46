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
    Front,
    Meter,
    Noise,
    Share,
    TaskInfo,
)
from holdfast.analysis.results import Results
from holdfast.analysis.selection.rule import in_points
from holdfast.analysis.stats import DosePoint, Values, dose_response, noise_floor
from holdfast.types import BASE, Reading

ALPHA = 0.05
""""Forgets" is said below this p, after Holm's correction."""


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


def assemble(run: RunData) -> Results:
    """Everything that a report shows, computed from what was read of a run."""
    found = all_cells(run.measured, _target(run.tasks))
    families = {arm.name: arm.family or arm.name for arm in run.arms}
    return Results(
        name=run.name,
        model=run.model,
        seeds=tuple(run.seeds),
        verdict=verdict(run.tasks, found) + forgetting(run.tasks, found),
        tasks=tuple(run.tasks),
        arms=tuple(run.arms),
        cells=tuple(found),
        conditions=dict(run.conditions),
        warnings=(
            *run.notices,
            *caveats.all_of(run.tasks, found, run.measured, run.seeds),
        ),
        noise=tuple(noise(run.again)),
        dose=tuple(doses(run.tasks, run.measured, families)),
        meters=tuple(run.meters),
        fronts=tuple(run.fronts),
        decision=run.decision,
        agreements=tuple(run.agreements),
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """How one arm stands at its final checkpoint: its gain, and its worst retained task."""

    arm: str
    gain: Share
    worst: Share | None
    worst_task: str
    kept: bool  # every retained task was scored, and none fell by an interval that excludes zero
    unknown: str = ""  # a retained task too much of which could not be scored

    @property
    def gained(self) -> bool:
        """Whether the gain's interval excludes zero."""
        return (self.gain.low or 0.0) > 0

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Keeps most first, then gains most; losses within the noise do not count.

        An arm whose retained tasks could not be scored may have lost everything: it comes last.
        """
        if self.unknown:
            return (False, -1.0, self.gain.mean or 0.0)
        loss = 0.0 if self.kept or self.worst is None else min(0.0, self.worst.mean or 0.0)
        return (self.kept, loss, self.gain.mean or 0.0)


def standings(tasks: Sequence[TaskInfo], found: Sequence[Cell]) -> list[Standing]:
    """Every trained arm whose gain could be scored, in the study's order."""
    last = {cell.arm: max(c.step for c in found if c.arm == cell.arm) for cell in found}
    target = _target(tasks)
    standing = []
    for arm in [name for name in last if name != BASE]:
        whole = max(c.scale for c in found if c.arm == arm and c.step == last[arm])
        final = {c.task: c for c in found if (c.arm, c.step, c.scale) == (arm, last[arm], whole)}
        diffs = {name: cell.diff for name, cell in final.items()}
        unknown = [
            n
            for n, c in final.items()
            if n != target and caveats.unscored(c) > caveats.UNSCORED_LIMIT
        ]
        gain = diffs.get(target)
        if gain is None or gain.mean is None:
            continue
        losses = [
            (name, diff)
            for name, diff in diffs.items()
            if name != target and diff is not None and diff.mean is not None
        ]
        name, worst = min(losses, key=lambda pair: pair[1].mean or 0.0, default=("", None))
        kept = not unknown and all((diff.high or 0.0) >= 0 for _, diff in losses)
        standing.append(Standing(arm, gain, worst, name, kept, ", ".join(unknown)))
    return standing


def _target(tasks: Sequence[TaskInfo]) -> str:
    return next((task.name for task in tasks if task.role == "target"), "")


def verdict(tasks: Sequence[TaskInfo], found: Sequence[Cell]) -> str:
    """What the first arm gained and lost, and which arm did best, in two sentences."""
    standing = standings(tasks, found)
    if not standing:
        return "Nothing was trained, or the target could not be scored."
    target = next(task.name for task in tasks if task.role == "target")
    first = standing[0]
    text = f"{first.arm} {_change(first.gain)} on {target}"
    if first.worst is not None:
        text += f" and {_change(first.worst)} on {first.worst_task}"
    if first.unknown:
        text += f"; {first.unknown} could not be judged (too many unscored replies)"
    best = max((one for one in standing if one.gained), key=lambda one: one.rank, default=None)
    if best is None:
        return f"{text}. No arm gained on {target} by an interval that excludes zero."
    if best is first:
        return f"{text}." if len(standing) == 1 else f"{text}. No other arm kept more and gained."
    kept = "lost nothing measurable and " if best.worst is not None else ""
    if best.unknown:
        kept = f"could not be judged on {best.unknown} (too many unscored replies) and "
    elif not best.kept and best.worst is not None:
        kept = f"{_change(best.worst)} on {best.worst_task} and "
    return f"{text}. {best.arm} did best: it {kept}{_change(best.gain)} on {target}."


def _change(share: Share) -> str:
    mean, low, high = (one or 0.0 for one in (share.mean, share.low, share.high))
    interval = f"[{in_points(low)}, {in_points(high)}]"
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
    fell = [
        c.arm for c in tested if (c.p_holm or 0.0) < ALPHA and c.diff and (c.diff.mean or 0.0) < 0
    ]
    names = ", ".join(dict.fromkeys(fell)) or "none of the arms"
    return f" More than chance allows once all arms are counted (Holm): {names} forgot."


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
    for task in [info.name for info in tasks if info.name != target and info.name in tables]:
        points = [
            DosePoint(families[key[0]], key[3], tables[target][key], retained)
            for key, retained in tables[task].items()
        ]
        for dose in dose_response(points, base[target], base[task]):
            rho, rise = (None if o is None else as_share(o) for o in (dose.rho, dose.rise))
            found.append(
                Dose(dose.arm, task, dose.points, rho, dose.words, tuple(dose.curve), rise)
            )
    return found
