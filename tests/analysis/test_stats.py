"""Are the intervals what the textbooks say, and do they cover what they promise?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.proportion import proportion_confint

from holdfast.analysis.stats import mean_over_seeds, paired_difference, paired_p, wilson
from holdfast.analysis.stats.crossed import estimate
from holdfast.analysis.stats.intervals import mean_of


def test_wilson_against_published_values() -> None:
    # Newcombe 1998 (Stat. Med. 17:857), table I, score method without continuity correction
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                               (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):  # fmt: skip
        values = np.array([1.0] * hits + [0.0] * (n - hits))
        found = wilson(values)
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)


def test_unscored_items_take_no_part() -> None:
    found = wilson(np.array([1.0, 0.0, math.nan, math.nan]))
    assert (found.mean, found.n, found.unscored) == (0.5, 2, 2)
    empty = wilson(np.array([math.nan]))
    assert (empty.mean, empty.n, empty.unscored) == (None, 0, 1)


def test_the_difference_is_paired() -> None:
    base = np.array([1.0, 1.0, 0.0, 0.0, math.nan, 1.0])
    tuned = np.array([[1.0, 0.0, 0.0, 1.0, 1.0, math.nan]])
    found = paired_difference(base, tuned)
    assert (found.mean, found.n, found.unscored) == (0.0, 4, 2)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_no_spread_is_not_certainty() -> None:
    one = paired_difference(np.ones(100), np.ones((1, 100)))
    assert one.low == pytest.approx(-0.037, abs=0.001)
    several = paired_difference(np.ones(100), np.ones((3, 100)))
    assert (several.low, several.high) == pytest.approx((-0.03, 0.03), abs=0.001)


def test_few_flips_are_no_proof() -> None:
    tuned = np.array([[0.0] * 4 + [1.0] * 96])
    found = paired_difference(np.ones(100), tuned)
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.08
    assert found.high >= 0, "four of four against: p = .125"


@pytest.mark.parametrize("counts", [(10, 12, 2, 26), (794, 86, 150, 570), (80, 9, 1, 10)])
def test_the_ends_are_where_the_score_test_says(counts: tuple[int, int, int, int]) -> None:
    """With the likeliest shares under each end found by search instead of Tango's formula."""
    from scipy.optimize import minimize_scalar

    both, lost, won, neither = counts
    n = sum(counts)
    base = np.array([1.0] * (both + lost) + [0.0] * (won + neither))
    tuned = np.array([[1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * neither])
    found = paired_difference(base, tuned)
    for end, z in ((found.low, 1.959964), (found.high, -1.959964)):
        assert end is not None

        def surprise(share: float, end: float = end) -> float:
            return -(lost * math.log(share) + won * math.log(share + end)
                     + (both + neither) * math.log(1 - 2 * share - end))  # fmt: skip

        span = (max(1e-9, 1e-9 - end), (1 - end) / 2 - 1e-9)
        share = minimize_scalar(surprise, bounds=span, method="bounded",
                                options={"xatol": 1e-12}).x  # fmt: skip
        score = (won - lost - n * end) / math.sqrt(n * (2 * share + end - end * end))
        assert score == pytest.approx(z, abs=1e-3)


def test_a_loss_is_not_understated_where_the_base_is_right_half_the_time() -> None:
    """Newcombe's interval puts its low end above the truth in one of twelve such draws."""
    rng = np.random.default_rng(3)
    above = 0
    for _ in range(1000):
        lost = rng.binomial(100, 0.025)
        base = np.array([1.0] * 50 + [0.0] * 50)
        tuned = base.copy()
        tuned[: min(lost, 50)] = 0.0
        found = paired_difference(base, tuned[None, :])
        assert found.low is not None
        above += found.low > -0.025
    assert above <= 25 + 15, "2.5 %, and what chance adds"


def test_crossed_variance_is_that_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(4, 1)) + rng.normal(size=(1, 30)) * 2 + rng.normal(size=(4, 30))
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    left = table - rows[:, None] - columns[None, :] + mean
    by_seed, by_item, rest = rows.var(ddof=1) / 4, columns.var(ddof=1) / 30, (left**2).sum() / 87
    found = estimate([table])
    assert found is not None
    assert found.mean == pytest.approx(mean)
    assert found.seeds == pytest.approx(by_seed)
    assert found.items == pytest.approx(by_item - rest / 120)
    assert (found.seed_df, found.item_df) == (3, 29)


def test_crossed_variance_is_what_resampling_seeds_and_items_has() -> None:
    rng = np.random.default_rng(4)
    table = rng.normal(size=(8, 1)) + rng.normal(size=(1, 200)) * 5 + rng.normal(size=(8, 200))
    seeds = rng.multinomial(8, np.full(8, 1 / 8), size=4000)
    items = rng.multinomial(200, np.full(200, 1 / 200), size=4000)
    drawn = ((seeds @ table) * items).sum(axis=1) / 1600
    found = estimate([table])
    assert found is not None
    naive = found.seeds * 7 / 8 + found.items * 199 / 200  # resampling is too narrow by (S - 1)/S
    assert drawn.var() == pytest.approx(naive, rel=0.08)


