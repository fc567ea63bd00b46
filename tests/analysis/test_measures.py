"""Measures in a unit of their own, and several targets: intervals, decision, frontier, words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from holdfast.analysis.findings import Share, TaskInfo
from holdfast.analysis.selection import Candidate, Tasks, decide, fronts, in_words, needs
from holdfast.analysis.stats import (
    Values,
    is_share,
    mean_of,
    mean_over_seeds,
    paired_difference,
    paired_p,
)
from holdfast.analysis.targets import pooled
from holdfast.config import ShipSpec
from holdfast.report import words
from holdfast.types import Point

RNG = np.random.default_rng(3)
BITS = -np.abs(RNG.normal(1.1, 0.3, 60))
"""Of 60 documents, bits per byte with the sign turned."""
UNITS = {"prose": "bits/byte"}
PROSE = TaskInfo("prose", "retained", "bits per byte", 60, "", unit="bits/byte")


def test_a_measure_is_told_from_a_share_by_its_values() -> None:
    assert is_share(np.array([0.0, 1.0, 0.3, np.nan]))
    assert not is_share(BITS) and not is_share(np.array([0.5, 1.5]))
    assert not is_share(np.array([0.5]), BITS)


def test_the_interval_of_a_measure_is_the_t_interval() -> None:
    tuned = BITS - 0.3 + RNG.normal(0, 0.1, 60)
    for found, sample in (
        (mean_over_seeds(BITS[None, :]), BITS),
        (paired_difference(BITS, tuned[None, :]), tuned - BITS),
    ):
        low, high = scipy_stats.t.interval(0.95, 59, sample.mean(), scipy_stats.sem(sample))
        assert (found.mean, found.low, found.high) == pytest.approx((sample.mean(), low, high))
    test = scipy_stats.ttest_1samp(tuned - BITS, 0.0)
    assert paired_p(BITS, tuned[None, :]) == pytest.approx(test.pvalue, rel=0.02, abs=1e-90)


def test_a_measure_may_change_by_more_than_1_and_an_unchanged_one_is_certain() -> None:
    found = paired_difference(BITS, (BITS - 3 + 0.01 * BITS)[None, :])
    assert found.mean is not None and found.mean < -2.9
    assert found.low is not None and found.low < -2.9
    same = paired_difference(BITS, BITS[None, :])
    assert (same.mean, same.low, same.high) == (0.0, 0.0, 0.0)
    shares = mean_of([np.zeros((1, 60))])
    assert shares.high == pytest.approx(-math.log(0.05) / 60), "the rule of three is of shares"


def test_unscored_documents_take_no_part() -> None:
    holes = BITS.copy()
    holes[:5] = np.nan
    found = paired_difference(holes, (BITS - 0.1)[None, :])
    assert (found.n, found.unscored) == (55, 5)
    assert found.mean == pytest.approx(-0.1)


def _candidate(arm: str, **readings: Values) -> Candidate:
    return Candidate(Point(arm, 1, 10), readings)


def _ones(right: int, n: int = 400) -> Values:
    return np.repeat([1.0, 0.0], [right, n - right])


def _decide(worse: float, retain: dict[str, float] | None = None) -> str:
    noise = RNG.normal(0, 0.005, 60)
    base = {"math": _ones(100), "prose": BITS}
    one = _candidate("sft", math=_ones(300), prose=BITS - worse + noise)
    rule = ShipSpec(retain=retain or {})
    return decide([one], base, rule, "math", Tasks({}, UNITS)).answer


def test_a_margin_of_a_measure_is_in_its_unit() -> None:
    assert _decide(0.005) == "ship", "two hundredths of a bit are allowed where nothing is said"
    assert _decide(0.05) == "do not ship"
    assert _decide(0.05, {"prose": -0.1}) == "ship"
    assert _decide(-0.05, {"prose": 0.01}) == "ship", "a margin above 0 demands fewer bits"


def test_the_words_of_a_rule_and_of_figures_have_the_unit() -> None:
    assert "loses at most 0.02 bits/byte on prose" in in_words(
        ShipSpec(), ["math", "prose"], "math", 1, UNITS
    )
    base = {"math": _ones(100), "prose": BITS}
    one = _candidate("sft", math=_ones(300), prose=BITS - 0.05)
    said = decide([one], base, ShipSpec(), "math", Tasks({}, UNITS))
    assert "prose +0.0500 [+0.0500, +0.0500] bits/byte, lower is better" in said.reason
    assert "loses more than 0.02 bits/byte on prose" in said.reason
    assert "misses by 0.0300 bits/byte on prose" in said.next_step


def test_a_measure_is_shown_with_its_sign_turned() -> None:
    score, worse = Share(-0.9, -1.0, -0.8, 60), Share(-0.012, -0.02, -0.004, 60)
    shown = words.shown(score, PROSE)
    assert (words.amount(shown.mean, PROSE), words.interval(shown, PROSE)) == (
        "0.9000", "[0.8000, 1.0000]",
    )  # fmt: skip
    found = words.difference(worse, PROSE)
    assert found is not None
    assert (found.points, found.interval) == ("+0.0120", "[+0.0040, +0.0200]")
    assert (found.verdict, found.arrow, found.unit) == ("worse", "▲", "bits/byte")


def test_pooled_targets_count_alike_whatever_their_sizes() -> None:
    one, other = np.array([[1.0, 0.0, np.nan]]), np.array([[1.0] * 9 + [0.0]])
    both = pooled([one, other])
    assert both.shape == (1, 13)
    assert float(np.nanmean(both)) == pytest.approx((0.5 + 0.9) / 2)
    assert pooled([one]) is one


def test_a_model_must_gain_on_each_target_and_the_mean_orders() -> None:
    base = {"a": _ones(100), "b": _ones(100), "kept": _ones(200)}
    same = {"kept": _ones(200)}
    even = _candidate("even", a=_ones(200), b=_ones(200), **same)
    much = _candidate("much", a=_ones(390), b=_ones(100), **same)
    more = _candidate("more", a=_ones(260), b=_ones(180), **same)
    found = decide([even, much, more], base, ShipSpec(retain={"kept": -0.1}), ("a", "b"))
    assert found.chosen is not None and found.chosen.point.arm == "more"
    assert "gains on a and b" in found.rule and "the mean of a and b" in found.rule
    assert "does not gain on b" in found.passed["much"] or "gains on b" in found.passed["much"]
    assert "5.0 points behind on the mean of a and b" in found.passed["even"]
    relaxed = ShipSpec(retain={"kept": -0.1, "b": -0.05})
    assert decide([much], base, relaxed, ("a", "b")).answer == "ship"


def test_one_target_is_as_it_was() -> None:
    names = ["a", "kept"]
    assert needs(ShipSpec(), names, "a") == needs(ShipSpec(), names, ("a",))


def test_the_frontier_is_of_the_mean_gain() -> None:
    base = {"a": _ones(100), "b": _ones(100, 200), "kept": _ones(200)}
    one = _candidate("one", a=_ones(200), b=_ones(150, 200), kept=_ones(200))
    (front,) = fronts([one], base, ("a", "b"))
    assert front.points == ((10, 1.0),)
    assert front.volume.mean == pytest.approx(0.25, abs=0.03), "a mean gain of a quarter, no loss"
