"""Ctrl-C in a terminal: it says what it waits for, loses nothing, and leaves nothing half made."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.study import readings_of, run_study, write_study
from fixtures.terminal import press

from holdfast.runs import run_folder

PLACES = {
    "load": ("holdfast.models:load_model", 1, 1),
    "answering": ("holdfast.engines.hf:HFEngine._batch", 2, 1),
    "answering, twice": ("holdfast.engines.hf:HFEngine._batch", 2, 2),
    "training, twice": ("holdfast.train.trainer:Trainer.training_step", 4, 2),
    "grading": ("holdfast.study.measuring:grade_replies", 3, 1),
    "report": ("holdfast.study.layout:write_report", 1, 1),
}


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The readings of the study of these tests."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_study(_small(folder, tiny_model), folder / "runs")
    return readings_of(folder / "runs" / "s")


def _small(folder: Path, model: Path) -> Path:
    """A study with several batches and steps."""
    answer = {"sampling": {"max_new_tokens": 8}, "batch_size": 3}
    return write_study(folder, model, answer=answer, seeds=[1], arms={"sft": {}})


def _stopped(path: Path, place: str, call: int, times: int) -> str:
    """Press Ctrl-C while the study runs; returns what was shown."""
    runs = path.parent / "runs"
    code, shown = press(["run", str(path), "--runs-dir", str(runs)], place, call, times)
    assert code == 130, shown
    assert "Traceback" not in shown
    last = " ".join(shown.rpartition("Stopped: ")[2].split())
    assert last.startswith(f"everything finished is kept → continue with: holdfast run {path}")
    with run_folder.lock(runs / "s"):
        pass  # nobody holds it any more
    return shown


def test_ctrl_c_in_training_loses_no_step(
    tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    path, run = _small(tmp_path, tiny_model), tmp_path / "runs" / "s"
    shown = _stopped(path, "holdfast.train.trainer:Trainer.training_step", 4, 1)
    assert "Stopping: finishing step 4 of 6 and a checkpoint; press Ctrl-C again" in shown
    left = run / "train/sft/seed1.tmp"
    assert (left / "checkpoint-4" / "complete").is_file(), "nobody had planned it"
    assert "3 of 6 steps, loss " in shown and " tokens/s" in shown and " left" in shown
    run_study(path, tmp_path / "runs")
    assert readings_of(run) == uninterrupted
    names = {one.name for one in (run / "train/sft/seed1").glob("checkpoint-*")}
    assert names == {"checkpoint-3", "checkpoint-6"}
    assert not list(run.rglob("*.tmp")) and not list(run.rglob("parts"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_anywhere_once_or_twice(
    tiny_model: Path, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    path, run = _small(tmp_path, tiny_model), tmp_path / "runs" / "s"
    for moment, (place, call, times) in PLACES.items():
        shown = _stopped(path, place, call, times)
        if moment == "answering":
            assert "finishing the 3 answers under way; press Ctrl-C again" in shown
            kept = (run / "replies/base/lab_math.tmp/parts/some").read_text("utf-8")
            assert len(kept.splitlines()) == 6 + 1, "two batches, and what they cost"
        if moment == "training, twice":
            assert not list((run / "train").rglob("checkpoint-4"))
    run_study(path, tmp_path / "runs")
    assert readings_of(run) == uninterrupted
