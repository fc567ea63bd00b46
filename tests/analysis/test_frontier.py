"""Are items halved fairly, and arms compared without flattery?"""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.analysis.selection import (
    Candidate,
    fronts,
    hypervolume,
    keepers,
    split_halves,
    undominated,
)
from holdfast.analysis.stats import Values
from holdfast.types import Point

N = 2000
BOTH = {
    task: split_halves([str(i) for i in range(N)], [""] * N, 0) for task in ("math", "safe", "help")
}


def _half(ones: float) -> Values:
    """Readings of which the same share is good in both halves, the same items for every caller."""
    values = np.zeros(N)
    for mask in BOTH["math"]:
        values[np.flatnonzero(mask)[: round(ones * mask.sum())]] = 1
    return values


BASE = {"math": _half(0.3), "safe": _half(0.9)}


def _model(
    arm: str, math: float, safe: float, *, seed: int = 1, step: int = 10, scale: float = 1.0
) -> Candidate:
    return Candidate(Point(arm, seed, step, scale), {"math": _half(math), "safe": _half(safe)})


# halves


def test_halves_do_not_depend_on_order_and_divide_every_group() -> None:
    ids = [f"item{i}" for i in range(101)]
    groups = ["a" if i % 3 else "b" for i in range(101)]
    one, two = split_halves(ids, groups, 7)
    assert (one ^ two).all()
    assert abs(int(one.sum()) - int(two.sum())) == 1
    for group in "ab":
        mine = np.array(groups) == group
        assert abs(int((one & mine).sum()) - int((two & mine).sum())) <= 1
    back, _ = split_halves(ids[::-1], groups[::-1], 7)
    assert (back[::-1] == one).all()
    assert (split_halves(ids, groups, 8)[0] != one).any()


# Pareto and hypervolume


def test_undominated_by_hand() -> None:
    scores = np.array([[1, 5], [2, 4], [2, 3], [3, 1], [3, 1], [np.nan, 6], [np.nan, 2]])
    assert undominated(scores).tolist() == [True, True, False, True, True, True, False]


def test_hypervolume_by_hand() -> None:
    points = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert hypervolume(points, (0, 0)) == pytest.approx(6)
    assert hypervolume(points, (1, 1)) == pytest.approx(1)
    inside = np.vstack([points, [[1.5, 1.5], [-1, 9], [9, -1]]])
    assert hypervolume(inside, (0, 0)) == pytest.approx(6), "dominated, or not above the reference"
    both = hypervolume(np.stack([points, points / 2]), (0, 0))
    assert both == pytest.approx([6, 1.5])


def test_fronts_compare_arms() -> None:
    models = (
        [_model("sft", 0.5, 0.5, seed=seed, step=20) for seed in (1, 2)]
        + [_model("sft", 0.4, 0.6, seed=seed, step=10) for seed in (1, 2)]
        + [_model("kept", 0.45, 0.9, seed=1, step=20), _model("kept", 0.2, 0.8, seed=1, step=30)]
    )
    sft, kept = fronts(models, BASE, "math")
    assert sft.volume.mean == pytest.approx(0.1 * 0.7 + 0.1 * 0.6, abs=0.001)
    assert kept.volume.mean == pytest.approx(0.15 * 1)
    assert sft.points == ((20, 1.0),), "step 10 is dominated by the other arm"
    assert kept.points == ((20, 1.0),), "step 30 is worse than the untouched model"
    assert kept.volume.low is not None and kept.volume.high is not None
    assert kept.volume.low < 0.15 < kept.volume.high
    assert 0.05 < kept.volume.low < 0.12, "pairs with the base; another seed may differ"


def test_seeds_widen_the_interval() -> None:
    same = [_model("a", 0.4, 0.9, seed=seed) for seed in (1, 2, 3)]
    other = [_model("a", math, 0.9, seed=s) for s, math in ((1, 0.3), (2, 0.4), (3, 0.5))]
    (one,), (two,) = fronts(same, BASE, "math"), fronts(other, BASE, "math")
    assert one.volume.mean == pytest.approx(0.1) == two.volume.mean
    width = [float((f.volume.high or 0) - (f.volume.low or 0)) for f in (one, two)]
    assert width[1] > 2 * width[0]


def test_many_equal_models_are_no_larger_front_than_one() -> None:
    rng, n = np.random.default_rng(1), 300
    off, flattered, covered = [], [], []
    for _ in range(40):
        base = {"math": (rng.random(n) < 0.3) * 1.0, "safe": (rng.random(n) < 0.9) * 1.0}
        models = [
            Candidate(
                Point("a", 1, step),
                {
                    "math": np.where(rng.random(n) < 0.3, 1.0, base["math"]),
                    "safe": np.where(rng.random(n) < 0.2, 0.0, base["safe"]),
                },
            )
            for step in range(20)
        ]
        true = 0.3 * 0.7 * (1 - 0.2 * 0.9)
        (front,) = fronts(models, base, "math")
        assert front.volume.mean is not None
        off.append(front.volume.mean - true)
        means = [[(m.readings[t] - base[t]).mean() for t in ("math", "safe")] for m in models]
        flattered.append(float(hypervolume(np.array(means))) - true)
        covered.append((front.volume.low or 0) <= true <= (front.volume.high or 0))
    assert np.mean(flattered) > 0.035
    assert abs(np.mean(off)) < 0.012
    assert np.mean(covered) > 0.93


def test_fronts_without_a_score_add_nothing() -> None:
    blind = Candidate(Point("a", 1, 1), {"math": _half(0.6), "safe": np.full(N, np.nan)})
    (front,) = fronts([blind], BASE, "math")
    assert front.volume.mean == 0.0


def test_keepers() -> None:
    models = [
        _model("sft", 0.5, 0.5, step=20),
        _model("sft", 0.4, 0.6, step=10),
        _model("sft", 0.45, 0.85, step=20, scale=0.5),
        _model("other", 0.2, 0.9, seed=2, step=5),
    ]
    assert keepers(models) == {("sft", 1, 20), ("other", 2, 5)}
    assert ("sft", 1, 10) in keepers(models, [Point("sft", 1, 10)])
    assert keepers([]) == frozenset()
