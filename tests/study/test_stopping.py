"""Ctrl-C in a terminal: it says what it waits for, loses nothing, and leaves nothing half made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.study import readings_of, write_study
from fixtures.terminal import press

from holdfast.runs import run_folder

SMALL = {"seeds": [1], "arms": {"sft": {}}}
PLACES = {
    "load": ("holdfast.models:load_model", 1),
    "answering": ("holdfast.engines.hf:HFEngine._batch", 2),
    "training": ("holdfast.train.trainer:Trainer.training_step", 4),
    "grading": ("holdfast.study.measuring:grade_replies", 3),
    "report": ("holdfast.report.write:write", 1),
}


@pytest.fixture(scope="module")
def command(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A study with several batches and steps."""
    folder = tmp_path_factory.mktemp("stopped")
    answer = {"sampling": {"max_new_tokens": 8}, "batch_size": 3}
    path = write_study(folder, tiny_model, answer=answer, **SMALL)
    return ["run", str(path), "--runs-dir", str(folder / "runs")]


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The readings of the same study."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    answer = {"sampling": {"max_new_tokens": 8}, "batch_size": 3}
    path = write_study(folder, tiny_model, answer=answer, **SMALL)
    _finish(["run", str(path), "--runs-dir", str(folder / "runs")])
    return readings_of(folder / "runs" / "s")


def _finish(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *command], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr


def _stopped(command: list[str], place: str, times: int) -> str:
    """Press Ctrl-C; returns what was shown."""
    where, call = PLACES[place]
    code, shown = press(command, where, call, times)
    assert code == 130, shown
    assert "Traceback" not in shown
    last = " ".join(shown.rpartition("Stopped: ")[2].split())
    assert last.startswith("everything finished is kept → continue with: holdfast run"), shown
    with run_folder.lock(_run(command)):
        pass  # nobody holds it any more
    return shown


def _run(command: list[str]) -> Path:
    return Path(command[-1]) / "s"


def test_ctrl_c_waits_for_what_is_under_way_and_the_command_goes_on(
    command: list[str], uninterrupted: dict[str, str]
) -> None:
    run = _run(command)
    shown = _stopped(command, "answering", 1)
    assert "Stopping: finishing the 3 answers under way; press Ctrl-C again" in shown
    kept = (run / "replies/base/lab_math.tmp/parts/some").read_text("utf-8").splitlines()
    assert len(kept) == 6 + 1, "two batches of three, and what they cost"
    shown = _stopped(command, "training", 1)
    assert "Stopping: finishing step 4 of 6 and a checkpoint; press Ctrl-C again" in shown
    left = run / "train/sft/seed1.tmp"
    assert (left / "checkpoint-4" / "complete").is_file(), "nobody had planned it"
    assert "of 8 answers" in shown and "tokens/s" in shown and "loss" in shown
    _finish(command)
    assert readings_of(run) == uninterrupted
    names = {one.name for one in (run / "train/sft/seed1").glob("checkpoint-*")}
    assert names == {"checkpoint-3", "checkpoint-6"}
    assert not list(run.rglob("*.tmp")) and not list(run.rglob("parts"))


@pytest.mark.slow
def test_anywhere_once_or_twice(
    tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    answer = {"sampling": {"max_new_tokens": 8}, "batch_size": 3}
    path = write_study(tmp_path, tiny_model, answer=answer, **SMALL)
    command = ["run", str(path), "--runs-dir", str(tmp_path / "runs")]
    for place in PLACES:
        for times in (2, 1):
            shown = _stopped(command, place, times)
            assert "Stopping" in shown or times == 1
    assert not list((_run(command) / "train").rglob("checkpoint-2")), "twice writes none"
    _finish(command)
    assert readings_of(_run(command)) == uninterrupted
