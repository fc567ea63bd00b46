"""The README's three doors: each is short, its commands chain by name, and they run as printed."""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from holdfast import cli

TEXT = (ROOT / "README.md").read_text("utf-8")
SEE, FIT, FORGOT = "I want to see it", "It does not fit", "What did my fine-tune forget?"
MOST_COMMANDS, MOST_LINES = 5, 120
TINY = [
    "tasks.lab_math.items=8", "tasks.lab_math.train_items=16", "tasks.lab_refuse.items=8",
    "tasks.lab_help.items=8", "train.max_steps=2", "train.checkpoints=1",
]  # fmt: skip
"""Added to the demo: a run of minutes is `make demo`'s, not this test's."""
STANDING_IN = {
    "Qwen/Qwen2.5-1.5B-Instruct": "lab",
    "path/to/your-lora": "runs/demo/train/sft/seed1126/checkpoint-2",
}  # fmt: skip
"""What the third door names and is not here, and what is compared instead."""


def door(name: str, instead: Mapping[str, str] | None = None) -> list[list[str]]:
    """The commands of a door, with the variables that it sets.

    Args:
        name: in bold letters.
        instead: by a word of its commands, or one between commas, another.
    """
    found = re.search(rf"\*\*{re.escape(name)}\.?\*\*.*?```bash\n(.*?)```", TEXT, re.S)
    assert found, name
    lines, given = found[1].splitlines(), dict[str, str]()
    while re.match(r"[A-Z]+=", lines[0]):
        given |= dict(word.split("=", 1) for word in shlex.split(lines.pop(0)))
    words = [shlex.split(string.Template(line).substitute(given), comments=True) for line in lines]
    assert all(one[0] == "holdfast" for one in words)
    known = instead or {}
    return [
        [",".join(known.get(part, part) for part in word.split(",")) for word in one[1:]]
        for one in words
    ]


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
    assert cli.call(["demo", *TINY, "--runs-dir", str(folder / "runs")]) == 0
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
    first, *rest = door(SEE)
    assert first == ["demo"]
    printed = enter([[*first, *TINY], *rest], capsys)
    assert "Report: runs/demo/report/index.html" in printed and (here / "mine.yaml").is_file()
    assert len(printed.splitlines()) <= MOST_LINES


def test_what_does_not_fit(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    commands = [
        [*one, *["--dry-run"] * (one[0] == "plan")]  # by formula: a trace takes seconds
        for one in door(FIT)
    ]
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
    commands = [
        [*one, *["--limit", "8"] * (one[0] == "compare")] for one in door(FORGOT, STANDING_IN)
    ]
    printed = enter(commands, capsys)
    assert "Report: runs/mine/report/index.html" in printed
    assert len(printed.splitlines()) <= MOST_LINES