def test_holes_are_left_out_of_the_fit() -> None:
    additive = np.array([[0.0], [0.1], [0.3]]) + np.linspace(0, 0.5, 12)[None, :]
    holed = additive.copy()
    holed[0, 2] = holed[2, 7] = math.nan
    found = estimate([holed])
    assert found is not None
    assert (found.n, found.unscored) == (12, 2)
    full = estimate([additive])
    assert full is not None
    assert found.variance == pytest.approx(full.variance, rel=0.25)
    # a seed without any value is no seed
    lost = estimate([np.vstack([additive, np.full((1, 12), math.nan)])])
    assert lost is not None
    assert lost[:6] == pytest.approx(full[:6])


def test_three_seeds_reach_beyond_their_values() -> None:
    table = np.array([[0.0], [0.1], [0.2]]) + np.zeros((3, 500))
    found = paired_difference(np.zeros(500), table)
    t = 4.302653  # t table, 2 degrees of freedom
    half = t * 0.1 / math.sqrt(3)
    assert found[:3] == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-5)


def test_p_value_and_interval_tell_the_same_story() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        base = (rng.random(60) < 0.7).astype(float)
        tuned = (rng.random((3, 60)) < 0.7 - rng.random() * 0.4).astype(float)
        found, p = paired_difference(base, tuned), paired_p(base, tuned)
        assert found.low is not None
        assert found.high is not None
        assert 0 <= p <= 1
        if p < 0.05:
            assert found.low > 0 or found.high < 0
    assert paired_p(np.ones(40), np.ones((3, 40))) == 1.0
    assert paired_p(np.full(3, math.nan), np.ones((2, 3))) == 1.0
    far = paired_p(np.ones(40), np.zeros((3, 40)))
    assert far < 1e-10  # forty of forty lost: 2 ** -39, and never 0


def test_p_value_of_seeds_alone_is_the_t_test() -> None:
    rows = np.array([[0.02], [0.10], [0.09]])
    found = paired_p(np.zeros(50), rows + np.zeros((3, 50)))
    assert found == pytest.approx(ttest_1samp(rows[:, 0], 0).pvalue, rel=1e-6)


def test_fractions_of_one_seed_are_a_t_interval() -> None:
    rng = np.random.default_rng(6)
    base, tuned = rng.random(40), rng.random((1, 40))
    change = ttest_1samp(tuned[0] - base, 0)
    low, high = change.confidence_interval(0.95)
    found = paired_difference(base, tuned)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert paired_p(base, tuned) == pytest.approx(change.pvalue, rel=1e-6)


def test_wilson_against_statsmodels() -> None:
    rng = np.random.default_rng(8)
    for _ in range(100):
        n = int(rng.integers(1, 400))
        hits = int(rng.integers(0, n + 1))
        found = wilson(np.array([1.0] * hits + [0.0] * (n - hits)))
        low, high = proportion_confint(hits, n, method="wilson")
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_shares_stay_between_0_and_1_and_never_claim_certainty() -> None:
    found = mean_over_seeds(np.ones((3, 50)))
    assert found.high == 1.0
    assert found.low == pytest.approx(wilson(np.ones(50)).low)
    table = np.ones((2, 50))
    table[0, :20] = 0
    wide = mean_over_seeds(table)
    assert wide.low is not None
    assert wide.high is not None
    assert 0 <= wide.low < 0.4 < 0.9 < wide.high <= 1


def test_several_seeds_widen() -> None:
    rng = np.random.default_rng(1)
    one = (rng.random((1, 100)) < 0.5).astype(float)
    far = np.vstack([np.zeros((1, 100)), np.ones((1, 100)), one])
    narrow, wide = mean_over_seeds(np.vstack([one] * 3)), mean_over_seeds(far)
    assert None not in (narrow.low, narrow.high, wide.low, wide.high)
    assert wide.high - wide.low > narrow.high - narrow.low  # type: ignore[operator]


def test_fractions_that_all_moved_alike_are_never_certain() -> None:
    base = np.array([1 / 3, 2 / 3] * 5)
    found = paired_difference(base, (np.round(3 * base + 1) / 3)[None])
    assert found.low is not None and found.high is not None
    assert found.low < 0.05 and found.high > 0.6  # ten items; rounding is no spread
    assert paired_p(base, (np.round(3 * base + 1) / 3)[None]) > 0.03
    assert paired_p(np.ones(1), np.full((1, 1), 0.5)) == 1


def test_few_lost_fractions_are_judged_like_whole_answers() -> None:
    """With 2 % truly lost, one kept margin of two points in forty, not one in five."""
    base = np.ones(150)
    base[0] = 0.5
    for lost, least in ((0, -0.0251), (1, -0.0391), (2, -0.0486)):
        tuned = base.copy()
        tuned[1 : 1 + lost] = 0
        whole = paired_difference(np.ones(150), np.where(tuned == 0, 0.0, 1.0)[None])
        found = paired_difference(base, tuned[None])
        assert found.low is not None and whole.low is not None
        assert found.low < -0.02 and found.low == pytest.approx(least, abs=0.003)
        assert found.low <= whole.low + 1e-9 or lost > 1
    rng = np.random.default_rng(0)
    before, after = rng.binomial(4, 0.5, 600) / 4, rng.binomial(4, 0.5, 600) / 4
    usual = mean_of([(after - before)[None]])
    assert paired_difference(before, after[None]) == usual  # enough items: nothing is widened
