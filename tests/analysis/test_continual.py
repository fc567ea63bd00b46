"""Are transfer, forgetting and average accuracy those of the papers, on paired items?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from holdfast.analysis.arrays import Measured
from holdfast.analysis.findings import Learned, Transfer
from holdfast.analysis.stats.continual import (
    average_accuracy,
    average_difference,
    forward_transfer,
    stage_backward_transfer,
    stage_forgetting,
)
from holdfast.analysis.transfer import in_words, transfers
from holdfast.types import Reading

ITEMS = (40, 60, 50)


def _tables(seed: int, rows: int, seeds: int = 3) -> list[list[np.ndarray]]:
    """`rows` stages of three tasks, drawn at random, of shape (seeds, items)."""
    rng = np.random.default_rng(seed)
    return [
        [(rng.random((seeds, n)) < rng.uniform(0.2, 0.8)).astype(float) for n in ITEMS]
        for _ in range(rows)
    ]


def test_measures_are_those_of_the_papers() -> None:
    """Against sums written out from the accuracies alone."""
    after, base = _tables(1, 3), [one[:1] for one in _tables(2, 1)[0]]
    acc = [[float(one.mean()) for one in row] for row in after]
    first = [float(one.mean()) for one in base]
    average = average_accuracy(after[-1])
    backward, forward = stage_backward_transfer(after), forward_transfer(base, after)
    lost = stage_forgetting(after)
    assert average and backward and forward and lost
    assert average.mean == pytest.approx(sum(acc[2]) / 3)
    assert backward.mean == pytest.approx(((acc[2][0] - acc[0][0]) + (acc[2][1] - acc[1][1])) / 2)
    assert forward.mean == pytest.approx(((acc[0][1] - first[1]) + (acc[1][2] - first[2])) / 2)
    best = [max(acc[0][j], acc[1][j]) for j in range(2)]
    assert lost.mean == pytest.approx(sum(best[j] - acc[2][j] for j in range(2)) / 2)
    for one in (average, backward, forward, lost):
        assert one.low is not None and one.high is not None and one.mean is not None
        assert one.low < one.mean < one.high


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_with_two_stages_forgetting_is_backward_transfer_turned(seeds: int) -> None:
    after = [row[:2] for row in _tables(3, 2, seeds)]
    backward, lost = stage_backward_transfer(after), stage_forgetting(after)
    assert backward and lost and lost.low is not None and lost.high is not None
    assert (lost.mean, lost.low, lost.high) == pytest.approx(
        (-(backward.mean or 0), -(backward.high or 0), -(backward.low or 0)), abs=1e-9
    )


def test_differences_are_paired() -> None:
    """Items that both have right take no part: the interval is that of pairs."""
    rng = np.random.default_rng(0)
    before = (rng.random((1, 400)) < 0.5).astype(float)
    after = before.copy()
    after[0, np.flatnonzero(before[0])[:20]] = 0.0
    found = stage_backward_transfer([[before, None], [after, before]])
    assert found and found.high is not None and found.high < 0
    assert found.mean == pytest.approx(-20 / 400)


def test_an_interval_covers_what_is_true() -> None:
    """Items and seeds drawn anew 300 times: the truth lies inside about as often as promised."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        skill = rng.normal(0, 0.03, size=4)  # of each seed, shared by the tasks
        pairs = []
        for n in (150, 100):
            ease = rng.uniform(0.2, 0.8, size=n)
            first = rng.random((4, n)) < ease
            last = rng.random((4, n)) < np.clip(ease - 0.1 + skill[:, None], 0, 1)
            pairs.append((first.astype(float), last.astype(float)))
        found = stage_backward_transfer(
            [[pairs[0][0], None, None], [None, pairs[1][0], None],
             [pairs[0][1], pairs[1][1], pairs[0][0]]]
        )  # fmt: skip
        assert found and found.low is not None and found.high is not None
        inside += found.low <= -0.1 <= found.high
    assert inside >= 300 * 0.90


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [((1000, 20), (0.5, 0.95)), ((1000, 20), (0.0, 0.05)), ((200, 200), (0.5, 0.5))],
)
def test_tasks_of_different_sizes_hold_what_is_promised(
    sizes: tuple[int, int], shares: tuple[float, float]
) -> None:
    """One seed; added up, the variances of these covered 69 and 66 %."""
    rng, inside = np.random.default_rng(2), 0
    for _ in range(400):
        tables = [
            (rng.random((1, n)) < share).astype(float)
            for n, share in zip(sizes, shares, strict=True)
        ]
        found = average_accuracy(tables)
        assert found is not None and found.low is not None and found.high is not None
        inside += found.low <= sum(shares) / 2 <= found.high
    assert inside >= 0.9 * 400


def test_what_was_not_measured_is_not_told() -> None:
    after: list[list[np.ndarray | None]] = [list(row) for row in _tables(7, 3)]
    after[0][0] = None
    assert stage_backward_transfer(after) is None
    assert stage_forgetting(after) is None
    assert average_accuracy(after[-1]) is not None
    unscored = [np.full_like(one, np.nan) for one in _tables(7, 1)[0]]
    found = average_difference(unscored, _tables(8, 1)[0])
    assert found is not None and found.mean is None


def _readings(good: int, items: int = 100) -> list[Reading]:
    return [Reading(f"i{n}", 0, float(n < good), "x") for n in range(items)]


def _measured(arms: dict[str, list[tuple[int, int]]]) -> list[Measured]:
    found = [Measured("base", 0, task, [_readings(10)]) for task in ("math", "code")]
    for arm, rows in arms.items():
        for step, row in zip((5, 10), rows, strict=False):
            for task, good in zip(("math", "code"), row, strict=True):
                found.append(Measured(arm, step, task, [_readings(good)], seeds=(1,)))
    return found


def _transfers(arms: dict[str, list[tuple[int, int]]]) -> Sequence[Transfer]:
    return transfers([Learned("math", 5), Learned("code", 10)], _measured(arms))


def test_arms_are_compared_with_the_first() -> None:
    sft, held = _transfers({"sft": [(80, 15), (30, 90)], "held": [(80, 20), (70, 85)]})
    assert sft.average and sft.average.mean == pytest.approx(0.6)
    assert sft.backward and sft.backward.mean == pytest.approx(-0.5)
    assert sft.forward and sft.forward.mean == pytest.approx(0.05)
    assert sft.forgetting and sft.forgetting.mean == pytest.approx(0.5)
    assert sft.since["math"].mean == pytest.approx(-0.5) and "code" not in sft.since
    assert sft.against is None
    assert held.against and held.against.mean == pytest.approx(0.175)
    assert held.against.low is not None and held.against.low > 0
    said = in_words([sft, held], 2)
    assert "60.0 %" in said and "\u221250.0" in said and "has held: +17.5" in said


def test_an_arm_that_is_not_through_is_left_out() -> None:
    assert not _transfers({"sft": [(80, 15)]})
    assert not transfers([], _measured({"sft": [(80, 15), (30, 90)]}))
