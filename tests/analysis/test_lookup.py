"""Figures put together from several of the results."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from fixtures.report import FACTORS, STEPS, build

from holdfast.analysis import budget, lookup
from holdfast.analysis.results import Cell, Meter, Share, TaskInfo

MATHS = TaskInfo("maths", "target", "accuracy", 10, "")
HELP = TaskInfo("help", "retained", "answered", 10, "")


def cell(task: str, mean: float | None, change: float | None = None) -> Cell:
    def share(value: float | None) -> Share:
        if value is None:
            return Share(None, None, None, 0, 10)
        return Share(value, value - 0.125, value + 0.25, 10)

    return Cell("sft", 1, task, share(mean), None if change is None else share(change))


def test_the_mean_over_tasks_weighs_them_alike_and_averages_their_intervals() -> None:
    found = lookup.mean_score([cell("maths", 0.25), cell("help", 0.75)])
    assert found is not None
    assert (found.mean, found.low, found.high) == (0.5, 0.375, 0.75)
    assert lookup.mean_score([cell("maths", 0.25), cell("help", None)]) is None
    assert lookup.mean_score([]) is None


def test_the_worst_change_is_that_of_the_task_that_lost_most() -> None:
    some = [(cell("maths", 0.5, -0.25), MATHS), (cell("help", 0.5, -0.5), HELP)]
    worst = lookup.worst_change(some)
    assert worst is not None and (worst[0].mean, worst[1]) == (-0.5, HELP)
    assert lookup.worst_change([*some[:1], (cell("help", 0.5), HELP)]) is None
    assert lookup.worst_change([]) is None


def test_gains_and_losses_are_of_every_checkpoint_and_part_and_never_of_base() -> None:
    results = build()
    points = lookup.gains_and_losses(results, "sft", "hazards")
    assert [(p.step, p.scale) for p in points] == [(s, 1.0) for s in STEPS] + [
        (160, factor) for factor in FACTORS
    ]
    final = results.cell("sft", 160, "hazards").diff
    assert final is not None and points[4].loss == -(final.mean or 0.0)
    assert lookup.gains_and_losses(results, "base", "hazards") == []
    assert lookup.gains_and_losses(results, "prompt", "hazards") == []


def test_the_spread_of_readings_leaves_out_what_was_not_scored() -> None:
    nothing = Share(None, None, None, 0, 9)
    shares = [Share(0.25, 0, 1, 9), None, nothing, Share(0.75, 0, 1, 9), Share(0.5, 0, 1, 9)]
    assert lookup.reading_spread(shares) == 0.5
    assert lookup.reading_spread([None, nothing]) is None


def test_meters_are_means_over_seeds_with_their_range() -> None:
    readings = [
        Meter("sft", 1, 8, 0.25, 1.0, None),
        Meter("sft", 2, 8, 0.75, 2.0, 4.0),
        Meter("sft", 1, 4, math.nan, 1.0, None),
        Meter("sft", 2, 4, 0.5, 1.0, None),
    ]
    course = lookup.meter_course(readings, "kl")
    assert [(p.step, p.mean, p.ends) for p in course] == [(4, 0.5, None), (8, 0.5, (0.25, 0.75))]
    assert lookup.last_meters(readings) == (8, 0.5, 1.5, 4.0)
    assert lookup.last_meters(readings[:1]) == (8, 0.25, 1.0, None)
    assert lookup.last_meters([]) is None


def test_cost_is_held_against_plain_fine_tuning_or_the_first_that_was_trained() -> None:
    results = build()
    reference = budget.reference(results.arms)
    assert reference is not None and reference.name == "sft"
    others = replace(results, arms=tuple(a for a in results.arms if a.name != "sft"))
    first = budget.reference(others.arms)
    assert first is not None and first.name == "replay"
    kl = next(arm for arm in results.arms if arm.name == "kl")
    assert budget.flops_multiple(kl, reference) == pytest.approx(kl.flops / reference.flops)
    assert budget.token_multiple(results.arms[0], reference) is None
    assert budget.token_multiple(kl, None) is None
    assert {arm.name for arm in results.arms} - {a.name for a in budget.costly(results.arms)} == {
        "base",
        "prompt",
    }


def test_nothing_is_said_of_the_budget_of_a_comparison() -> None:
    untrained = replace(build(), arms=build().arms[:1])
    assert budget.sentence(untrained.arms, untrained.seeds) == "Nothing was trained."
    assert budget.sentence(untrained.arms, ()) == ""
