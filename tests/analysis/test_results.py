"""Results as rows, curves, a frontier and a table in a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fixtures.report import SCRIPT, STEPS, build

from holdfast.analysis.results import (
    ArmInfo,
    Cell,
    Front,
    Results,
    Share,
    TaskInfo,
    from_json,
    to_json,
)
from holdfast.errors import DataError, UsageError


def small() -> Results:
    """Two arms and two tasks, one of them inverted, with figures that can be checked by hand."""

    def share(mean: float) -> Share:
        return Share(mean, mean - 0.1, mean + 0.1, 40, 2)

    judge = {"judge": "rules-1", "model": None}
    tasks = (
        TaskInfo("maths", "target", "accuracy", 40, "greedy"),
        TaskInfo("safety", "retained", "unsafe rate", 40, "greedy", inverted=True, judge=judge),
    )
    cells = (
        Cell("base", 0, "maths", share(0.3)),
        Cell("base", 0, "safety", share(0.9)),
        Cell("sft", 8, "maths", share(0.6), Share(0.3, 0.2, 0.4, 40)),
        Cell("sft", 8, "safety", share(0.5), Share(-0.4, -0.5, -0.3, 40), p_holm=0.001),
        Cell("sft", 4, "maths", share(0.5), Share(0.2, 0.1, 0.3, 40)),
        Cell("sft", 4, "safety", share(0.7), Share(-0.2, -0.3, -0.1, 40)),
        Cell("sft", 8, "maths", share(0.55), Share(0.25, 0.1, 0.3, 40), scale=0.5),
        Cell("sft", 8, "safety", share(0.8), Share(-0.1, -0.3, 0.1, 40), scale=0.5),
    )
    arms = (ArmInfo("base", "untouched"), ArmInfo("sft", "plain", family="sweep"))
    fronts = (Front("sft", Share(0.2, 0.1, 0.3, 80), ((8, 0.5),)),)
    return Results("s", "m", (1,), "said", tasks, arms, cells, {}, fronts=fronts)


def test_rows_have_one_row_per_cell_with_value_interval_and_difference() -> None:
    rows = small().rows()
    assert len(rows) == 8
    assert rows[3] == {
        "arm": "sft", "family": "sweep", "step": 8, "scale": 1.0, "final": True,
        "task": "safety", "role": "retained", "value": 0.5, "low": 0.4, "high": 0.6,
        "diff": -0.4, "diff_low": -0.5, "diff_high": -0.3, "p_holm": 0.001,
        "n": 40, "unscored": 2, "judge": "rules-1",
    }  # fmt: skip
    assert rows[0]["diff"] is None and rows[0]["judge"] == "" and rows[0]["family"] == "base"
    assert [row["final"] for row in rows] == [True] * 4 + [False] * 4
    assert json.loads(json.dumps(rows)) == rows


def test_to_frame_is_a_data_frame_where_pandas_is_installed() -> None:
    pandas = pytest.importorskip("pandas")
    results = build()
    frame = results.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(results.rows()[0])
    assert len(frame) == len(results.cells)
    final = frame[frame.final & (frame.task == "hazards")].set_index("arm")
    assert final.value["sft"] == results.cell("sft", 160, "hazards").score.mean


def test_to_frame_is_a_list_of_rows_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert small().to_frame() == small().rows()


def test_a_curve_starts_with_the_untouched_model_and_is_sorted_by_step() -> None:
    curve = small().curve("sft", "maths")
    assert [(point.step, point.value) for point in curve] == [(0, 0.3), (4, 0.5), (8, 0.6)]
    assert (curve[2].low, curve[2].high) == (0.5, 0.7)
    assert [point.step for point in small().curve("base", "maths")] == [0]
    assert [point.step for point in build().curve("replay", "hazards")] == [0, *STEPS]
    assert len(build().curve("prompt", "hazards")) == 1  # asked otherwise, not trained


def test_a_curve_of_an_unknown_arm_or_task_says_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"no arm is called 'stf'.*sft"):
        small().curve("stf", "maths")
    with pytest.raises(UsageError, match=r"no task is called 'math'.*maths"):
        small().curve("sft", "math")


def test_the_frontier_has_gain_and_worst_change_of_every_model() -> None:
    points = small().frontier()
    assert [tuple(point) for point in points] == [
        ("sft", 8, 1.0, 0.3, -0.4, False),
        ("sft", 4, 1.0, 0.2, -0.2, False),
        ("sft", 8, 0.5, 0.25, -0.1, True),
    ]
    alone = replace(small(), cells=tuple(c for c in small().cells if c.task == "maths"))
    assert [point.worst_change for point in alone.frontier()] == [None, None, None]
    on = sum(point.on_frontier for point in build().frontier())
    assert on == sum(len(front.points) for front in build().fronts) > 0
    retained = tuple(replace(task, role="retained") for task in small().tasks)
    assert replace(small(), tasks=retained).frontier() == []


def test_an_unscored_gain_is_no_point_of_the_frontier() -> None:
    nothing = Share(None, None, None, 0, 40)
    cells = [replace(c, diff=nothing) if c.step == 4 else c for c in small().cells]
    assert {point.step for point in replace(small(), cells=tuple(cells)).frontier()} == {8}


def test_a_notebook_shows_final_figures_as_reports_do() -> None:
    text = small()._repr_html_()
    assert "60.0 % [50.0, 70.0], +30.0 points (better)" in text
    assert "50.0 % [40.0, 60.0], +40.0 points (worse)" in text  # the unsafe rate rose
    nothing = replace(small(), cells=())
    assert nothing._repr_html_().count("not measured") == 4
    unscored = [replace(c, score=Share(None, None, None, 0, 9), diff=None) for c in small().cells]
    assert "nothing could be scored" in replace(small(), cells=tuple(unscored))._repr_html_()


def test_everything_in_a_notebook_is_escaped_and_every_tag_closed() -> None:
    open_tags: list[str] = []
    seen: set[str] = set()

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            open_tags.append(tag)
            seen.add(tag)
            assert not attrs

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    results = build()
    nasty = replace(
        results,
        name=SCRIPT,
        verdict=SCRIPT,
        warnings=(SCRIPT,),
        arms=tuple(replace(arm, name=arm.name + SCRIPT) for arm in results.arms),
        tasks=tuple(replace(t, name=t.name + SCRIPT, label=SCRIPT) for t in results.tasks),
        cells=tuple(
            replace(c, arm=c.arm + SCRIPT, task=c.task + SCRIPT) for c in results.cells
        ),
    )  # fmt: skip
    Parser().feed(nasty._repr_html_())
    assert open_tags == []
    assert seen == {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}


def test_rows_survive_the_round_trip_through_json() -> None:
    again = from_json(json.loads(json.dumps(to_json(build()))))
    assert again == build() and again.rows() == build().rows()


@pytest.mark.parametrize("data", [[], {}, {"name": 3}, {"schema": 2, "name": "s"}])
def test_what_are_no_results_is_refused_with_a_remedy(data: object) -> None:
    with pytest.raises(DataError, match=r"cannot be read(?s:.*)--rebuild stats"):
        from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.2, "better"),
        (-0.2, -0.001, "worse"),
        (0.0, 0.2, "no clear change"),
        (-0.2, 0.0, "no clear change"),
        (None, None, "no clear change"),
    ],
)
def test_a_difference_has_a_direction_only_if_its_interval_leaves_out_0(
    low: float | None, high: float | None, said: str
) -> None:
    assert Share(0.1, low, high, 9).direction == said


def test_a_turned_share_has_its_interval_turned_and_turns_back() -> None:
    share = Share(0.25, 0.125, 0.5, 8, 1)
    assert share.turned() == Share(0.75, 0.5, 0.875, 8, 1)
    assert share.turned().turned() == share
    assert Share(None, None, None, 0, 9).turned() == Share(None, None, None, 0, 9)


def test_results_are_read_without_torch_pandas_or_scipy() -> None:
    code = (
        "import sys\nimport holdfast.analysis.results\n"
        "heavy = {'torch', 'pandas', 'scipy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
