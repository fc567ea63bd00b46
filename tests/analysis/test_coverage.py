"""Do 95 % intervals cover, and is forgetting made up no more often than promised?

The simulator is `benchmarks/coverage.py`, which prints the whole table.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from fixtures.paths import ROOT

STUDIES = 2000
SLACK = 0.01  # two standard errors of a share of 0.95 in 2,000 studies


def _load() -> ModuleType:
    path = ROOT / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


SIMULATOR = _load()
QUICK = [
    SIMULATOR.Scenario(1, 100, drop=0.15),
    SIMULATOR.Scenario(3, 300, drop=0.1),
    SIMULATOR.Scenario(3, 300, drop=0.1, seed_sd=0.1),
    SIMULATOR.Scenario(5, 300, drop=0.1, seed_sd=0.1),
]


@pytest.mark.parametrize("truth", QUICK, ids=lambda one: one.name)
def test_intervals_cover(truth: object) -> None:
    for kind, share in SIMULATOR.coverage(truth, STUDIES).items():
        assert 0.93 - SLACK <= share <= 0.97 + SLACK, f"{kind}: {share:.1%}"


@pytest.mark.parametrize("given", SIMULATOR.LEARNED, ids=str)
def test_measures_of_tasks_in_turn_cover(given: tuple[object, ...]) -> None:
    for name, share in SIMULATOR.continual(*given, 1000).items():
        assert 0.93 - 1.5 * SLACK <= share <= 0.98 + SLACK, f"{name}: {share:.1%}"


def test_forgetting_is_not_made_up() -> None:
    truth = SIMULATOR.Scenario(3, 200, seed_sd=0.1)
    forgets, changed = SIMULATOR.false_alarms(truth, STUDIES)
    assert forgets <= 0.05 + SLACK
    assert changed <= 0.05 + SLACK


def test_the_alarm_can_ring() -> None:
    """Forgetting of 15 points, with three seeds, is mostly found."""
    forgets, _ = SIMULATOR.false_alarms(SIMULATOR.Scenario(3, 300, drop=0.15), 100)
    assert forgets > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("truth", SIMULATOR.COVERED, ids=lambda one: one.name)
def test_all_intervals_cover(truth: object) -> None:
    most = 0.98 if truth.seeds == 2 else 0.97  # type: ignore[attr-defined]
    for kind, share in SIMULATOR.coverage(truth, STUDIES, seed=1).items():
        assert 0.93 - SLACK <= share <= most + SLACK, f"{kind}: {share:.1%}"


@pytest.mark.slow
@pytest.mark.parametrize("truth", SIMULATOR.ALARMS, ids=lambda one: one.name)
def test_no_false_alarms(truth: object) -> None:
    forgets, changed = SIMULATOR.false_alarms(truth, STUDIES, seed=1)
    assert forgets <= 0.05
    assert changed <= 0.05 + SLACK


@pytest.mark.slow
def test_one_run_cannot_see_that_seeds_differ() -> None:
    assert SIMULATOR.coverage(SIMULATOR.BLIND, 1000)["difference"] < 0.7
