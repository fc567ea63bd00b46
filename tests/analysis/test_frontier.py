"""Is the right model chosen, reported without flattery, and is too little data said to be so?"""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pytest

from benchmarks.frontier import Case, coverage, draw, estimated
from holdfast.analysis.selection import (
    Candidate,
    Decision,
    Need,
    check_rule,
    confirm,
    decide,
    fronts,
    hypervolume,
    in_words,
    keepers,
    needs,
    split_halves,
    undominated,
)
from holdfast.analysis.selection.rule import more_items
from holdfast.analysis.stats import Interval, Values, paired_difference
from holdfast.config import ShipSpec
from holdfast.errors import StudyError
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


def _decide(
    *models: Candidate, rule: ShipSpec | None = None, base: Mapping[str, Values] = BASE
) -> Decision:
    return decide(models, base, rule or ShipSpec(), "math", {t: BOTH[t] for t in base})


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
    start = time.perf_counter()
    low, high = estimated(base, arm)[1:]
    assert time.perf_counter() - start < 20
    assert low < case.truth < high


def test_steps_that_a_seed_did_not_reach_and_items_without_a_score() -> None:
    models = [_model("a", 0.5, 0.8, seed=s, step=20) for s in (1, 2)]
    short = _model("a", 0.4, 0.9, seed=1, step=10)
    holes = _half(0.8)
    holes[::7] = np.nan
    some = Candidate(Point("a", 3, 20), {"math": _half(0.5), "safe": holes})
    (front,) = fronts([*models, short, some], BASE, "math")
    assert front.volume.mean == pytest.approx(0.1 * 1.0 + 0.1 * 0.9, abs=0.005)
    assert front.volume.low < front.volume.mean < front.volume.high


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


# the rule


def test_states() -> None:
    keep, gain = Need("safe", -0.02), Need("math", 0.0, True)
    assert keep.state(Interval(0.0, -0.02, 0.02, 100, 0)) == "met"
    assert keep.state(Interval(-0.01, -0.021, 0.0, 100, 0)) == "open"
    assert keep.state(Interval(-0.05, -0.07, -0.03, 100, 0)) == "missed"
    assert gain.state(Interval(0.0, 0.0, 0.0, 100, 0)) == "open", "no change is no gain"
    assert gain.state(Interval(0.1, 0.01, 0.2, 100, 0)) == "met"
    assert keep.state(Interval(0.0, -0.01, 0.01, 95, 5)) == "met"
    assert keep.state(Interval(0.0, -0.01, 0.01, 94, 6)) == "unscored"
    assert keep.state(Interval(None, None, None, 0, 9)) == "unscored"


def test_needs_and_words() -> None:
    tasks = ["math", "safe", "help"]
    assert needs(ShipSpec(), tasks, "math") == (
        Need("math", 0.0, True), Need("safe", -0.02), Need("help", -0.02)
    )  # fmt: skip
    rule = ShipSpec(retain={"safe": -0.01, "math": 0.05})
    assert needs(rule, tasks, "math") == (Need("math", 0.05, True), Need("safe", -0.01))
    assert "gains at least 5.0 points on math and loses at most 1.0 points on safe" in in_words(
        rule, tasks, "math"
    )
    assert "the one best on help is" in in_words(ShipSpec(maximize="help"), tasks, "math")


def test_rules_that_make_no_sense_are_refused() -> None:
    tasks = ["gsm8k", "ailuminate"]
    check_rule(ShipSpec(retain={"ailuminate": -0.02}, maximize="gsm8k"), tasks)
    with pytest.raises(StudyError, match=r"ship\.retain\.iluminate.*did you mean 'ailuminate'"):
        check_rule(ShipSpec(retain={"iluminate": -0.02}), tasks, "s.yaml")
    with pytest.raises(StudyError, match=r"ship\.maximize: no task is called 'gsm'"):
        check_rule(ShipSpec(maximize="gsm"), tasks)
    with pytest.raises(StudyError, match=r"-2 is no share\n.*write -0\.02"):
        check_rule(ShipSpec(retain={"ailuminate": -2}), tasks)


