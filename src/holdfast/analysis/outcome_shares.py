"""How many replies had each of the four outcomes?

The figure of a task folds the four into one; here they stay apart, because a remedy that turns
refusals into gibberish and one that turns them into compliance look alike in the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analysis.arrays import as_share, breakdowns, item_ids, values
from holdfast.analysis.results import Cell, Share
from holdfast.analysis.stats import Values, mean_over_seeds
from holdfast.grading.safety_outcomes import MISSING, OUTCOMES, UNSURE, WITHHELD
from holdfast.types import BASE, Reading

if TYPE_CHECKING:
    from holdfast.analysis.summarize import Measured


def with_outcomes(cells: Sequence[Cell], measured: Sequence[Measured]) -> list[Cell]:
    """The cells, those of tasks with the four outcomes with the share of each.

    Shares are over items and seeds, like every figure; a reply whose outcome nobody could tell is
    unscored in all four. Groups are broken down at final checkpoints only.
    """
    found = {(c.arm, c.step, c.scale, c.task): c for c in cells}
    order = {one.task: item_ids(one.readings[0]) for one in measured if one.arm == BASE}
    last = {one.arm: max(o.step for o in measured if o.arm == one.arm) for one in measured}
    four = {name for name in order if _has_four([o for o in measured if o.task == name])}
    for one in measured:
        if one.task not in four:
            continue
        ids, key = order[one.task], (one.arm, one.step, one.scale, one.task)
        tables = {name: _table(one.readings, ids, name) for name in OUTCOMES}
        groups: dict[str, dict[str, Share]] = {}
        if one.step == last[one.arm]:
            for parts in breakdowns(one.readings[0], ids):
                groups |= {name: _shares(tables, columns) for name, columns in parts.items()}
        found[key] = replace(
            found[key],
            outcome_shares=_shares(tables, range(len(ids))),
            group_outcomes=groups,
        )
    return list(found.values())


def _has_four(measured: Sequence[Measured]) -> bool:
    seen = {reading.outcome for one in measured for some in one.readings for reading in some}
    return bool(seen & set(OUTCOMES)) and seen <= {*OUTCOMES, UNSURE, WITHHELD, MISSING}


def _table(readings: Sequence[Sequence[Reading]], ids: Sequence[str], outcome: str) -> Values:
    """A row per seed and a column per item: the share of its replies with this outcome."""

    def had(one: Reading) -> float | None:
        return float(one.outcome == outcome) if one.outcome in OUTCOMES else None

    return np.stack(
        [values([replace(one, value=had(one)) for one in some], ids) for some in readings]
    )


def _shares(tables: dict[str, Values], columns: Sequence[int]) -> dict[str, Share]:
    some = list(columns)
    return {name: as_share(mean_over_seeds(table[:, some])) for name, table in tables.items()}
