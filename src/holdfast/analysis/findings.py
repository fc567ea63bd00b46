"""What else do the readings say: which items changed sides, how noisy, does more gain cost more?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analysis.arrays import as_share, breakdowns, item_ids, values
from holdfast.analysis.results import Cell, Dose, Flips, Noise, TaskInfo
from holdfast.analysis.stats import (
    DosePoint,
    Values,
    dose_response,
    flips,
    holm,
    noise_floor,
    paired_p,
)
from holdfast.types import BASE, Reading

if TYPE_CHECKING:
    from holdfast.analysis.summarize import Measured

Key = tuple[str, int, float]
ALPHA = 0.05
""""Forgets" is said below this p, after Holm's correction."""


def with_flips(cells: Sequence[Cell], measured: Sequence[Measured], target: str) -> list[Cell]:
    """The cells, those of final checkpoints with p-values and flips against the untouched model.

    p-values are corrected over all arms and all retained tasks together, and over the arms on the
    target; those of groups over the groups of one breakdown.
    """
    found = {(c.arm, c.step, c.scale, c.task): c for c in cells}
    before = {one.task: one.readings[0] for one in measured if one.arm == BASE}
    last = {one.arm: max(o.step for o in measured if o.arm == one.arm) for one in measured}
    tables: dict[tuple[str, int, float, str], tuple[Values, Values]] = {}
    for one in measured:
        if one.arm != BASE and one.step == last[one.arm]:
            ids = item_ids(before[one.task])
            table = np.stack([values(o, ids) for o in one.readings])
            tables[one.arm, one.step, one.scale, one.task] = (values(before[one.task], ids), table)
    for family in ([k for k in tables if k[3] == target], [k for k in tables if k[3] != target]):
        flipped = _corrected([flips(*tables[key]) for key in family])
        chances = holm([paired_p(*tables[key]) for key in family])
        for key, own, p in zip(family, flipped, chances, strict=True):
            groups = _group_flips(before[key[3]], *tables[key])
            found[key] = replace(found[key], p_holm=round(p, 6), flips=own, group_flips=groups)
    return list(found.values())


def _group_flips(readings: Sequence[Reading], base: Values, table: Values) -> dict[str, Flips]:
    found: dict[str, Flips] = {}
    for columns in breakdowns(readings, item_ids(readings)):
        sides = _corrected([flips(base[some], table[:, some]) for some in columns.values()])
        found |= dict(zip(columns, sides, strict=True))
    return found


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


def _corrected(found: Sequence[tuple[int, int, int, float]]) -> list[Flips]:
    adjusted = holm([p for *_, p in found])
    return [
        Flips(lost, won, n, round(p, 6), round(better, 6))
        for (lost, won, n, p), better in zip(found, adjusted, strict=True)
    ]


def noise(again: Mapping[str, Sequence[Sequence[Reading]]]) -> list[Noise]:
    """What differs between the askings of the untouched model, by task."""
    found = []
    for task, askings in again.items():
        if len(askings) < 2:
            continue
        ids = item_ids(askings[0])
        table = np.stack([values(one, ids) for one in askings])
        if np.isnan(table).any(axis=0).all():
            continue  # no item was scored every time
        flipped, floor = noise_floor(table)
        found.append(Noise(task, len(askings), round(flipped, 6), round(floor, 6)))
    return found


def doses(
    tasks: Sequence[TaskInfo], measured: Sequence[Measured], families: Mapping[str, str]
) -> list[Dose]:
    """Does more gain go with more forgetting, for every retained task?"""
    target = next((task.name for task in tasks if task.role == "target"), "")
    before = {one.task: one.readings[0] for one in measured if one.arm == BASE}
    ids = {task: item_ids(readings) for task, readings in before.items()}
    base = {task: values(readings, ids[task]) for task, readings in before.items()}
    tables: dict[str, dict[tuple[Key, int | None], Values]] = {}
    for one in measured:
        if one.arm != BASE and one.step:
            several = zip(one.seeds, one.readings, one.repeated, strict=True)
            for seed, readings in [(s, r) for s, r, repeated in several if not repeated]:
                key = ((one.arm, one.step, one.scale), seed)
                tables.setdefault(one.task, {})[key] = values(readings, ids[one.task])
    found = []
    for task in [one.name for one in tasks if one.name != target and one.name in tables]:
        points = [
            DosePoint(families[key[0]], seed, tables[target][key, seed], retained)
            for (key, seed), retained in tables[task].items()
        ]
        for dose in dose_response(points, base[target], base[task]):
            rho, rise = (None if o is None else as_share(o) for o in (dose.rho, dose.rise))
            found.append(
                Dose(dose.arm, task, dose.points, rho, dose.words, tuple(dose.curve), rise)
            )
    return found