# the decision


def test_the_best_allowed_model_is_shipped() -> None:
    found = _decide(
        _model("sft", 0.6, 0.7), _model("replay", 0.5, 0.9), _model("kl", 0.45, 0.9, step=5)
    )
    assert found.answer == "ship"
    assert found.chosen.point == Point("replay", 1, 10)
    assert found.chosen.allowed
    assert found.chosen.reported_on["math"].mean == pytest.approx(0.2)
    assert found.runner_up.point.arm == "kl"
    assert "5.0 points behind on math" in found.why_not
    assert found.items == {"math": (1000, 1000), "safe": (1000, 1000)}
    assert found.more_items is None


def test_a_runner_up_that_was_not_allowed_says_why() -> None:
    found = _decide(_model("sft", 0.6, 0.7), _model("replay", 0.5, 0.9))
    assert not found.runner_up.allowed
    assert "sft, seed 1, step 10 is not allowed: it loses more than 2.0 points" in found.why_not
    assert "safe \u221220.0 [" in found.why_not


def test_ties_go_to_what_retains_more_then_to_fewer_steps_then_to_less_scale() -> None:
    def best(*models: Candidate) -> Point:
        return _decide(*models).chosen.point

    late, early = _model("a", 0.5, 0.9, step=20), _model("b", 0.5, 0.9, step=10)
    assert best(late, early).arm == "b" == best(early, late).arm
    assert best(early, _model("c", 0.5, 0.91, step=30)).arm == "c"
    assert best(early, _model("d", 0.5, 0.9, step=10, scale=0.5)).arm == "d"


def test_maximize_another_task() -> None:
    one, two = _model("a", 0.6, 0.9), _model("b", 0.4, 0.92)
    assert _decide(one, two, rule=ShipSpec(maximize="safe")).chosen.point.arm == "b"


def test_no_gain_is_no_reason_to_ship() -> None:
    found = _decide(_model("a", 0.3, 0.9))
    assert found.answer == "not enough evidence"
    assert "whether it gains on math" in found.reason
    worse = _decide(_model("a", 0.2, 0.9))
    assert worse.answer == "do not ship"
    assert worse.chosen is None
    assert "does not gain on math" in worse.reason


def test_every_model_breaks_the_rule() -> None:
    found = _decide(_model("a", 0.6, 0.7), _model("b", 0.5, 0.8))
    assert found.answer == "do not ship"
    assert found.runner_up.point.arm == "b", "the nearest miss"
    assert "every model breaks the rule" in found.reason
    assert found.more_items is None


def test_an_open_question_says_how_many_examples() -> None:
    found = _decide(_model("a", 0.6, 0.7), _model("b", 0.5, 0.887))
    assert found.answer == "not enough evidence"
    assert found.runner_up.point.arm == "b"
    assert found.more_items is not None and 200 < found.more_items < 4000
    assert "more examples of safe would decide" in found.reason


def _split(first: Values, second: Values) -> Values:
    return np.where(BOTH["safe"][0], first, second)


def test_the_untouched_half_has_the_last_word() -> None:
    for second, answer in ((0.8, "do not ship"), (0.887, "not enough evidence"), (0.9, "ship")):
        safe = _split(_half(0.9), _half(second))
        lucky = Candidate(Point("lucky", 1, 10), {"math": _half(0.5), "safe": safe})
        found = _decide(lucky)
        assert found.answer == answer
        assert found.chosen is not None, "the first half could not know"
        assert (found.more_items is not None) == (answer == "not enough evidence")


