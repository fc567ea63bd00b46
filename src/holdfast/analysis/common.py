"""Compares arms where they have come equally far: forgetting at equal gain, and the reverse.

A remedy that merely learns less forgets less too. Each arm's curve over its checkpoints is read at
parts of what the first arm gained, or lost, so that arms are compared where they have gained, or
lost, alike (`stats.equal_gain`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from holdfast.analysis.arrays import Measured, as_share, item_ids, values
from holdfast.analysis.findings import ArmInfo, EqualGain, EqualLoss, Share, TaskInfo
from holdfast.analysis.stats import Values
from holdfast.analysis.stats.equal_gain import AtCommon, Curve, at_gain, at_loss
from holdfast.types import BASE

COMMON = (0.5, 0.8)
"""Parts of the first arm's largest gain, or loss, at which all arms are compared."""


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
    """Of each retained task the curves of the arms that were measured on it and on the target."""
    target = next((task.name for task in tasks if task.role == "target"), "")
    tables = _changes(measured)
    names = [arm.name for arm in arms if (arm.name, target) in tables]
    for task in (one.name for one in tasks if one.name != target):
        yield (
            task,
            {
                arm: Curve(tables[arm, target], tables[arm, task])
                for arm in names
                if (arm, task) in tables and tables[arm, target].shape[0] == len(tables[arm, task])
            },
        )


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
