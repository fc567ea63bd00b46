"""What every command keeps to: short options, its help in its errors, signs, colours, places."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from holdfast import cli
from holdfast.cli import front
from holdfast.config import load
from holdfast.errors import StudyError

PROGRAM = [sys.executable, "-m", "holdfast"]


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.call(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


TOLD = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""The shell is named: nobody knows from which one the tests were started."""


def _run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=120,
        env={**os.environ, **TOLD, **more}, errors="replace",
    )  # fmt: skip


def test_short_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(capsys, "-V") == _call(capsys, "--version")
    assert _call(capsys, "-h") == _call(capsys, "--help")
    for command in map(cli.named, cli.COMMANDS):
        code, out, _ = _call(capsys, command, "-h")
        assert code == 0 and out.startswith(f"Usage: holdfast {command} ")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (["plan", "--frob"], "holdfast plan --help"),
        (["plan", "--seq-len", "x"], "holdfast plan --help"),
        (["run"], "holdfast run --help"),
        (["ship", "a", "--form", "gif"], "holdfast ship --help"),
        (["frobnicate"], "holdfast --help"),
    ],
)
def test_an_error_names_the_help_of_its_command(
    capsys: pytest.CaptureFixture[str], line: list[str], named: str
) -> None:
    code, out, err = _call(capsys, *line)
    assert (code, out) == (3, "") and err.rstrip().endswith(f"see `{named}`")


def test_quiet_and_verbose_stand_anywhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOLDFAST_VERBOSE", "")
    assert front.volume(["run", "-q", "a", "--", "-q"]) == ["run", "a", "--", "-q"]
    assert front.QUIET.get() and not os.environ["HOLDFAST_VERBOSE"]
    assert front.volume(["-v", "run"]) == ["run"]
    assert not front.QUIET.get() and os.environ["HOLDFAST_VERBOSE"] == "1"
    code, _, err = _call(capsys, "run", "none.yaml", "--quiet")
    assert code == 3 and "Error" in err, "errors are always told"
    line = ("init", str(tmp_path / "a.yaml"), "--recipe", "lab")
    assert _call(capsys, *line, "-q")[:2] == (0, _call(capsys, *line[:1], str(tmp_path / "b.yaml"),
        *line[2:])[1].replace("b.yaml", "a.yaml")), "so are results"  # fmt: skip