def test_unscored_is_not_retained() -> None:
    holes = _half(0.9)
    holes[::10] = np.nan
    blind = Candidate(Point("blind", 1, 10), {"math": _half(0.6), "safe": holes})
    found = _decide(blind, _model("seen", 0.4, 0.9))
    assert found.chosen.point.arm == "seen"
    assert "could not be scored" in found.why_not
    alone = _decide(blind)
    assert (alone.answer, alone.more_items) == ("not enough evidence", None)
    late = Candidate(
        Point("late", 1, 10), {"math": _half(0.6), "safe": _split(_half(0.9), np.full(N, np.nan))}
    )
    assert _decide(late).answer == "not enough evidence"


def test_nothing_trained() -> None:
    assert _decide().answer == "do not ship"


def test_without_retained_tasks_the_gain_decides() -> None:
    one = Candidate(Point("a", 1, 1), {"math": _half(0.5)})
    assert _decide(one, base={"math": BASE["math"]}).answer == "ship"


def test_confirm_looks_at_the_reporting_half_only() -> None:
    blank = np.full(N, np.nan)
    again = Candidate(
        Point("a", 1, 1),
        {"math": _split(blank, _half(0.5)), "safe": _split(blank, _half(0.9))},
    )
    found = confirm(again, BASE, ShipSpec(), "math", {t: BOTH[t] for t in BASE})
    assert found.answer == "ship"
    assert found.reason.startswith("It gains on math")
    worse = Candidate(again.point, {**again.readings, "safe": _split(blank, _half(0.7))})
    found = confirm(worse, BASE, ShipSpec(), "math", {t: BOTH[t] for t in BASE})
    assert found.answer == "do not ship"


# how much more


def _pairs(both: int, lost: int, won: int, neither: int) -> tuple[Values, Values]:
    counts = (both, lost, won, neither)
    return np.repeat([1.0, 1, 0, 0], counts), np.repeat([1.0, 0, 1, 0], counts)


def test_more_items_by_the_same_interval() -> None:
    need = Need("safe", -0.05)
    before, after = _pairs(80, 3, 2, 15)
    more = more_items(need, before, after) or 0
    for factor, state in ((0.9, "open"), (1.1, "met")):
        n = round(factor * (100 + more) / 100)
        bigger = [np.repeat(one, n) for one in (before, after)]
        assert need.state(paired_difference(bigger[0], bigger[1][None])) == state
    clear = Need("safe", -0.1)
    lost = _pairs(70, 15, 2, 13)
    assert clear.state(paired_difference(lost[0], lost[1][None])) == "open"
    assert 0 < (more_items(clear, *lost) or 0) < 1000, "until it is shown that it is missed"


def test_more_items_has_no_answer_on_the_margin() -> None:
    assert more_items(Need("safe", -0.05), *_pairs(80, 5, 0, 15)) is None
    assert more_items(Need("safe", -0.05), np.full(9, np.nan), np.ones(9)) is None


def test_more_items_of_means_over_samples() -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(0, 5, 100) / 4
    more = more_items(Need("safe", -0.02), before, rng.permutation(before))
    assert more is not None and more > 100


# flattery


def test_the_best_of_forty_is_flattered_where_it_was_chosen_and_only_there() -> None:
    n, chosen, reported = 200, [], []
    rng = np.random.default_rng(3)
    both = {"math": split_halves([str(i) for i in range(n)], [""] * n, 0)}
    for _ in range(120):
        base = {"math": (rng.random(n) < 0.3).astype(float)}
        models = [
            Candidate(Point("a", 1, step), {"math": (rng.random(n) < 0.6).astype(float)})
            for step in range(1, 41)
        ]
        found = decide(models, base, ShipSpec(), "math", both)
        assert found.chosen is not None
        mask = both["math"]
        for list_, changes, half in (
            (chosen, found.chosen.chosen_on, mask[0]),
            (reported, found.chosen.reported_on, mask[1]),
        ):
            list_.append((changes["math"].mean or 0) + base["math"][half].mean() - 0.6)
    assert np.mean(chosen) > 0.07
    assert abs(np.mean(reported)) < 0.015
