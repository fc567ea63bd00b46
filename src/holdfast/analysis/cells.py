"""The cells of the results: shares, paired differences, items that changed, the four outcomes.

A cell is one arm at one checkpoint on one task, over all seeds. The untouched model is what
differences are taken to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from holdfast.analysis.arrays import Measured, as_share, breakdowns, by_way, item_ids, values
from holdfast.analysis.findings import Cell, Flips, Share
from holdfast.analysis.stats import (
    Values,
    flips,
    holm,
    is_share,
    mean_over_seeds,
    paired_difference,
    paired_p,
    retained_share,
)
from holdfast.grading.safety_outcomes import MISSING, OUTCOMES, UNSURE, WITHHELD
from holdfast.types import BASE, Reading


def all_cells(measured: Sequence[Measured], targets: Sequence[str]) -> list[Cell]:
    """Every figure of everything measured, in the order of `measured`.

    Args:
        measured: all readings, the untouched model's among them.
        targets: the tasks that training is for; p-values of the others are corrected together.
    """
    return _with_outcomes(_with_flips(cells(measured), measured, targets), measured)


def cells(measured: Sequence[Measured]) -> list[Cell]:
    """Shares, paired differences and groups; neither flips nor the four outcomes."""
    order, before = _of_base(measured)
    found = []
    for point in measured:
        ids = order[point.task]
        table = _table(point, ids)
        diff = kept = None
        if point.arm != BASE:
            diff = as_share(paired_difference(before[point.task], table))
            kept = as_share(retained_share(before[point.task], table))
        outcomes = Counter(reading.outcome for reading in point.replies)
        found.append(
            Cell(
                arm=point.arm,
                step=point.step,
                task=point.task,
                score=_counted(as_share(mean_over_seeds(table)), point.replies),
                diff=diff,
                outcomes=dict(sorted(outcomes.items())),
                groups=_groups(point, ids, table),
                scale=point.scale,
                retained_share=kept,
                read_as=by_way(point.readings, ids),
            )
        )
    return found


def _of_base(measured: Sequence[Measured]) -> tuple[dict[str, list[str]], dict[str, Values]]:
    """By task: the items in the order of all arrays, and the untouched model's values."""
    base = {point.task: point.readings[0] for point in measured if point.arm == BASE}
    order = {task: item_ids(readings) for task, readings in base.items()}
    return order, {task: values(readings, order[task]) for task, readings in base.items()}


def _table(point: Measured, ids: Sequence[str]) -> Values:
    """Shape (seeds, items)."""
    return np.stack([values(readings, ids) for readings in point.readings])


def _groups(point: Measured, ids: Sequence[str], table: Values) -> dict[str, Share]:
    said = _by_item(point.replies)
    return {
        name: _counted(as_share(mean_over_seeds(table[:, columns])), _of(said, ids, columns))
        for parts in breakdowns(point.readings[0], ids)
        for name, columns in parts.items()
    }


def _by_item(readings: Sequence[Reading]) -> Mapping[str, list[Reading]]:
    found: dict[str, list[Reading]] = {}
    for one in readings:
        found.setdefault(one.example_id, []).append(one)
    return found


def _of(
    said: Mapping[str, list[Reading]], ids: Sequence[str], columns: Sequence[int]
) -> list[Reading]:
    """The readings of some items, of all seeds and samples."""
    return [one for column in columns for one in said.get(ids[column], ())]


def _counted(share: Share, readings: Sequence[Reading]) -> Share:
    """`share` with replies counted rather than items: all seeds, all samples."""
    unscored = sum(reading.value is None for reading in readings)
    return replace(share, n=len(readings) - unscored, unscored=unscored)


def _last_steps(measured: Sequence[Measured]) -> dict[str, int]:
    found: dict[str, int] = {}
    for point in measured:
        found[point.arm] = max(point.step, found.get(point.arm, point.step))
    return found


def _by_key(found: Sequence[Cell]) -> dict[tuple[str, int, float, str], Cell]:
    return {(cell.arm, cell.step, cell.scale, cell.task): cell for cell in found}


