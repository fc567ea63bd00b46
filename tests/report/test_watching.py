"""`holdfast watch` shows a run whatever becomes of it, in any terminal."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from fixtures.terminal import press

from holdfast.cli import call
from holdfast.memory.hardware.detect import InUse, in_use
from holdfast.progress.remaining import shortened
from holdfast.report import watching
from holdfast.report.run import open_run
from holdfast.report.watching import BLOCKS, _called, sparkline


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def page(run: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert call(["watch", str(run), *more]) == 0
    return capsys.readouterr().out


def unfinished(run: Path, pid: int | None) -> None:
    for name in ("stats", "report"):
        shutil.rmtree(run / name)
    if pid is not None:
        (run / "lock.json").write_text(json.dumps({"pid": pid}))


def test_through_a_pipe_it_is_one_page(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = page(run, capsys)
    assert "\x1b" not in text
    assert text.startswith("s: ") and "finished; " in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.split()}
    assert lines["train"][1:] == ["2"] and int(lines["readings"][1]) == 16
    assert lines["sft/seed1"][-1] == "6/6" and set(lines["sft/seed1"][1]) <= set(BLOCKS)
    last = json.loads((run / "train/sft/seed1/log.jsonl").read_text().splitlines()[-2])
    assert f"{last['loss']:.4g}" in lines["sft/seed1"]
    figure = next(line for line in text.splitlines() if "sft seed1 6 lab_math" in line)
    assert "[" in figure and "Report: " in text


def test_a_reading_is_called_by_arm_step_and_task() -> None:
    """At 80 columns all of it is seen: the arm was cut off once."""
    stage = "readings/replay@0.5/seed1126/checkpoint-160/lab_refuse"
    assert _called(stage, seeds=False) == "replay@0.5 160 lab_refuse"
    assert _called(stage, seeds=True) == "replay@0.5 seed1126 160 lab_refuse"
    assert _called("readings/base/lab_math", seeds=False) == "base lab_math"
    assert shortened("replay 160 lab_math", 19) == "replay 160 lab_math"
    assert shortened("replay 160 lab_math", 15) == "replay 160 …ath"
    assert len(shortened("a_very_long_name_of_an_arm 160 lab_math", 15)) == 15


def test_a_stage_is_shortened_the_same_way_beside_a_bar() -> None:
    """Kind, arm and step are seen, where the end alone was: `…5/checkpoint-160/lab_refuse`."""
    assert shortened("train/sft/seed1", 28) == "train/sft/seed1"
    assert shortened("replies/sft/seed1/checkpoint-160/lab_math", 32) == (
        "replies/sft/seed1/160/lab_math"
    )
    assert shortened("replies/sft/seed1/checkpoint-160/lab_math", 28) == (
        "replies/sft/seed1/160/…_math"
    )
    long = "replies/replay@0.5/seed1126/checkpoint-160/lab_refuse"
    assert shortened(long, 28) == "replies/replay…60/lab_refuse"
    for room in range(4, 60):
        assert len(shortened(long, room)) <= room


@pytest.mark.parametrize("width", ["40", "60", "80", "200"])
def test_no_line_is_wider_than_the_terminal(
    run: Path, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    text = page(run, capsys, "--once")
    assert max(map(len, text.splitlines())) <= int(width)
    assert "sft/seed1" in text and "6/6" in text


def test_a_low_terminal_shows_something_of_everything(run: Path) -> None:
    from rich.console import Console

    unfinished(run, os.getpid())
    (run / "progress.json").write_text(json.dumps({"said": ["one", "x" * 200], "at": 2e9}))
    for height, whole in ((24, False), (80, True)):
        file = io.StringIO()
        terminal = Console(
            force_terminal=True, color_system=None, file=file, width=80, height=height
        )
        terminal.print(watching.Screen(run).draw(terminal))
        lines = file.getvalue().splitlines()
        assert len(lines) <= height
        assert any(line.split()[:1] == ["all"] for line in lines) != whole
        assert any("6/6" in line for line in lines) and any("refuse" in line for line in lines)
        assert any("…" in line and "xxx" in line for line in lines), "one line each"


def test_one_that_broke_off_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished(run, 2**22 + 12345)  # no process has this number
    text = page(run, capsys)
    assert "broken off: process 4206649 is gone" in text and "goes on from here" in text


def test_one_under_way(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished(run, os.getpid())
    told = {"stage": "stats", "words": "1 of 2 pieces", "left_s": 300, "said": ["a word"]}
    (run / "progress.json").write_text(json.dumps(told | {"at": 2e9}))
    text = " ".join(page(run, capsys).split())
    assert "under way; " in text and "at work on stats, 1 of 2 pieces; about" in text
    assert "a word" in text and "Report: " not in text
    found = json.loads(page(run, capsys, "--json"))
    assert found["state"] == "under way" and found["left"] == ["stats", "report"]
    assert [step for step, _ in found["losses"]["sft/seed1"]][-1] == 6
    reading = found["readings"]["sft/seed1/checkpoint-6/lab_math"]
    assert reading["share"]["n"] == 8 and reading["difference"]["low"] is not None
    assert found["readings"]["base/lab_math"]["difference"] is None


def test_nothing_in_the_folder_is_touched(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    page(run, capsys)
    open_run(run).watch()
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    assert "finished; " in capsys.readouterr().out


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["watch", str(tmp_path)]) == 3
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("no_color", ["", "1"])
def test_ctrl_c_ends_it(run: Path, no_color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(run, os.getpid())
    monkeypatch.setenv("NO_COLOR", no_color)
    code, text = press(
        ["watch", str(run), "--every", "0.2"], "holdfast.report.watching:Screen.draw", call=3
    )
    assert code == 0, text
    assert text.count("under way; ") > 1 and "Error" not in text and "Traceback" not in text


def test_it_ends_with_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter(["under way", "under way", "finished"])
    drawn = watching.Screen.draw

    def draw(self: watching.Screen, console: object) -> object:
        found = drawn(self, console)  # type: ignore[arg-type]
        object.__setattr__(self.look, "state", next(states))
        return found

    from rich.console import Console

    monkeypatch.setattr(watching.Screen, "draw", draw)
    terminal = Console(force_terminal=True, file=io.StringIO(), width=100, height=60)
    monkeypatch.setattr(watching, "harmless", lambda: terminal)
    assert watching.shown_until_it_ends(run, every_s=0.01).state == "finished"
    assert next(states, None) is None


def test_sparklines() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == BLOCKS
    assert sparkline([5, 5]) == BLOCKS[0] * 2
    assert sparkline(list(range(100)), width=4) == "▁▃▆█"
    assert sparkline([3.0], "_-") == "_"


def test_gpus_as_nvidia_smi_sees_them() -> None:
    def run(command: object) -> str:
        return "0, NVIDIA H200, 1024, 143771, 97\n1, NVIDIA H200, 4, 143771, [N/A]\nnonsense\n"

    found = in_use(run)
    assert found[0] == InUse(0, "NVIDIA H200", 1 << 30, 143771 << 20, 0.97)
    assert found[1].busy is None and len(found) == 2

    def none(command: object) -> str:
        raise FileNotFoundError

    assert in_use(none) == ()
