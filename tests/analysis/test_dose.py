"""Is "the more is gained, the more is forgotten" said where it holds, and not where it does not?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from fixtures.timing import worked
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from holdfast.analysis.stats import DosePoint, Values, dose_response
from holdfast.analysis.stats.dose import net_rise, rank_correlation, rising_fit


def _values(share: float, items: int = 200) -> Values:
    """So many ones, then zeros: items that fall in a fixed order."""
    return (np.arange(items) < round(share * items)).astype(float)


def _points(arm: str, pairs: list[tuple[float, float]], seeds: int = 1) -> list[DosePoint]:
    """Points of given gains and losses, from a base with 0 on the target and 1 on the other."""
    return [
        DosePoint(arm, seed, _values(gain + 0.01 * seed), _values(1 - loss - 0.01 * seed))
        for seed in range(seeds)
        for gain, loss in pairs
    ]


BASE_TARGET, BASE_RETAINED = np.zeros(200), np.ones(200)
RISING = [(0.1, 0.02), (0.2, 0.08), (0.3, 0.12), (0.4, 0.22), (0.5, 0.3), (0.6, 0.4)]


def _weights(rng: np.random.Generator, points: int) -> Values:
    return rng.integers(0, 4, (20, points)).astype(float)


def test_rho_against_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.integers(0, 6, (1, 9)).astype(float), rng.integers(0, 6, (1, 9)).astype(float)
        weights = _weights(rng, 9)
        found = rank_correlation([x], [y], [weights])
        for one, weight in zip(found, weights.astype(int), strict=True):
            a, b = np.repeat(x[0], weight), np.repeat(y[0], weight)
            if len(set(a)) < 2 or len(set(b)) < 2:
                assert math.isnan(one)
            else:
                assert one == pytest.approx(spearmanr(a, b).statistic)
        many = rng.normal(size=(5, 9))
        drawn = rank_correlation([many], [many**3 + y], [np.ones((1, 9))])
        assert drawn == pytest.approx([spearmanr(r, r**3 + y[0]).statistic for r in many])


def test_rise_against_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.permutation(12).astype(float)[None, :], rng.normal(size=(1, 12))
    weights = _weights(rng, 12)
    order = np.argsort(x[0])
    for found, weight in zip(net_rise([x], [y], [weights]), weights, strict=True):
        kept = [i for i in order if weight[i]]
        up = isotonic_regression(y[0, kept], weights=weight[kept]).x
        down = isotonic_regression(y[0, kept], weights=weight[kept], increasing=False).x
        assert found == pytest.approx((up[-1] - up[0]) - (down[0] - down[-1]))


def test_fit_pools_points_of_equal_gain() -> None:
    x, y = np.array([[0.0, 0.0, 1.0, 2.0]]), np.array([[0.0, 2.0, 0.5, 3.0]])
    found = np.array(rising_fit([x], [y]))
    assert found == pytest.approx(np.array([(0, 2.5 / 3), (1, 2.5 / 3), (2, 3)]))
    assert net_rise([x], [y], [np.ones((1, 4))])[0] == pytest.approx(
        (3 - 2.5 / 3) - (1 - 1)  # falling: heads 1, .83, 1.375; tails 1.375, 1.75, 3
        - (1.375 - 1.375)
    )  # fmt: skip


def test_more_gain_more_loss() -> None:
    arm, pooled = dose_response(_points("lora", RISING, seeds=3), BASE_TARGET, BASE_RETAINED)
    assert (arm.arm, pooled.arm, arm.points, pooled.points) == ("lora", "", 18, 18)
    for found in (arm, pooled):
        assert found.words == "supported"
        assert found.rho is not None
        assert found.rise is not None
        assert found.rho.mean == pytest.approx(
            spearmanr(
                [gain + 0.01 * seed for seed in range(3) for gain, _ in RISING],
                [loss + 0.01 * seed for seed in range(3) for _, loss in RISING],
            ).statistic
        )
        assert 0 < found.rise.low < found.rise.mean < found.rise.high  # type: ignore[operator]
    assert arm.curve[0] == pytest.approx((0.1, 0.02))
    assert arm.curve[-1] == pytest.approx((0.62, 0.42))
    assert [loss for _, loss in arm.curve] == sorted(loss for _, loss in arm.curve)


def test_more_gain_less_loss_is_not_supported() -> None:
    falling = [(gain, loss) for (gain, _), (_, loss) in zip(RISING, RISING[::-1], strict=True)]
    arm, _ = dose_response(_points("lora", falling, seeds=3), BASE_TARGET, BASE_RETAINED)
    assert arm.words == "not supported"
    assert arm.rho is not None
    assert arm.rho.mean == pytest.approx(-1, abs=0.1)
    assert arm.rise is not None
    assert arm.rise.high is not None
    assert arm.rise.high < 0


def test_arms_are_never_compared_with_each_other() -> None:
    # Within both arms more gain goes with less loss; across arms it looks the other way round.
    gentle = [(0.1 + 0.02 * i, 0.12 - 0.02 * i) for i in range(6)]
    harsh = [(0.6 + 0.02 * i, 0.62 - 0.02 * i) for i in range(6)]
    points = _points("gentle", gentle) + _points("harsh", harsh)
    pooled = dose_response(points, BASE_TARGET, BASE_RETAINED)[-1]
    assert pooled.rho is not None
    assert pooled.rho.mean == pytest.approx(-1)
    assert pooled.words != "supported"
    assert pooled.rise is not None
    assert pooled.rise.mean is not None
    assert pooled.rise.mean < 0


def test_pooled_rho_weighs_arms_by_their_points() -> None:
    points = _points("up", RISING) + _points("down", [(0.1, 0.3), (0.3, 0.2), (0.5, 0.1)])
    pooled = dose_response(points, BASE_TARGET, BASE_RETAINED)[-1]
    assert pooled.rho is not None
    assert pooled.rho.mean == pytest.approx((6 - 3) / 9)


def test_seeds_that_disagree_prove_nothing() -> None:
    # Two seeds rise, one falls as far: every seed's own figure is sharp, the training's is not.
    up, down = RISING, [(g, p) for (g, _), (_, p) in zip(RISING, RISING[::-1], strict=True)]
    runs = [up, up, down]
    points = [
        DosePoint("lora", seed, _values(gain), _values(1 - loss))
        for seed, run in enumerate(runs)
        for gain, loss in run
    ]
    arm, _ = dose_response(points, BASE_TARGET, BASE_RETAINED)
    assert arm.words == "not supported"
    assert arm.rho is not None
    assert arm.rho.low is not None
    assert arm.rho.low < 0


@pytest.mark.parametrize(
    "pairs",
    [
        RISING[:4],  # too few
        [RISING[0]] * 3 + [RISING[3]] * 3,  # two distinct points
        [(0.3 + 0.001 * i, loss) for i, (_, loss) in enumerate(RISING)],  # gains alike
        [(gain, 0.1 + 0.005 * (i % 2)) for i, (gain, _) in enumerate(RISING)],  # losses alike
        [],
    ],
)
def test_too_little_data(pairs: list[tuple[float, float]]) -> None:
    points = _points("lora", pairs) or _points("other", RISING[:1])
    arm, pooled = dose_response(points, BASE_TARGET, BASE_RETAINED)
    assert arm.words == pooled.words == "too little data"


def test_noise_alone_is_not_supported() -> None:
    rng = np.random.default_rng(2)
    supported = 0
    for study in range(40):
        points = [
            DosePoint("lora", s, (rng.random(200) < 0.1 * k).astype(float), rng.random(200) // 0.3)
            for s in range(3)
            for k in range(1, 7)
        ]
        for point in points:
            point.retained.clip(0, 1, out=point.retained)
        found = dose_response(points, BASE_TARGET, BASE_RETAINED, seed=study, draws=200)
        supported += found[-1].words == "supported"
    assert supported <= 2


def test_unscored_items_take_no_part() -> None:
    holed = [
        DosePoint(one.arm, one.seed, one.target.copy(), one.retained.copy())
        for one in _points("lora", RISING)
    ]
    for point in holed:
        point.target[199], point.retained[0] = math.nan, math.nan
    arm, _ = dose_response(holed, BASE_TARGET, BASE_RETAINED)
    assert arm.curve[0] == pytest.approx((20 / 199, 4 / 199))
    empty = DosePoint("lora", 0, np.full(200, math.nan), np.ones(200))
    more, _ = dose_response([*holed, empty], BASE_TARGET, BASE_RETAINED)
    assert more.points == 6


def test_seeded_and_fast() -> None:
    rng = np.random.default_rng(3)
    points = [
        DosePoint(f"arm{arm}", seed, rng.random(1300).round(), rng.random(1300).round())
        for arm in range(10)
        for seed in range(3)
        for _ in range(5)
    ]
    base = rng.random(1300).round()
    found: list[object] = []
    assert worked(lambda: found.extend(dose_response(points, base, base, seed=1))) < 15
    assert len(found) == 11
    few = points[:15]
    again = dose_response(few, base, base, seed=1, draws=100)
    assert again == dose_response(few, base, base, seed=1, draws=100)