def test_completion() -> None:
    shown = _run("--show-completion", "bash")
    assert shown.returncode == 0 and "_holdfast_completion" in shown.stdout
    found = _run(_HOLDFAST_COMPLETE="complete_bash", COMP_WORDS="holdfast met", COMP_CWORD="1")
    assert found.stdout.split() == ["methods"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_a_terminal_without_utf8(encoding: str) -> None:
    for line, code in ((["methods", "kl"], 0), (["run", "none.yaml"], 3), (["recipes"], 0)):
        done = _run(*line, PYTHONIOENCODING=encoding)
        assert done.returncode == code and "Traceback" not in done.stderr
    assert "none.yaml" in _run("run", "none.yaml", PYTHONIOENCODING=encoding).stderr


def test_no_colour_in_pipes_nor_where_it_is_not_wanted() -> None:
    line = ("plan", "--model", "qwen2.5-7b-instruct", "--gpus", "24GiB", "--dry-run")
    for more in ({"NO_COLOR": "1", "FORCE_COLOR": ""}, {"TERM": "dumb"}):
        done = _run(*line, **more)
        assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr


def test_a_pipe_that_closes_early() -> None:
    with subprocess.Popen(
        [*PROGRAM, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read().decode()
    assert "Traceback" not in said


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    for line in (
        ["plan", "--model", "qwen2.5-7b-instruct", "--gpus", "24GiB", "--dry-run"],
        ["init", str(tmp_path / "s.yaml")],
        ["doctor"],
    ):
        done = _run(*line, HOME="/proc/nobody", XDG_CACHE_HOME="", XDG_STATE_HOME="")
        assert done.returncode == 0, done.stderr
    done = _run("--install-completion", "bash", HOME="/proc/nobody")
    assert done.returncode == 3 and "Traceback" not in done.stderr and "/proc" in done.stderr


def test_ctrl_c_at_a_question_is_130(tmp_path: Path) -> None:
    import pty

    parent, child = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "init", str(tmp_path / "s.yaml")], stdin=child, stdout=child,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        os.read(parent, 100)  # the question
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
    os.close(child), os.close(parent)
    assert process.returncode == 130 and "Traceback" not in said
    assert not (tmp_path / "s.yaml").exists()


STUDY = {"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}, "lab_help": {}}}


def test_settings_of_tasks_that_are_not_there() -> None:
    for word in ("tasks.lab_hlep.items=3", "tasks.gsm8k.limit=2"):
        with pytest.raises(StudyError, match="no task is called") as found:
            load.load(STUDY, [word])
        assert "lab_math, lab_help" in found.value.remedy
    made = load.load(STUDY, ["tasks.more.kind=jsonl", "tasks.more.path=a.jsonl", "tasks.x={}"])
    assert set(made.tasks) == {"lab_math", "lab_help", "more", "x"}


@pytest.mark.parametrize("command", ["run", "plan"])
def test_they_are_refused_by_the_commands_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    assert cli.call(["init", str(tmp_path / "s.yaml"), "--recipe", "lab"]) == 0
    capsys.readouterr()
    line = (command, str(tmp_path / "s.yaml"), "tasks.lab_hlep.items=3", "--dry-run")
    code, _, err = _call(capsys, *line)
    assert code == 3 and "did you mean 'lab_help'" in err


def test_compare_takes_settings_in_the_same_form(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = ("compare", "lab", "mine=lab", "--tasks", "lab_help", "--dry-run", "--runs-dir")
    code, out, err = _call(capsys, *base, str(tmp_path), "tasks.lab_help.items=7")
    assert code == 0, err
    assert "lab_help (7 items)" in out
    assert _call(capsys, *base, str(tmp_path), "--set", "tasks.lab_help.items=7") == (0, out, err)
    code, _, err = _call(capsys, *base, str(tmp_path), "tasks.lab_hlep.items=7")
    assert code == 3 and "did you mean 'lab_help'" in err


@pytest.mark.parametrize(
    ("text", "line", "sign"),
    [
        ("name: a\nmodel：lab\n", 2, "："),
        ("name: a\nmodel: lab\ntasks: {lab_math: {role: target}}\nseeds: [1，2]\n", 4, "，"),
        ("name: a\nmodel: lab\ntasks: ｛lab_math: {role: target}}\n", 3, "｛"),
        ("name: a\nmodel: lab\ntasks:\n  lab_math:\n    role: “target”\n", 5, "“"),
    ],
)
def test_full_width_signs_are_named(tmp_path: Path, text: str, line: int, sign: str) -> None:
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as found:
        load.load(tmp_path / "s.yaml")
    assert f"line {line} has the full-width {sign!r}" in found.value.remedy


def test_full_width_signs_in_texts_are_nobody_s_business(tmp_path: Path) -> None:
    text = "name: a  # 名称：甲\nmodel: lab\ntasks: {lab_math: {role: target}}\narms:\n"
    text += "  told: {from: base, ask: [{system_prompt: {text: 请注意：安全，第一}}]}\n"
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    assert load.load(tmp_path / "s.yaml").arms["told"].source == "base"
    (tmp_path / "bad.yaml").write_text("name: a  # 名：甲\nmodell: lab\n", encoding="utf-8")
    with pytest.raises(StudyError) as found:
        load.load(tmp_path / "bad.yaml")
    assert not re.search("full-width", found.value.remedy)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_settings_may_be_options_everywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    file = str(tmp_path / "s.yaml")
    assert cli.call(["init", file, "--recipe", "lab"]) == 0
    capsys.readouterr()
    last = ("--dry-run", "--json")
    bare = _call(capsys, command, file, "tasks.lab_hlep.items=3", *last)
    assert bare[0] == 3 and "did you mean 'lab_help'" in bare[1]
    assert _call(capsys, command, file, "--set", "tasks.lab_hlep.items=3", *last) == bare


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _call(capsys)
    assert (code, err) == (0, "") and out.startswith("Usage: holdfast")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("command", ["", "compare", "run", "power"])
def test_pages_of_help_fit_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, language: str, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = _call(capsys, *command.split(), "--help", "--lang", language)
    assert code == 0
    for line in out.splitlines():
        assert cell_len(line) <= 40 or len(line.split()) == 1 or "--" in line, line
