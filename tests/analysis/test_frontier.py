"""Are arms compared without flattery?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from fixtures import candidates
from fixtures.timing import worked

from benchmarks.frontier import Case, coverage, draw, estimated
from holdfast.analysis.selection import (
    Candidate,
    fronts,
    hypervolume,
    keepers,
    undominated,
)
from holdfast.types import Point

N = 2000
_ones = partial(candidates.ones, n=N)
BASE = candidates.base(N)
_model = partial(candidates.model, n=N)


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


def test_intervals_cover_the_true_area() -> None:
    """With seeds that differ by 3 points and without; `benchmarks/frontier.py` has more cases."""
    cases = (
        Case("saturating", 1, 300),
        Case("trade-off", 1, 300, 0.03),
        Case("flat", 2, 300, 0.03),
        Case("close", 3, 100, 0.02, 0.02),
    )
    found = np.array([coverage(case, 60, seed=5, before=False) for case in cases])
    assert (found[:, 0] > 0.88).all(), "within the error of 60 studies"
    assert found[:, 0].mean() >= 0.94
    assert (found[:, 1] < 0.25).all(), "and not by being useless"
    assert (np.abs(found[:, 2]) < 0.03).all(), "nor flattered"


def test_what_other_arms_show_of_seeds_widens_the_interval_of_one_seed() -> None:
    one = [_model("one", 0.4, 0.9)]
    wild = [_model("wild", math, 0.9, seed=s) for s, math in ((1, 0.2), (2, 0.4), (3, 0.6))]
    (alone,), (beside, _) = fronts(one, BASE, "math"), fronts([*one, *wild], BASE, "math")
    assert beside.volume.mean == alone.volume.mean
    assert (beside.volume.high or 0) > 0.1 + 3 * ((alone.volume.high or 0) - 0.1)
    asked = [Candidate(Point("asked", None, 0), one[0].readings)]
    (sure,) = fronts(asked, BASE, "math")
    assert (sure.volume.high or 0) < 0.12, "nothing was trained, so no seed could differ"


def test_many_models_are_reported_in_seconds() -> None:
    case = Case("saturating", 3, 300, retained=3, steps=170)
    base, arm = draw(case, np.random.default_rng(0))
    found: list[float] = []
    assert worked(lambda: found.extend(estimated(base, arm))) < 20
    low, high = found[1:]
    assert low < case.truth < high


def test_steps_that_a_seed_did_not_reach_and_items_without_a_score() -> None:
    models = [_model("a", 0.5, 0.8, seed=s, step=20) for s in (1, 2)]
    short = _model("a", 0.4, 0.9, seed=1, step=10)
    holes = _ones(0.8)
    holes[::7] = np.nan
    some = Candidate(Point("a", 3, 20), {"math": _ones(0.5), "safe": holes})
    (front,) = fronts([*models, short, some], BASE, "math")
    assert front.volume.mean == pytest.approx(0.1 * 1.0 + 0.1 * 0.9, abs=0.005)
    assert front.volume.low < front.volume.mean < front.volume.high


def test_fronts_without_a_score_add_nothing() -> None:
    blind = Candidate(Point("a", 1, 1), {"math": _ones(0.6), "safe": np.full(N, np.nan)})
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
