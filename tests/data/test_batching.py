"""Do all arms spend the same, and is the order of training what it should be?"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import quantiles

import pytest

from benchmarks.budget import CASES, Case, answers, miss
from holdfast.data.batching import (
    Cost,
    checkpoint_steps,
    deal,
    interleave,
    plain_budget,
    regroup,
    steps_of,
)


def test_steps() -> None:
    assert steps_of(600, 32, 2, None) == 38
    assert steps_of(600, 32, 2, 160) == 160
    assert steps_of(1, 32, 0.1, None) == 1


@pytest.mark.parametrize(
    ("steps", "count", "every", "wanted"),
    [
        (160, 5, 0.1, (32, 64, 96, 128, 160)),
        (93, None, 0.1, (10, 20, 30, 40, 50, 60, 70, 80, 90, 93)),
        (93, None, 40, (40, 80, 93)),
        (3, 5, 0.1, (1, 2, 3)),
        (7, None, 100, (7,)),
    ],
)
def test_checkpoints(steps: int, count: int | None, every: float, wanted: tuple[int, ...]) -> None:
    assert checkpoint_steps(steps, count, every) == wanted


def test_the_plain_arm_sees_every_example_once_a_round() -> None:
    costs = [Cost(20, 10 + i % 3) for i in range(12)]
    budget = plain_budget(costs, steps=6, micro_batches=2, per_micro_batch=2)
    slots = deal(costs, ["task"] * 12, budget, seed=1)
    assert [len(slot) for slot in slots] == [2] * 12
    flat = [index for slot in slots for index in slot]
    assert sorted(flat[:12]) == sorted(flat[12:]) == list(range(12))
    assert flat[:12] != flat[12:], "every round has its own order"
    assert slots == deal(costs, ["task"] * 12, budget, seed=1)
    assert slots != deal(costs, ["task"] * 12, budget, seed=2)


@pytest.mark.parametrize("length", [4, 7, 10, 23, 40])
def test_every_arm_spends_the_same_tokens_in_the_same_steps(length: int) -> None:
    plain = [Cost(30, 10)] * 100
    budget = plain_budget(plain, steps=50, micro_batches=4, per_micro_batch=1)
    arm = [Cost(length + 20, length)] * 70
    slots = deal(arm, ["task"] * 70, budget, seed=0)
    assert len(slots) == 200
    spent = sum(arm[index].supervised for slot in slots for index in slot)
    assert spent == pytest.approx(budget.supervised_tokens, rel=0.02)


def test_kinds_are_interleaved_evenly() -> None:
    costs = [Cost(30, 10)] * 100
    kinds = ["task"] * 90 + ["replay"] * 10
    budget = plain_budget(costs, steps=10, micro_batches=1, per_micro_batch=10)
    for slot in deal(costs, kinds, budget, seed=3):
        assert Counter(kinds[index] for index in slot) == {"task": 9, "replay": 1}


def test_interleave_keeps_order_and_spreads() -> None:
    assert interleave({"a": [0, 1, 2, 3], "b": [9, 8]}) == [0, 9, 1, 2, 8, 3]


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("rare", [1, 2, 3])
def test_the_last_round_may_take_none_of_a_rare_kind(by_length: bool, rare: int) -> None:
    """Three old prompts beside forty examples, and four examples left to see."""
    kinds = ["task"] * 40 + ["anchor"] * rare
    costs = [Cost(20 + i % 5, 10) for i in range(len(kinds))]
    for steps in range(1, 30):
        budget = plain_budget(costs[:40], steps, micro_batches=2, per_micro_batch=2)
        slots = deal(costs, kinds, budget, seed=1, by_length=by_length)
        seen = Counter(kinds[index] for slot in slots for index in slot)
        assert abs(seen["anchor"] - seen.total() * rare / len(kinds)) <= rare


def test_by_length_batches_are_alike_and_come_in_any_order() -> None:
    costs = [Cost(10 + i, 5) for i in range(1000)]
    budget = plain_budget(costs, steps=250, micro_batches=4, per_micro_batch=1)
    slots = deal(costs, ["task"] * 1000, budget, seed=0, by_length=True)
    lengths = [costs[index].tokens for slot in slots for index in slot]
    assert lengths[0] == 1009, "what will not fit fails at once"
    assert sorted(lengths) == sorted(cost.tokens for cost in costs)
    steps = [lengths[i : i + 4] for i in range(0, 1000, 4)]
    assert sum(max(one) - min(one) for one in steps) / len(steps) < 30
    firsts = [one[0] for one in steps]
    rises = sum(a < b for a, b in pairwise(firsts))
    assert 90 < rises < 160, "long and short steps alternate at random"


@pytest.mark.parametrize(
    ("micro_batch", "world_size", "expected"),
    [
        (2, 1, [[0, 1], [2, 3], [4], [5, 6], [], []]),
        (1, 2, [[0], [1], [2], [3], [4], [], [5], [6], [], [], [], []]),
        (2, 2, [[0, 1], [2, 3], [4], [], [5, 6], [], [], []]),
        (8, 1, [[0, 1, 2, 3, 4], [5, 6]]),
    ],
)
def test_regroup(micro_batch: int, world_size: int, expected: list[list[int]]) -> None:
    """Two steps, of 5 and of 2 examples."""
    slots = [[0, 1], [2], [3, 4], [5], [], [6]]
    assert regroup(slots, 3, micro_batch, world_size) == expected


def test_regroup_keeps_what_is_cut_right() -> None:
    slots = [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert regroup(slots, 2, 2, 1) == slots
    assert regroup([[], []], 1, 1, 2) == [[], [], [], []]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_short_runs_spend_their_budget(case: Case) -> None:
    """One percent at most, where whole clusters of long answers had made it 15 and more."""
    for by_length in (False, True):
        assert miss(case, by_length, range(2)) <= 0.01


def test_only_what_misses_the_budget_is_swapped() -> None:
    """A few of the last round, each for one of its own kind; the rest of the order stays."""
    rows = answers(640, 100, 0.5, 4)
    kinds = ["task"] * 600 + ["replay"] * 40
    budget = plain_budget(rows, steps=50, micro_batches=1, per_micro_batch=16)
    exact = [index for slot in deal(rows, kinds, budget, 0) for index in slot]
    more = replace(budget, supervised_tokens=round(1.012 * budget.supervised_tokens))
    more_of = [index for slot in deal(rows, kinds, more, 0) for index in slot]
    assert exact[:640] == more_of[:640], "a whole round has nothing to choose from"
    same = sum(a == b for a, b in zip(exact, more_of, strict=False))
    assert same > 0.95 * len(exact)
    assert [kinds[i] for i in exact] == [kinds[i] for i in more_of][: len(exact)]
    assert max(Counter(exact).values()) == 2, "in a round an example comes once"


def test_a_short_run_by_length_is_a_sample_of_all_lengths() -> None:
    rows = answers(1000, 100, 0.5, 5)
    budget = plain_budget(rows, steps=10, micro_batches=1, per_micro_batch=16)
    mixed, slots = (
        deal(rows, ["task"] * 1000, budget, 0, by_length) for by_length in (False, True)
    )
    seen = [rows[index].supervised for slot in slots for index in slot]
    for some, every in zip(quantiles(seen), quantiles(own.supervised for own in rows), strict=True):
        assert some == pytest.approx(every, rel=0.15)
    wide, narrow = (
        [max(rows[i].tokens for i in slot) for slot in order] for order in (mixed, slots)
    )
    assert sum(narrow) < 0.75 * sum(wide), "little padding"
    assert narrow[0] == max(narrow), "what will not fit fails at once"
