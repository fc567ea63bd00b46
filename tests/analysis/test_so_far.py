"""What a run shows before its end is made by the statistics of its end, over what is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.analysis import so_far
from holdfast.analysis.so_far import (
    cell_of,
    frontier_so_far,
    how_far,
    losses,
    results_so_far,
    ungraded,
    waiting,
)
from holdfast.grading.grade import read_readings
from holdfast.report import markdown
from holdfast.report.run import read_results
from holdfast.report.write import render
from holdfast.runs.live import Look, Watched
from holdfast.runs.plan import Plan, place
from holdfast.types import BASE, Point


@pytest.fixture(scope="module")
def seen(small_run: Path) -> tuple[Plan, Look]:
    watched = Watched(small_run)
    return watched.plan, watched.look()


def only(look: Look, names: list[str]) -> Look:
    """The same run at an earlier moment."""
    done = {name: look.done[name] for name in names}
    left = tuple(name for name in look.done if name not in done)
    return replace(look, state="under way", done=done, left=left)


def test_of_a_finished_run_it_is_what_the_run_found(
    small_run: Path, seen: tuple[Plan, Look]
) -> None:
    plan, look = seen
    found, whole = results_so_far(plan, look), read_results(small_run)
    assert found.cells == whole.cells and len(found.cells) == 8
    assert (found.noise, found.dose, found.meters) == (whole.noise, whole.dose, whole.meters)
    assert (found.arms, found.tasks) == (whole.arms, whole.tasks)
    assert found.conditions == whole.conditions
    assert found.fronts == whole.fronts and found.fronts
    assert found.decision is None and "The decision" in found.warnings[0]
    rows, of = frontier_so_far(plan, look)
    assert rows == whole.frontier() and of == "6 of 6 models, on lab_math, lab_refuse"


def test_the_frontier_is_of_models_measured_on_every_task_begun(seen: tuple[Plan, Look]) -> None:
    """One that lacks a task may be dominated there, so it is no point of the frontier yet."""
    plan, look = seen
    half = f"readings/{place(Point('sft', 1, 6), 'lab_refuse')}"
    late = [name for name in look.done if name.startswith("readings/") and "seed2" in name]
    now = only(look, [name for name in look.done if name not in (half, *late)])
    rows, of = frontier_so_far(plan, now)
    assert [(row.arm, row.step, row.scale) for row in rows] == [("sft", 3, 1.0), ("low", 6, 0.5)]
    assert of == "2 of 6 models, on lab_math, lab_refuse"
    fronts = results_so_far(plan, now).fronts
    assert {(one.arm, *place) for one in fronts for place in one.points} == {
        (row.arm, row.step, row.scale) for row in rows if row.on_frontier
    }
    begun = only(look, [name for name in now.done if not name.endswith("/lab_refuse")])
    assert frontier_so_far(plan, begun)[1] == "3 of 6 models, on lab_math", "not begun"
    none = only(look, [name for name in look.done if "/base/" in name])
    assert frontier_so_far(plan, none) == ([], "") and not results_so_far(plan, none).fronts
    untold = only(look, [name for name in look.done if not name.endswith("/lab_math")])
    assert frontier_so_far(plan, untold)[0] == [] and not results_so_far(plan, untold).fronts
    foreign = {name: replace(arm, model=plan.model) for name, arm in plan.arms.items()}
    compared = replace(plan, arms=foreign)
    assert frontier_so_far(compared, look) == ([], ""), "a comparison has none"


def test_what_waits_for_its_judge_is_said(seen: tuple[Plan, Look]) -> None:
    plan, look = seen
    assert waiting(plan, look) == "" and ungraded(plan, look) == {}
    answered = [name for name in look.done if not name.startswith(("readings/", "verdicts/"))]
    here = only(look, answered)
    assert ungraded(plan, here) == {"lab_refuse": 7}, "what has no judge is graded at once"
    title = plan.tasks["lab_refuse"].judge_title
    assert waiting(plan, here) == f"Answered, not judged yet: lab_refuse of 7 models ({title})."
    assert waiting(plan, here) in results_so_far(plan, here).warnings[0]
    now = replace(here, working=("verdicts/base/lab_refuse",))
    assert ungraded(plan, now) == {"lab_refuse": 6}, "that one is being judged"


def test_a_point_speaks_of_the_seeds_that_are_there(seen: tuple[Plan, Look]) -> None:
    plan, look = seen
    missing = f"readings/{place(Point('sft', 2, 6), 'lab_math')}"
    found = results_so_far(plan, only(look, [name for name in look.done if name != missing]))
    readings = read_readings(plan.folder / "readings" / place(Point("sft", 1, 6), "lab_math"))
    values = [one.value for one in readings if one.value is not None]
    cell = found.cell("sft", 6, "lab_math")
    assert cell.score.n == len(values)
    assert cell.score.mean == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert found.cell("sft", 3, "lab_math").score.n == 2 * len(readings)
    alone = cell_of(plan, Point("sft", 1, 6), "lab_math")
    assert alone is not None and alone.score == cell.score and alone.diff == cell.diff


def test_at_every_moment_there_is_a_page(seen: tuple[Plan, Look]) -> None:
    plan, look = seen
    order = [stage.name for stage in plan.stages]
    shown = []
    for count in range(len(order)):
        found = results_so_far(plan, only(look, order[:count]))
        shown.append(len(found.cells))
        for text in (render(found, "mark"), markdown.write(found)):
            assert "This study is not finished" in text
            assert (so_far.NOTHING in text) == (not found.cells)
    assert shown == sorted(shown) and shown[0] == 0 and len(set(shown)) > 5


def test_retained_figures_without_those_of_the_target(seen: tuple[Plan, Look]) -> None:
    plan, look = seen
    names = [name for name in look.done if not name.startswith("readings/")]
    names += [name for name in look.done if name.endswith("/lab_refuse") and name not in names]
    found = results_so_far(plan, only(look, names))
    assert {cell.task for cell in found.cells} == {"lab_refuse"} and not found.dose
    render(found)


def test_the_losses_of_a_training_under_way(small_run: Path, tmp_path: Path) -> None:
    plan = replace(Watched(small_run).plan, folder=tmp_path)
    work = tmp_path / "train" / "sft" / "seed1.tmp"
    work.mkdir(parents=True)
    (work / "log.jsonl").write_text(
        '{"loss": 3.0, "step": 1}\n{"eval_loss": 9, "step": 1}\n{"loss": 2.0, "step": 2}\n'
        '{"loss": NaN, "step": 3}\n{"loss": Infinity, "step": 4}\n{"loss": 1.0, "st'
    )
    look = Look("under way", {}, ("train/sft/seed1",), ())
    assert losses(plan, look, "sft", 1) == [(1, 3.0), (2, 2.0)]
    found = results_so_far(plan, look)
    arm = next(one for one in found.arms if one.name == "sft")
    assert arm.loss == ((1, 3.0), (2, 2.0))


def test_how_far_it_is_in_a_line(seen: tuple[Plan, Look]) -> None:
    _, look = seen
    told = {"stage": "train/sft/seed1", "words": "3 of 6 steps", "left_s": 600.0}
    here = replace(look, state="under way", told=told)
    line = how_far(here)
    assert line.startswith(f"under way; {look.total} of {look.total} stages done; at work on train")
    assert line.endswith("3 of 6 steps; about 10 min left")
    several = replace(look, state="under way", told={}, working=("a", "b", "c"))
    assert "; at work on a and 2 more" in how_far(several)
    assert "process 12 is gone" in how_far(replace(look, state="broken off", pid=12))
    assert how_far(look).startswith("finished; ") and BASE not in how_far(look)