def _with_flips(
    found: Sequence[Cell], measured: Sequence[Measured], targets: Sequence[str]
) -> list[Cell]:
    """The cells, those of final checkpoints with p-values and flips against the untouched model.

    p-values are corrected over all arms and all retained tasks together, and over the arms on all
    targets; those of groups over the groups of one breakdown.
    """
    by_key = _by_key(found)
    order, before = _of_base(measured)
    readings = {point.task: point.readings[0] for point in measured if point.arm == BASE}
    last = _last_steps(measured)
    tables = {
        point.key: (before[point.task], _table(point, order[point.task]))
        for point in measured
        if point.arm != BASE and point.step == last[point.arm]
    }
    for family in (
        [k for k in tables if k[3] in targets],
        [k for k in tables if k[3] not in targets],
    ):
        chances = holm([paired_p(*tables[key]) for key in family])
        for key, p in zip(family, chances, strict=True):
            by_key[key] = replace(by_key[key], p_holm=round(p, 6))
        shares = [key for key in family if is_share(*tables[key])]  # a measure has no sides
        for key, own in zip(shares, _corrected([flips(*tables[k]) for k in shares]), strict=True):
            groups = _group_flips(readings[key[3]], *tables[key])
            by_key[key] = replace(by_key[key], flips=own, group_flips=groups)
    return list(by_key.values())


def _group_flips(readings: Sequence[Reading], base: Values, table: Values) -> dict[str, Flips]:
    found: dict[str, Flips] = {}
    for columns in breakdowns(readings, item_ids(readings)):
        sides = _corrected([flips(base[some], table[:, some]) for some in columns.values()])
        found |= dict(zip(columns, sides, strict=True))
    return found


def _corrected(found: Sequence[tuple[int, int, int, float]]) -> list[Flips]:
    adjusted = holm([p for *_, p in found])
    return [
        Flips(lost, won, n, round(p, 6), round(better, 6))
        for (lost, won, n, p), better in zip(found, adjusted, strict=True)
    ]


def _with_outcomes(found: Sequence[Cell], measured: Sequence[Measured]) -> list[Cell]:
    """The cells, those of tasks with the four outcomes with the share of each.

    The figure of a task folds the four into one; here they stay apart, because a remedy that turns
    refusals into gibberish and one that turns them into compliance look alike in the figure.
    Shares are over items and seeds, like every figure; a reply whose outcome nobody could tell is
    unscored in all four. Groups are broken down at final checkpoints only.
    """
    by_key = _by_key(found)
    order, _ = _of_base(measured)
    last = _last_steps(measured)
    four = {task for task in order if _has_four([p for p in measured if p.task == task])}
    for point in measured:
        if point.task not in four:
            continue
        ids = order[point.task]
        tables = {name: _outcome_table(point, ids, name) for name in OUTCOMES}
        told = [replace(r, value=_told(r, OUTCOMES)) for r in point.replies]
        groups: dict[str, dict[str, Share]] = {}
        if point.step == last[point.arm]:
            said = _by_item(told)
            for parts in breakdowns(point.readings[0], ids):
                groups |= {
                    name: _shares(tables, columns, _of(said, ids, columns))
                    for name, columns in parts.items()
                }
        by_key[point.key] = replace(
            by_key[point.key],
            outcome_shares=_shares(tables, range(len(ids)), told),
            group_outcomes=groups,
        )
    return list(by_key.values())


def _has_four(measured: Sequence[Measured]) -> bool:
    seen = {reading.outcome for point in measured for reading in point.replies}
    return bool(seen & set(OUTCOMES)) and seen <= {*OUTCOMES, UNSURE, WITHHELD, MISSING}


def _outcome_table(point: Measured, ids: Sequence[str], outcome: str) -> Values:
    """A row per seed and a column per item: the share of its replies with this outcome."""
    runs = [[replace(r, value=_told(r, {outcome})) for r in some] for some in point.readings]
    return np.stack([values(readings, ids) for readings in runs])


def _told(reading: Reading, wanted: Collection[str]) -> float | None:
    """Whether a reply's outcome is among these; None where nobody could tell it."""
    return float(reading.outcome in wanted) if reading.outcome in OUTCOMES else None


def _shares(
    tables: Mapping[str, Values], columns: Sequence[int], readings: Sequence[Reading]
) -> dict[str, Share]:
    some = list(columns)
    return {
        name: _counted(as_share(mean_over_seeds(table[:, some])), readings)
        for name, table in tables.items()
    }
