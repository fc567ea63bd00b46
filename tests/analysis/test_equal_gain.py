"""Are curves read at a common gain, and do the intervals cover what they promise?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from holdfast.analysis.stats.equal_gain import Curve, at_gain, at_loss


def _flat(means: list[float], items: int = 100) -> Any:
    """Differences whose means are given, one seed: the first items moved, the others not."""
    table = np.zeros((len(means), 1, items))
    for place, mean in enumerate(means):
        table[place, 0, : abs(round(mean * items))] = math.copysign(1.0, mean)
    return table


def test_a_curve_is_read_between_two_checkpoints() -> None:
    curve = Curve(_flat([0.2, 0.4]), _flat([-0.1, -0.5]))
    assert at_gain(curve, 0.1).change == pytest.approx(-0.05)  # from the untouched model on
    assert at_gain(curve, 0.2).change == pytest.approx(-0.1)
    assert at_gain(curve, 0.3).change == pytest.approx(-0.3)
    assert curve.most == pytest.approx(0.4)


def test_where_a_curve_falls_again_its_first_crossing_counts() -> None:
    curve = Curve(_flat([0.4, 0.1, 0.5]), _flat([-0.2, -0.6, -0.8]))
    assert at_gain(curve, 0.2).change == pytest.approx(-0.1)
    assert at_gain(curve, 0.45).change == pytest.approx(-0.6 - 0.2 * (0.35 / 0.4))


def test_a_gain_that_is_never_reached() -> None:
    found = at_gain(Curve(_flat([0.1]), _flat([-0.1])), 0.3)
    assert math.isnan(found.change) and found.interval.mean is None
    hardly = at_gain(Curve(_flat([0.3]), _flat([-0.1])), 0.3)
    assert hardly.change == pytest.approx(-0.1) and 0.3 < hardly.reached < 0.7
    assert hardly.interval.low is None, "in half of the resamples it does not gain that much"


def test_unscored_items_take_no_part() -> None:
    target, retained = _flat([0.5]), _flat([-0.5])
    retained[0, 0, 50:] = math.nan
    found = at_gain(Curve(target, retained), 0.5)
    assert (found.change, found.n) == (pytest.approx(-1.0), 50)
    nothing = at_gain(Curve(target, np.full_like(retained, math.nan)), 0.5)
    assert nothing.interval.mean is None and nothing.n == 0


def test_a_checkpoint_that_could_not_be_scored_is_passed_over() -> None:
    target = _flat([0.1, 0.2, 0.6])
    target[1] = math.nan
    assert at_gain(Curve(target, _flat([-0.1, -0.9, -0.6])), 0.35).change == pytest.approx(-0.35)


def test_a_gain_that_is_no_share_may_be_above_one() -> None:
    curve = Curve(3 * _flat([0.3, 0.5]), _flat([-0.1, -0.4]), gains=False)
    found = at_loss(curve, 0.5).interval
    assert found.mean == pytest.approx(1.5) and found.high is not None and found.high > 1.5


def test_an_arm_against_itself_differs_by_nothing() -> None:
    curve = Curve(_flat([0.4]), _flat([-0.3]))
    one, two = at_gain(curve, 0.2), at_gain(curve, 0.2)
    alike = one.less(two)
    assert alike.mean == 0.0 and alike.high == pytest.approx(-math.log(0.05) / 100)


def _study(rng: Any, seeds: int, items: int = 200) -> Curve:
    """Gains 0.15 and 0.3, losses 0.1 and 0.4 on average; seeds differ, items are won or lost."""
    target, retained = np.zeros((2, seeds, items)), np.zeros((2, seeds, items))
    easy = rng.random((2, items))
    for seed in range(seeds):
        shift = rng.normal(0, 0.03) if seeds > 1 else 0.0
        for step, (gain, loss) in enumerate(((0.15, 0.1), (0.3, 0.4))):
            target[step, seed] = easy[0] < gain
            retained[step, seed] = -1.0 * (easy[1] < loss + shift)
    return Curve(target, retained)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_cover_the_truth(seeds: int) -> None:
    """At a gain of 0.2 a third of the way to the second checkpoint: -0.1 - 0.3 / 3 = -0.2."""
    rng, inside, told = np.random.default_rng(5), 0, 0
    for number in range(120):
        found = at_gain(_study(rng, seeds), 0.2, seed=number).interval
        if found.low is not None and found.high is not None:
            told += 1
            inside += found.low <= -0.2 <= found.high
    assert told > 110 and 0.9 <= inside / told <= 1.0


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    narrow = _study(rng, 3)
    wide = Curve(narrow.target, narrow.retained.copy())
    wide.retained[:, 0, :60] = -1.0
    one, two = (at_gain(curve, 0.1).interval for curve in (narrow, wide))
    assert None not in (one.low, one.high, two.low, two.high)
    assert two.high - two.low > 1.5 * (one.high - one.low)  # type: ignore[operator]


def test_the_most_that_was_gained_before_so_much_was_lost() -> None:
    curve = Curve(_flat([0.2, 0.1, 0.4]), _flat([-0.1, -0.2, -0.5]))
    assert at_loss(curve, 0.05).change == pytest.approx(0.1)
    assert at_loss(curve, 0.15).change == pytest.approx(0.2), "it had been more before"
    assert at_loss(curve, 0.35).change == pytest.approx(0.25)
    assert at_loss(curve, 0.9).change == pytest.approx(0.4) and at_loss(curve, 0.9).reached == 0
    assert at_loss(curve, 0.3).reached > 0.99 and curve.worst == pytest.approx(0.5)
    worse = at_loss(Curve(_flat([-0.3]), _flat([-0.4])), 0.2)
    assert worse.change == 0.0, "the untouched model has lost nothing"


def test_what_could_not_be_scored_was_not_gained() -> None:
    target, retained = _flat([0.3, 0.5]), _flat([-0.1, -0.2])
    target[1] = math.nan
    assert at_loss(Curve(target, retained), 0.15).change == pytest.approx(0.3)
    nothing = at_loss(Curve(np.full_like(target, math.nan), retained), 0.15)
    assert nothing.interval.mean is None and nothing.n == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_of_the_gain_cover_the_truth(seeds: int) -> None:
    """At a loss of 0.2 a third of the way to the second checkpoint: 0.15 + 0.15 / 3 = 0.2."""
    rng, inside, told = np.random.default_rng(6), 0, 0
    for number in range(120):
        found = at_loss(_study(rng, seeds), 0.2, seed=number).interval
        if found.low is not None and found.high is not None:
            told += 1
            inside += found.low <= 0.2 <= found.high
    assert told > 110 and 0.9 <= inside / told <= 1.0
