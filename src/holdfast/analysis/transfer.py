"""What became of tasks that were learned one after the other, arm by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from holdfast.analysis.arrays import Measured, as_share, item_ids, values
from holdfast.analysis.findings import Learned, Share, Transfer
from holdfast.analysis.selection.rule import in_points, span
from holdfast.analysis.stats import Interval, Values
from holdfast.analysis.stats.continual import (
    Row,
    average_accuracy,
    average_difference,
    difference,
    forward_transfer,
    stage_backward_transfer,
    stage_forgetting,
)
from holdfast.types import BASE

MEASURES = ("average", "backward", "forward", "forgetting", "against")
"""Attributes of a `Transfer` that are shown side by side; the first is a share."""
Place = tuple[str, int, float, str]
"""Arm, step, scale, task."""
Tables = Mapping[Place, tuple[Sequence[int | None], Values]]
"""Seeds and values, shape (seeds, items), of every point."""


def transfers(learned: Sequence[Learned], measured: Sequence[Measured]) -> list[Transfer]:
    """Transfer, forgetting and average accuracy of every arm measured after the last stage.

    Args:
        learned: the stages in their order; none where one task is learned.
        measured: all readings.

    Returns:
        One for each arm, in the order in which they were measured. What needs a point that was not
        measured, or other seeds, is None.
    """
    if not learned:
        return []
    tables = _tables(measured)
    base = [_of(tables, (BASE, 0, 1.0, one.task)) for one in learned]
    found: list[Transfer] = []
    first: tuple[Sequence[int | None], Row] | None = None
    for arm in dict.fromkeys(point.arm for point in measured if point.arm != BASE):
        ends = [key for key in tables if key[:2] == (arm, learned[-1].step)]
        if not ends:
            continue
        scale, seeds = max(key[2] for key in ends), tables[ends[0]][0]
        after = [
            [_of(tables, (arm, of.step, scale, one.task), seeds) for one in learned]
            for of in learned
        ]
        last = after[-1]
        alike = first is not None and first[0] == seeds
        found.append(
            Transfer(
                arm,
                scale,
                _shared(average_accuracy(last)),
                _shared(stage_backward_transfer(after)),
                _shared(forward_transfer(base, after)),
                _shared(stage_forgetting(after)),
                _shared(average_difference(last, first[1])) if first and alike else None,
                _since(learned, after),
            )
        )
        first = first or (seeds, last)
    return found


def _since(learned: Sequence[Learned], after: Sequence[Row]) -> dict[str, Share]:
    """What became of each earlier task from the end of its own stage to that of the last."""
    found = {}
    for place, one in enumerate(learned[:-1]):
        if interval := difference(after[place][place], after[-1][place]):
            found[one.task] = as_share(interval)
    return found


def _of(tables: Tables, place: Place, seeds: Sequence[int | None] = (None,)) -> Values | None:
    """A point's values, if it was measured with these seeds."""
    found = tables.get(place)
    return found[1] if found is not None and found[0] == seeds else None


def _shared(interval: Interval | None) -> Share | None:
    return None if interval is None else as_share(interval)


def _tables(measured: Sequence[Measured]) -> Tables:
    """Every point's values, shape (seeds, items), items in the untouched model's order."""
    ids = {point.task: item_ids(point.readings[0]) for point in measured if point.arm == BASE}
    return {
        point.key: (
            tuple(point.seeds),
            np.stack([values(readings, ids[point.task]) for readings in point.readings]),
        )
        for point in measured
    }


def in_words(found: Sequence[Transfer], stages: int) -> str:
    """What the first arm had after the last stage, and which arm had most, in a sentence or two."""
    if not found or (first := found[0]).average is None or first.average.mean is None:
        return ""
    said = [
        f"After {stages} stages {first.arm} is right on {_percent(first.average)} of the items of "
        "their tasks, which weigh alike"
    ]
    if first.backward is not None and first.backward.mean is not None:
        said.append(
            f"what it had learned before changed by {_points(first.backward)} points "
            f"{_ends(first.backward)}"
        )
    text = "; ".join(said) + "."
    best = max((one for one in found if one.average), key=lambda one: _mean(one.average))
    if best is first or best.against is None:
        return text
    return (
        f"{text} The highest average has {best.arm}: {_points(best.against)} points "
        f"{_ends(best.against)} against {first.arm}."
    )


def _mean(share: Share | None) -> float:
    return -1.0 if share is None or share.mean is None else share.mean


def _percent(share: Share) -> str:
    return (
        f"{100 * _mean(share):.1f} % [{100 * (share.low or 0):.1f}, {100 * (share.high or 0):.1f}]"
    )


def _points(share: Share) -> str:
    return in_points(share.mean or 0.0)


def _ends(share: Share) -> str:
    return span(share.low, share.high)
