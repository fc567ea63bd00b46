"""Does the worked example of `docs/tasks/your-own.md` run as it stands, from data to report?"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from fixtures import pages

from holdfast import tasks
from holdfast.cli import call
from holdfast.config import TaskSpec
from holdfast.errors import DataError, StudyError
from holdfast.grading.grade import grade_replies, read_readings
from holdfast.runs import store
from holdfast.types import Reply

FILES = {"train.jsonl", "test.jsonl", "brief.py", "study.yaml"}


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = pages.blocks("tasks/your-own.md", FILES)
    assert set(files) == FILES
    pages.write(files, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_worked_example_runs_from_data_to_report(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, commands = pages.blocks("tasks/your-own.md", FILES)
    assert len(commands) == 6
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "holdfast" and call(arguments) == 0, capsys.readouterr().err
    run = written / "runs" / "sums"
    page = (run / "report" / "index.html").read_text("utf-8")
    for words in ("number match", "right, and brief", "less", "more"):
        assert words in page
    readings = {name: read_readings(run / "readings" / "base" / name) for name in ("sums", "brief")}
    assert [one.example_id for one in readings["sums"]] == ["cards", "coins", "stamps", "pears"]
    for sums, brief in zip(readings["sums"], readings["brief"], strict=True):
        assert (sums.value == 1) == (brief.value in (0.5, 1.0)), "right is right for both"


def test_a_changed_grader_is_told_from_the_old_one(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = ["--only", "readings/base/brief"]
    assert call(["run", "study.yaml", *only]) == 0
    said = written / "runs" / "sums" / "replies" / "base" / "brief" / "replies.jsonl"
    before = said.stat().st_mtime_ns
    code = (written / "brief.py").read_text("utf-8")
    (written / "brief.py").write_text(code.replace('(0.5, "right', '(0.25, "right'), "utf-8")
    capsys.readouterr()
    assert call(["run", "study.yaml", *only]) == 3
    told = capsys.readouterr().err
    assert "code:" in told and "--rebuild 'readings/" in told
    assert call(["run", "study.yaml", *only, "--rebuild", "readings/*"]) == 0
    assert said.stat().st_mtime_ns == before, "replies are kept"


def test_options_of_one_s_own_task_are_checked(written: Path) -> None:
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl", most_word=3)  # type: ignore[call-arg]
    with pytest.raises(StudyError, match=r"most_word: unknown key .did you mean 'most_words'"):
        tasks.build("brief", spec, "study.yaml")
    made = tasks.build("brief", TaskSpec(kind="brief.py:Brief", path="test.jsonl"), "s")  # type: ignore[call-arg]
    made.self_check()
    one = made.examples("test")[0]
    assert made.options.most_words == 20 and one.id == "cards"


def test_what_a_task_leaves_out_has_a_default(written: Path) -> None:
    code = (written / "brief.py").read_text("utf-8")
    line = '    label = "right, and brief"\n'
    assert code.count(line) == 1
    (written / "brief.py").write_text(code.replace(line, ""), "utf-8")
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl")  # type: ignore[call-arg]
    made = tasks.build("brief", spec, "study.yaml")
    assert (made.label, made.plugin, made.version) == ("Brief", "Brief", "1")
    assert (made.judge, made.inverted, made.perplexity, made.own_shots) == (None,) + (False,) * 3
    assert len(made.code) == 16


def test_a_task_without_options_is_told_before_anything_is_asked(written: Path) -> None:
    code = (written / "brief.py").read_text("utf-8")
    mine = "    def __init__(self, options, judge=None):\n        pass\n\n    def examples("
    (written / "brief.py").write_text(code.replace("    def examples(", mine), "utf-8")
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl")  # type: ignore[call-arg]
    with pytest.raises(StudyError, match="Brief sets no options") as caught:
        tasks.build("brief", spec, "study.yaml")
    assert caught.value.where == "study.yaml: tasks.brief"
    assert "super().__init__(options, judge)" in caught.value.remedy


def test_the_grader_is_proved_on_the_first_gold_answer(written: Path) -> None:
    code = (written / "brief.py").read_text("utf-8")
    wrong = code.replace("value, outcome = 0.0", "value, outcome = 1.0")
    assert wrong != code
    (written / "brief.py").write_text(wrong, "utf-8")
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl")  # type: ignore[call-arg]
    with pytest.raises(DataError, match=r"gives 1.0 to an empty answer '' of 'cards'") as caught:
        tasks.build("brief", spec, "study.yaml").self_check()
    assert caught.value.where == "task Brief" and caught.value.remedy


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ('{}["hm"]', "fails on the reply to 'cards': KeyError: 'hm'"),
        ("1.0", "it returned 1.0, which is no Reading"),
    ],
)
def test_a_grader_that_fails_names_the_item(written: Path, returned: str, message: str) -> None:
    code = (written / "brief.py").read_text("utf-8")
    start = "    def grade(self, example, reply, verdict):\n"
    (written / "brief.py").write_text(
        code.replace(start, f"{start}        return {returned}\n"), "utf-8"
    )
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl")  # type: ignore[call-arg]
    task = tasks.build("brief", spec, "study.yaml")
    store.write_jsonl(written / "said" / "replies.jsonl", [Reply("cards", 0, "10", "stop", 1)])
    with pytest.raises(DataError, match=message) as caught:
        grade_replies(task, task.examples("test"), written / "said", None, written / "graded")
    assert caught.value.where == "task Brief"
    assert "brief.py" in caught.value.remedy
    assert ("line" in caught.value.remedy) == ("KeyError" in message)
