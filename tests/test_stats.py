"""Are the intervals what the textbooks say, and do they cover what they promise?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.stats import mean_over_seeds, paired_difference, wilson


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
    assert found.low < -0.04 < 0 < found.high, "four of four against: p = .125"


def test_seeded() -> None:
    rng = np.random.default_rng(0)
    base, tuned = rng.integers(0, 2, 50).astype(float), rng.integers(0, 2, (3, 50)).astype(float)
    assert paired_difference(base, tuned) == paired_difference(base, tuned)


@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_paired_intervals_cover(drop: float) -> None:
    rng = np.random.default_rng(7)
    hits, studies, n = 0, 200, 120
    for _ in range(studies):
        skill = rng.random(n)
        base = (rng.random(n) < skill).astype(float)
        tuned = (rng.random((1, n)) < np.clip(skill - drop, 0, 1)).astype(float)
        truth = float((np.clip(skill - drop, 0, 1) - skill).mean())
        found = paired_difference(base, tuned)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / studies <= 0.99


def test_several_seeds_widen() -> None:
    rng = np.random.default_rng(1)
    one = (rng.random((1, 100)) < 0.5).astype(float)
    far = np.vstack([np.zeros((1, 100)), np.ones((1, 100)), one])
    narrow, wide = mean_over_seeds(np.vstack([one] * 3)), mean_over_seeds(far)
    assert None not in (narrow.low, narrow.high, wide.low, wide.high)
    assert wide.high - wide.low > narrow.high - narrow.low  # type: ignore[operator]
