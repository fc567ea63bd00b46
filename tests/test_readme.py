"""The README's three doors: each is short, its commands chain by name, and they run as printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.first_hour import (
    DOORS,
    MOST_COMMANDS,
    MOST_LINES,
    SMALLER,
    commands_of,
    door,
)
from holdfast import cli

SEE, FIT, FORGOT = DOORS.values()


def enter(commands: Sequence[Sequence[str]], capsys: pytest.CaptureFixture[str]) -> str:
    """Run commands in turn; all that they print."""
    printed = ""
    for arguments in commands:
        code = cli.call(list(arguments))
        said = capsys.readouterr()
        no = {0, 2} if arguments[0] in ("ship", "plan") else {0}  # no is an answer too
        assert code in no, f"{arguments}: {said.err}"
        printed += said.out
    return printed


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has run, smaller."""
    folder = tmp_path_factory.mktemp("readme")
    assert cli.call(["demo", *SMALLER["demo"], "--runs-dir", str(folder / "runs")]) == 0
    return folder


@pytest.mark.parametrize("name", [SEE, FIT, FORGOT])
def test_a_door_is_short_and_chains(name: str) -> None:
    commands = door(name)
    assert 3 <= len(commands) <= MOST_COMMANDS
    made = set()
    for command, *words in commands:
        made |= {"runs/demo"} if command == "demo" else set()
        made |= {words[0]} if command == "init" else set()
        if "--name" in words:
            made.add(f"runs/{words[words.index('--name') + 1]}")
        if command in ("run", "report", "ship", "power") or words[:1] == ["fits.yaml"]:
            assert words[0] in made, f"{command} {words[0]}: nothing before makes it"


def test_seeing_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    assert door(SEE)[0] == ["demo"]
    printed = enter(commands_of("see", quick=True), capsys)
    assert "Report: runs/demo/report/index.html" in printed and (here / "mine.yaml").is_file()
    assert len(printed.splitlines()) <= MOST_LINES


def test_what_does_not_fit(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    commands = commands_of("fit", quick=True)
    assert cli.call(commands[0]) == 2, "it does not fit"
    capsys.readouterr()
    printed = enter(commands, capsys)
    assert "qlora" in printed.casefold()
    compile((here / "train.py").read_text("utf-8"), "train.py", "exec")
    assert len(printed.splitlines()) <= MOST_LINES


def test_what_was_forgotten(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    printed = enter(commands_of("forgot", quick=True), capsys)
    assert "Report: runs/mine/report/index.html" in printed
    assert len(printed.splitlines()) <= MOST_LINES
