"""Are flips, forgetting and noise what their definitions say, by hand and by other libraries?"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from holdfast.analysis.stats import (
    backward_transfer,
    flips,
    forgetting,
    holm,
    noise_floor,
    paired_difference,
    paired_p,
    retained_share,
    sample_backward_transfer,
    sample_forgetting,
)


def test_one_run_is_mcnemar() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 300))
        base = (rng.random(n) < 0.6).astype(float)
        tuned = (rng.random((1, n)) < 0.5).astype(float)
        tuned[0, rng.random(n) < 0.1] = math.nan
        keep = ~np.isnan(tuned[0])
        before, after = base[keep], tuned[0, keep]
        cells = [[int(((before == a) & (after == b)).sum()) for b in (1, 0)] for a in (1, 0)]
        found = flips(base, tuned)
        assert (found.lost, found.won, found.n) == (cells[0][1], cells[1][0], int(keep.sum()))
        expected = mcnemar(cells, exact=True).pvalue if found.n else 1.0
        assert found.p == pytest.approx(expected, rel=1e-9)
        assert paired_p(base, tuned) == found.p


def test_many_flips_do_not_underflow() -> None:
    found = flips(
        np.array([1.0] * 1500 + [0.0] * 1400), 1 - np.array([[1.0] * 1500 + [0.0] * 1400])
    )
    assert (found.lost, found.won) == (1500, 1400)
    assert found.p == pytest.approx(mcnemar([[0, 1500], [1400, 0]], exact=True).pvalue)


def test_several_runs_against_counting_all_arrangements() -> None:
    base = np.array([1.0, 1.0, 1.0, 0.0, 1.0])
    tuned = np.array([[0.0, 0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0, math.nan]])
    found = flips(base, tuned)
    assert (found.lost, found.won, found.n) == (2, 1, 5)
    # Were base and runs alike, each item's answers could stand in any order.
    items = [[1, 0, 0], [1, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1]]
    sums = [sum(first) for first in product(*items)]  # the base is any of an item's answers
    low = sum(one <= 4 for one in sums) / len(sums)
    high = sum(one >= 4 for one in sums) / len(sums)
    assert found.p == pytest.approx(min(1.0, 2 * min(low, high)))


def test_noisy_answers_of_several_runs_raise_no_alarm() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):  # right nine times of ten, before and after
        answers = (rng.random((4, 200)) < 0.9).astype(float)
        alarms += flips(answers[0], answers[1:]).p < 0.05
    assert alarms / 400 <= 0.07


def test_nothing_scored_is_no_proof() -> None:
    assert flips(np.full(4, math.nan), np.ones((2, 4))) == (0, 0, 0, 1.0)


def test_holm_against_statsmodels() -> None:
    rng = np.random.default_rng(2)
    for n in (1, 2, 6, 30):
        p_values = list(rng.random(n) ** 3)
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert holm([]) == []
    assert holm([0.04, 0.01, 0.01]) == pytest.approx([0.04, 0.03, 0.03])


def test_forgetting_is_the_paired_loss() -> None:
    base = np.array([1.0] * 8 + [0.0] * 2)
    tuned = np.array([[1.0] * 5 + [0.0] * 5])
    found = forgetting(base, tuned)
    assert found.mean == pytest.approx(0.3)
    change = paired_difference(base, tuned)
    assert (found.low, found.high) == (-change.high, -change.low)  # type: ignore[operator]
    assert forgetting(np.full(2, math.nan), np.ones((1, 2))).mean is None


def test_backward_transfer_weighs_tasks_alike() -> None:
    rng = np.random.default_rng(3)
    small = (np.ones(10), np.vstack([[1.0] * 8 + [0.0] * 2] * 3))
    large = (np.zeros(500), (rng.random((3, 500)) < 0.1).astype(float))
    found = backward_transfer([small, large])
    assert found.mean == pytest.approx((-0.2 + large[1].mean()) / 2)
    assert backward_transfer([small]) == paired_difference(*small)


def test_backward_transfer_sees_that_seeds_are_shared() -> None:
    # One seed is bad on both tasks: averaging tasks does not average that away ...
    one = np.array([[0.0], [0.1], [0.2]]) + np.zeros((3, 400))
    together = backward_transfer([(np.zeros(400), one), (np.zeros(400), one)])
    alone = backward_transfer([(np.zeros(400), one)])
    assert together[:3] == pytest.approx(alone[:3])
    # ... but shifts that cancel leave nothing.
    cancelled = backward_transfer([(np.zeros(400), one), (np.zeros(400), one[::-1])])
    assert cancelled.high is not None
    assert cancelled.high - 0.1 < 0.01


def test_retained_share() -> None:
    base = np.array([1.0] * 80 + [0.0] * 20)
    tuned = np.array([[1.0] * 60 + [0.0] * 40])
    found = retained_share(base, tuned)
    assert found.mean == pytest.approx(0.75)
    # Fieller by hand: the mean of tuned - r base is at its t limit at both ends
    for r in (found.low, found.high):
        assert r is not None
        change = tuned[0] - r * base
        t = change.mean() / (change.std(ddof=1) / 10)
        assert abs(t) == pytest.approx(1.984217, abs=1e-5)  # 99 degrees of freedom
    same = retained_share(base, base[None, :])
    assert same.mean == 1.0
    assert same.low == pytest.approx(1 - 3 / 80, abs=1e-3)


def test_retained_share_of_almost_nothing_is_unbounded() -> None:
    assert retained_share(np.zeros(20), np.ones((1, 20))).mean is None
    found = retained_share(np.array([1.0] + [0.0] * 19), np.ones((1, 20)))
    assert (found.mean, found.low, found.high) == (20.0, None, None)


def test_retained_share_uses_items_scored_on_both_sides() -> None:
    base = np.array([1.0, 1.0, 1.0, 1.0, math.nan])
    tuned = np.array([[1.0, 0.0, 1.0, math.nan, 1.0]])
    found = retained_share(base, tuned)
    assert (found.mean, found.n, found.unscored) == (pytest.approx(2 / 3), 3, 2)


def test_samples_that_moved() -> None:
    base = np.array([1.0] * 70 + [0.0] * 30)
    tuned = np.array([[1.0] * 50 + [0.0] * 20 + [1.0] * 10 + [0.0] * 20])
    assert sample_forgetting(base, tuned).mean == pytest.approx(0.2)
    assert sample_backward_transfer(base, tuned).mean == pytest.approx(0.1)
    # four options: (1 - .7)(1 - .6)/3 of the items moved by luck, either way
    assert sample_forgetting(base, tuned, options=4).mean == pytest.approx(0.2 - 0.04)
    assert sample_backward_transfer(base, tuned, options=4).mean == pytest.approx(0.1 - 0.04)
    assert sample_backward_transfer(base, tuned, options=2).mean == 0.0
    with pytest.raises(ValueError, match="options"):
        sample_forgetting(base, tuned, options=1)


def test_noise_floor() -> None:
    repeats = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, math.nan]])
    found = noise_floor(repeats)
    assert found.flipped == pytest.approx((1 / 4 + 1 / 3 + 2 / 3) / 3)
    assert found.difference == pytest.approx(2 / 3)
    assert noise_floor(np.ones((2, 5))) == (0.0, 0.0)
    with pytest.raises(ValueError, match="two or more"):
        noise_floor(np.ones((1, 5)))
