"""A forecast is worth what it foretold of arms that it had not seen; one without skill says so."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.analysis.forecast import FEWEST, LEVEL, Past, foretold, skill


def made(arms: int, noise: float, seed: int = 0, told: bool = True) -> list[Past]:
    """Three seeds an arm that lose the more the further they moved; or at random."""
    rng, found = np.random.default_rng(seed), []
    for arm in range(arms):
        kl = float(np.exp(rng.normal(-3, 1)))
        for _ in range(3):
            lost = np.tanh(5 * kl) if told else rng.uniform(0, 1)
            found.append(
                Past(f"arm{arm}", {"kl": kl * float(np.exp(rng.normal(0, 0.1)))},
                     float(np.clip(-lost + rng.normal(0, noise), -1, 1)))
            )  # fmt: skip
    return found


def test_what_goes_with_a_meter_is_foretold() -> None:
    found = skill(made(24, 0.05), "kl")
    assert found is not None and found.any
    assert found.rank.mean > 0.8 and found.rank.low > 0.6
    assert found.error < 0.5
    assert found.trainings == 72 and found.arms == 24


def test_intervals_cover_what_they_say() -> None:
    covered, widths = [], []
    for seed in range(12):
        past = made(20, 0.1, seed)
        new = made(10, 0.1, 1000 + seed)
        for one in new:
            said = foretold(past, "kl", one.read["kl"])
            assert said is not None and -1 <= said.low <= said.mean <= said.high <= 1
            covered.append(said.low <= one.change <= said.high)
            widths.append(said.high - said.low)
    assert np.mean(covered) >= LEVEL - 0.02, "at least, as CV+ promises"
    assert np.mean(widths) < 0.6, "of noise with a deviation of 0.1"


def test_nothing_is_foretold_of_what_is_random() -> None:
    without = [skill(made(24, 0.0, seed, told=False), "kl") for seed in range(5)]
    assert sum(one is not None and one.any for one in without) <= 1


def test_few_arms_foretell_nothing() -> None:
    assert foretold(made(FEWEST - 1, 0.1), "kl", 0.1) is None
    assert skill(made(FEWEST, 0.1), "kl") is None, "one is left out"
    assert foretold(made(30, 0.1), "norm", 0.1) is None, "a meter that nobody read"
    assert foretold(made(FEWEST, 0.1), "kl", 0.1) is not None


def test_eighteen_trainings_have_no_interval_of_nine_tenths() -> None:
    """CV+ takes its ends among n + 1 places: the first of nineteen is no end."""
    past = [Past(f"arm{at}", {"kl": at / 100}, -at / 100) for at in range(19)]
    assert foretold(past[:18], "kl", 0.05) is None and foretold(past, "kl", 0.05) is not None
    lost = [Past("x", {"kl": 0.1}, float("nan")), Past("y", {"kl": float("nan")}, -0.1)]
    assert foretold([*past, *lost], "kl", 0.05) == foretold(past, "kl", 0.05)


def test_seeds_of_one_arm_do_not_vouch_for_each_other() -> None:
    """A value that only an arm's own seeds share must not make its interval narrow."""
    rng = np.random.default_rng(3)
    past = []
    for arm in range(20):
        kl, lost = float(np.exp(rng.normal(-3, 1))), -float(rng.uniform(0, 1))
        past += [Past(f"arm{arm}", {"kl": kl}, lost)] * 3
    said = foretold(past, "kl", past[0].read["kl"])
    assert said is not None and said.high - said.low > 0.4


def test_a_meter_that_reads_nothing_is_no_error() -> None:
    past = [Past(f"arm{at}", {"kl": 0.0}, -0.1) for at in range(20)]
    said = foretold(past, "kl", 0.0)
    assert said is not None and said.mean == pytest.approx(-0.1)
