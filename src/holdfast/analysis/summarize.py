"""What do the readings of a whole study add up to?

Turns readings (arm x seed x checkpoint x task) into `Results`: shares with intervals, paired
differences to the untouched model, breakdowns, and the verdict in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.analysis import caveats, findings
from holdfast.analysis.arrays import as_share, breakdowns, by_way, item_ids, values
from holdfast.analysis.outcome_shares import with_outcomes
from holdfast.analysis.results import (
    Agreement,
    ArmInfo,
    Cell,
    Decision,
    Front,
    Meter,
    Results,
    Share,
    TaskInfo,
)
from holdfast.analysis.selection.rule import in_points
from holdfast.analysis.stats import Values, mean_over_seeds, paired_difference, retained_share
from holdfast.types import BASE, Reading


@dataclass(frozen=True, slots=True)
class Measured:
    """All readings of one arm at one checkpoint on one task, a list per training seed."""

    arm: str
    step: int
    task: str
    readings: Sequence[Sequence[Reading]]
    cut_off: int = 0  # replies that reached the limit of new tokens
    scale: float = 1.0  # share of the training's change that is applied
    seeds: Sequence[int | None] = (None,)  # one for each list of readings
    repeated: Sequence[bool] = (False,)  # the same model as at an earlier step, one for each seed
    unread: Sequence[tuple[str, int]] = ()  # what the judge said where it was unsure, most often


def cells(measured: Sequence[Measured]) -> list[Cell]:
    """Figures for everything measured; the base is what differences are taken to."""
    before = {
        one.task: values(one.readings[0], item_ids(one.readings[0]))
        for one in measured
        if one.arm == BASE
    }
    order = {one.task: item_ids(one.readings[0]) for one in measured if one.arm == BASE}
    found = []
    for one in measured:
        ids = order[one.task]
        table = np.stack([values(readings, ids) for readings in one.readings])
        diff = kept = None
        if one.arm != BASE:
            diff = as_share(paired_difference(before[one.task], table))
            kept = as_share(retained_share(before[one.task], table))
        outcomes: dict[str, int] = {}
        for reading in (reading for readings in one.readings for reading in readings):
            outcomes[reading.outcome] = outcomes.get(reading.outcome, 0) + 1
        found.append(
            Cell(
                arm=one.arm,
                step=one.step,
                task=one.task,
                score=_counted(as_share(mean_over_seeds(table)), one.readings),
                diff=diff,
                outcomes=dict(sorted(outcomes.items())),
                groups=_groups(one.readings[0], ids, table),
                scale=one.scale,
                retained_share=kept,
                read_as=by_way(one.readings, ids),
            )
        )
    return found


def _groups(readings: Sequence[Reading], ids: Sequence[str], table: Values) -> dict[str, Share]:
    return {
        name: as_share(mean_over_seeds(table[:, columns]))
        for parts in breakdowns(readings, ids)
        for name, columns in parts.items()
    }


def _counted(share: Share, readings: Sequence[Sequence[Reading]]) -> Share:
    """`share` with replies counted rather than items: all seeds, all samples."""
    values = [reading.value for one in readings for reading in one]
    unscored = sum(value is None for value in values)
    return replace(share, n=len(values) - unscored, unscored=unscored)


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
    target = next((task.name for task in tasks if task.role == "target"), "")
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


def assemble(
    name: str,
    model: str,
    seeds: Sequence[int],
    tasks: Sequence[TaskInfo],
    arms: Sequence[ArmInfo],
    measured: Sequence[Measured],
    conditions: Mapping[str, str],
    again: Mapping[str, Sequence[Sequence[Reading]]] | None = None,
    meters: Sequence[Meter] = (),
    fronts: Sequence[Front] = (),
    decision: Decision | None = None,
    agreements: Sequence[Agreement] = (),
) -> Results:
    """Everything the report shows.

    Args:
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
    """
    flipped = findings.with_flips(cells(measured), measured, _target(tasks))
    found = with_outcomes(flipped, measured)
    families = {arm.name: arm.family or arm.name for arm in arms}
    return Results(
        name=name,
        model=model,
        seeds=tuple(seeds),
        verdict=verdict(tasks, found) + findings.forgetting(tasks, found),
        tasks=tuple(tasks),
        arms=tuple(arms),
        cells=tuple(found),
        conditions=dict(conditions),
        warnings=tuple(caveats.all_of(tasks, found, measured, seeds)),
        noise=tuple(findings.noise(again or {})),
        dose=tuple(findings.doses(tasks, measured, families)),
        meters=tuple(meters),
        fronts=tuple(fronts),
        decision=decision,
        agreements=tuple(agreements),
    )
