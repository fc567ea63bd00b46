"""Is what became of every task after every stage shown alike in page, markdown and terminal?"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.analysis.arrays import Measured
from holdfast.analysis.results import ArmInfo, Learned, Results, TaskInfo, from_json, to_json
from holdfast.analysis.summarize import RunData, assemble
from holdfast.report import console, stages
from holdfast.report.headline import headline
from holdfast.report.write import write_report
from holdfast.types import Reading

TASKS = [
    TaskInfo("safety", "retained", "unsafe rate", 100, "", inverted=True),
    TaskInfo("math", "target", "accuracy", 100, ""),
    TaskInfo("code", "target", "accuracy", 100, ""),
]
LEARNED = [Learned("code", 5), Learned("math", 9)]


def _readings(good: int) -> list[Reading]:
    return [Reading(f"i{n}", 0, float(n < good), "x") for n in range(100)]


def _results(**arms: dict[int, tuple[int, int, int]]) -> Results:
    """Of each arm by step: how many of 100 are good in safety, math and code."""
    points = {"base": {0: (90, 10, 20)}} | arms
    measured = [
        Measured(arm, step, task.name, [_readings(good)])
        for arm, steps in points.items()
        for step, goods in steps.items()
        for task, good in zip(TASKS, goods, strict=True)
    ]
    infos = [ArmInfo(arm, arm, examples=9) for arm in points]
    return assemble(RunData("s", "m", [1], TASKS, infos, measured, {}, learned=LEARNED))


def test_a_matrix_has_the_learned_tasks_first_and_a_row_for_each_stage(tmp_path: Path) -> None:
    results = _results(sft={5: (80, 12, 70), 9: (60, 95, 30)}, last={9: (88, 50, 60)})
    assert from_json(to_json(results)) == results
    assert [task.name for task in stages.columns(results)] == ["code", "math", "safety"]
    sft, last = stages.matrices(results)
    assert [row.when.en for row in sft.rows] == ["before", "after 1: code", "after 2: math"]
    assert [row.own for row in sft.rows] == [None, 0, 1]
    shown = [[text for text, _ in stages.texts(row)] for row in sft.rows]
    assert [text.split("\u202f")[0] for text in shown[2]] == ["30.0", "95.0", "40.0"]  # unsafe
    assert stages.texts(sft.rows[2])[0][1].startswith("▼ \u221240.0 [")
    assert [row.when.zh for row in last.rows] == ["之前", "第 2 阶段 math 之后"]
    measures = dict(stages.measures(results))
    assert measures["sft"][1].startswith("\u221240.0 [") and measures["sft"][3].startswith("+40.0")
    assert measures["last"][1:4] == ("—", "—", "—")  # it was not measured in between
    assert measures["last"][4].startswith("\u22127.5 [")
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    for one in (page, text):
        assert "One task after the other" in one and "after 2: math" in one
        assert measures["sft"][1].split(" ")[0] in one
    assert page.count('class="own"') == 3
    rows = (tmp_path / "stages.csv").read_text(encoding="utf-8").splitlines()
    assert "sft,2,math,9,code,0.3," in "\n".join(rows) and len(rows) == 1 + 9 + 6


@pytest.mark.parametrize(("language", "word"), [("en", "Backward transfer"), ("zh", "后向迁移")])
def test_the_terminal_shows_it_in_both_languages(
    language: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", language)
    results = _results(sft={5: (80, 12, 70), 9: (60, 95, 30)})
    screen = Console(width=100, record=True, file=io.StringIO())
    screen.print(console.table(results, 100))
    text = screen.export_text()
    assert word in text and "\u221240.0" in text


def test_the_headline_says_what_was_forgotten() -> None:
    forgot = _results(sft={5: (80, 12, 70), 9: (60, 95, 30)})
    assert "forgot some of what it had learned" in headline(forgot).en
    assert "After 2 stages sft is right on 62.5 %" in forgot.verdict
    kept = _results(sft={5: (80, 12, 70), 9: (90, 95, 70)})
    assert "no measurable loss of what it had learned" in headline(kept).en
    assert "and forgot safety" in headline(forgot).en and "safety" not in headline(kept).en
    half = _results(sft={5: (80, 12, 70), 9: (60, 95, 70)})
    assert "of what it had learned before but forgot safety" in headline(half).en
    assert "sft lost 30.0 points" in forgot.verdict and "lost" not in kept.verdict
    assert not forgot.dose and not forgot.equal_gain


def test_a_study_of_one_task_has_none_of_it(tmp_path: Path) -> None:
    plain = replace(_results(sft={5: (80, 12, 70), 9: (60, 95, 30)}), learned=(), transfer=())
    assert not stages.matrices(plain) and not stages.measures(plain)
    page = write_report(plain, tmp_path).read_text(encoding="utf-8")
    assert 'id="stages"' not in page and not (tmp_path / "stages.csv").exists()
