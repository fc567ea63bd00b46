"""Is forgetting at equal gain computed from readings, and shown alike in page and markdown?"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.analysis.arrays import Measured
from holdfast.analysis.results import ArmInfo, Results, TaskInfo, from_json, to_json
from holdfast.analysis.summarize import RunData, assemble
from holdfast.report.equal_gain import at_equal_gain, at_equal_loss
from holdfast.report.write import write_report
from holdfast.types import Reading

TASKS = [
    TaskInfo("maths", "target", "accuracy", 200, ""),
    TaskInfo("safety", "retained", "unsafe rate", 200, "", inverted=True),
]


def _readings(good: int) -> list[Reading]:
    return [Reading(f"i{n}", 0, float(n < good), "x") for n in range(200)]


def _results(**arms: list[tuple[int, int]]) -> Results:
    measured = [Measured("base", 0, task.name, [_readings(100)]) for task in TASKS]
    measured += [
        Measured(arm, step, task.name, [_readings(good)])
        for arm, points in arms.items()
        for step, goods in enumerate(points, 1)
        for task, good in zip(TASKS, goods, strict=True)
    ]
    infos = [ArmInfo("base", ""), *(ArmInfo(arm, arm, examples=9) for arm in arms)]
    return assemble(RunData("s", "m", [1], TASKS, infos, measured, {}))


def test_arms_are_compared_where_they_have_gained_alike(tmp_path: Path) -> None:
    """sft gains 40 points and loses 30; slow gains 25 and loses 5; none gains nothing."""
    results = _results(
        sft=[(140, 80), (180, 40)], slow=[(120, 98), (150, 90)], none=[(100, 100), (100, 99)]
    )
    half, most = ([one for one in results.equal_gain if one.gain == gain]
                  for gain in (0.2, 0.32))  # fmt: skip
    found = {one.arm: one.change.mean for one in half}
    assert found["sft"] == pytest.approx(-0.1)  # at its first checkpoint
    assert found["slow"] == pytest.approx(-0.01 - 0.04 * (0.2 - 0.1) / (0.25 - 0.1), abs=1e-6)
    assert found["none"] is None
    against = {one.arm: one.against for one in half}
    assert against["sft"] is None
    assert against["slow"] is not None and against["slow"].mean == pytest.approx(0.0633, abs=1e-3)
    assert against["slow"].low is not None and against["slow"].low > 0
    assert {one.arm: one.change.mean for one in most}["slow"] is None
    assert from_json(to_json(results)) == results
    page = write_report(results, tmp_path)
    shown = (page.read_text(encoding="utf-8"), (tmp_path / "report.md").read_text(encoding="utf-8"))
    rows = [row for one in at_equal_gain(results) for row in one.rows]
    texts = [text for arm, change, against in rows for text in (arm, change.en, against)]
    assert "never gains that much" in texts
    assert any(text.startswith("▲ +10.0 [") for text in texts), "an unsafe rate rises"
    for text in texts:
        for one in shown:
            assert text in one
    assert all("Forgetting at equal gain" in one for one in shown)


def test_without_a_gain_or_another_arm_there_is_no_table() -> None:
    two = [(140, 80), (180, 40)]
    assert _results(sft=two, other=two).equal_gain and not _results(sft=two).equal_gain
    assert not _results(sft=[(90, 80), (80, 80)], other=[(80, 90), (80, 90)]).equal_gain


def test_an_arm_measured_once_has_no_way_to_be_read_along() -> None:
    """As merged weights are; a line to it from the untouched model would be made up."""
    results = _results(sft=[(140, 80), (180, 40)], merged=[(180, 40)], slow=[(120, 98), (150, 90)])
    for found in (results.equal_gain, results.equal_loss):
        assert {one.arm for one in found} == {"sft", "slow"}


def test_gain_at_equal_forgetting(tmp_path: Path) -> None:
    """For 12 of sft's 30 points lost it had gained 22 of 40; slow never loses that much."""
    results = _results(
        sft=[(140, 80), (180, 40)], slow=[(120, 98), (150, 90)], none=[(100, 100), (100, 99)]
    )
    half, most = ([one for one in results.equal_loss if one.loss == loss] for loss in (0.15, 0.24))
    found = {one.arm: one for one in half}
    assert found["sft"].gain.mean == pytest.approx(0.2 + 0.2 * 0.05 / 0.2)
    assert found["sft"].gain.low is not None and 0.15 < found["sft"].gain.low < 0.25
    assert found["slow"].gain.mean == pytest.approx(0.25) and found["slow"].reached < 0.05
    assert found["none"].gain.mean == 0.0
    against = {one.arm: one.against for one in half}
    assert against["sft"] is None
    assert against["slow"] is not None and against["slow"].mean == pytest.approx(0.0)
    assert against["none"] is not None and against["none"].high is not None
    assert against["none"].high < 0, "none gains clearly less for it"
    assert {one.arm: one.gain.mean for one in most}["sft"] == pytest.approx(0.34)
    assert from_json(to_json(results)) == results
    page = write_report(results, tmp_path)
    shown = [path.read_text(encoding="utf-8") for path in (page, tmp_path / "report.md")]
    tables = at_equal_loss(results)
    assert [(one.task.name, one.far.en) for one in tables] == [
        ("safety", "+15.0 points"),
        ("safety", "+24.0 points"),
    ]
    texts = [text for one in tables for _, gain, against in one.rows for text in (gain.en, against)]
    assert any(text.endswith("(never loses that much)") for text in texts)
    for one in shown:
        assert "Gain at equal forgetting" in one and all(text in one for text in texts)


def test_without_a_loss_there_is_nothing_to_have_gained_for_it() -> None:
    kept = [(130, 100), (140, 100)]
    assert _results(sft=kept, other=[(110, 100), (120, 99)]).equal_loss
    assert not _results(sft=kept, other=[(110, 100), (120, 100)]).equal_loss
