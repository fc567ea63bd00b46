"""Does one kind have steps of its own, at the budget of the whole?"""

from __future__ import annotations

import pytest

from holdfast.data.batching import Budget, Cost
from holdfast.data.phases import Phases, in_phases
from holdfast.errors import StudyError

KINDS = ["task"] * 30 + ["safety"] * 7 + ["replay"] * 5
COSTS = [Cost(20, 10)] * 30 + [Cost(9, 4)] * 7 + [Cost(20, 8)] * 5
BUDGET = Budget(steps=25, micro_batches=2, supervised_tokens=25 * 2 * 3 * 10, per_micro_batch=3)


def test_each_step_is_on_one_side_only() -> None:
    phases = Phases("safety", 2, 3)
    dealt = in_phases(COSTS, KINDS, phases, BUDGET, seed=1)
    assert len(dealt) == 50
    for step in range(25):
        kinds = {KINDS[i] for slot in dealt[2 * step : 2 * step + 2] for i in slot}
        assert kinds == {"safety"} if step % 5 < 2 else "safety" not in kinds
    assert any(KINDS[i] == "replay" for slot in dealt for i in slot)
    assert {i for slot in dealt for i in slot if KINDS[i] == "safety"} == set(range(30, 37))


def test_the_tokens_of_both_add_up_to_the_budget() -> None:
    phases = Phases("safety", 1, 4)
    dealt = in_phases(COSTS, KINDS, phases, BUDGET, seed=3)
    spent = {True: 0, False: 0}
    for place, slot in enumerate(dealt):
        spent[phases.is_alone(place // 2)] += sum(COSTS[i].supervised for i in slot)
    assert sum(spent.values()) == pytest.approx(BUDGET.supervised_tokens, rel=0.02)
    assert spent[True] == pytest.approx(BUDGET.supervised_tokens / 5, rel=0.02)
    assert in_phases(COSTS, KINDS, phases, BUDGET, seed=3) == dealt
    assert in_phases(COSTS, KINDS, phases, BUDGET, seed=4) != dealt


def test_when_phases_begin() -> None:
    phases = Phases("safety", 2, 3)
    assert [step for step in range(12) if phases.begins(step)] == [0, 2, 5, 7, 10]
    assert phases.count_alone(12) == 6


def test_a_side_without_steps_or_examples_is_refused() -> None:
    with pytest.raises(StudyError, match="0 of 25 steps of other kinds"):
        in_phases(COSTS, KINDS, Phases("safety", 25, 1), BUDGET, seed=1)
    with pytest.raises(StudyError, match="0 examples"):
        in_phases(COSTS, KINDS, Phases("nothing", 1, 1), BUDGET, seed=1)
