"""Does the worked example of `docs/tasks/your-own.md` run as it stands, from data to report?"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from holdfast import tasks
from holdfast.cli import call
from holdfast.config import TaskSpec
from holdfast.errors import DataError, StudyError
from holdfast.grading.grade import grade_replies, read_readings
from holdfast.runs import store
from holdfast.types import Reply

PAGE = ROOT / "docs" / "tasks" / "your-own.md"
FILES = {"train.jsonl", "test.jsonl", "brief.py", "study.yaml"}


def _blocks() -> tuple[dict[str, str], list[str]]:
    """The files that the page has one write, each named last before its block; and the commands."""
    files: dict[str, str] = {}
    commands: list[str] = []
    names: list[str] = []
    for text, kind, body in re.findall(r"(.*?)```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.S):
        names = [one for one in re.findall(r"`([\w.]+)`", text) if one in FILES] or names
        if kind == "bash":
            commands += [line.partition("#")[0].strip() for line in body.strip().splitlines()]
        else:
            files[names[-1]] = body
    return files, commands


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files, _ = _blocks()
    assert set(files) == FILES
    for name, body in files.items():
        (tmp_path / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_worked_example_runs_from_data_to_report(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, commands = _blocks()
    assert len(commands) == 6
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "holdfast" and call(arguments) == 0, capsys.readouterr().err
    run = written / "runs" / "sums"
    page = (run / "report" / "index.html").read_text("utf-8")
    for words in ("number match", "right, in at most 8 words", "less", "more"):
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


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("none.py:Brief", None, r"no such file: none\.py"),
        ("own.py:Breif", "class Brief: pass\n", "no class 'Breif' .did you mean 'Brief'"),
        ("own.py:Brief", "class Brief: pass\n", "lacks Options, version, examples"),
        ("own.py:Brief", "import nothing_like_it\n", "cannot be run: ModuleNotFoundError"),
        ("own.py:Brief", "def f(:\n", "cannot be run: SyntaxError"),
        ("own.py:", "x = 1\n", "no class ''"),
    ],
)
def test_mistakes_in_a_file_of_one_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, text: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("own.py").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=message) as caught:
        tasks.build("mine", TaskSpec(kind=kind), "study.yaml")
    assert caught.value.where == "study.yaml: tasks.mine" and caught.value.remedy


def test_options_of_one_s_own_task_are_checked(written: Path) -> None:
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl", most_word=3)  # type: ignore[call-arg]
    with pytest.raises(StudyError, match=r"most_word: unknown key .did you mean 'most_words'"):
        tasks.build("brief", spec, "study.yaml")
    made = tasks.build("brief", TaskSpec(kind="brief.py:Brief", path="test.jsonl"), "s")  # type: ignore[call-arg]
    made.self_check()
    one = made.examples("test")[0]
    assert made.options.most_words == 20 and one.id == "cards"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("    inverted = False  # more is better\n", "inverted"),
        ("    judge = None\n", "judge"),
        ('        self.label = f"right, in at most {options.most_words} words"\n', "label"),
        ("        self.options = options\n", "options"),
    ],
)
def test_a_task_that_lacks_something_is_told_before_anything_is_asked(
    written: Path, line: str, missing: str
) -> None:
    code = (written / "brief.py").read_text("utf-8")
    assert code.count(line) == 1
    (written / "brief.py").write_text(code.replace(line, ""), "utf-8")
    spec = TaskSpec(kind="brief.py:Brief", path="test.jsonl", judge=None)  # type: ignore[call-arg]
    with pytest.raises(StudyError, match=rf"Brief sets no {missing}\n") as caught:
        tasks.build("brief", spec, "study.yaml")
    assert caught.value.where == "study.yaml: tasks.brief"
    assert "docs/tasks/your-own.md" in caught.value.remedy


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ('{}["hm"]', "fails on the reply to 'cards': KeyError: 'hm'"),
        ("1.0", "it returned 1.0, which is no Reading"),
    ],
)
def test_a_grader_that_fails_names_the_item(written: Path, returned: str, message: str) -> None:
    code = (written / "brief.py").read_text("utf-8")
    start = "    def grade_replies(self, example, reply, verdict):\n"
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
