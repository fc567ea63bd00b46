"""When does a machine that follows a run stop? What it joins is in `test_distributed`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fixtures.side_by_side import variables

from holdfast.errors import WorkerLost
from holdfast.runs import run_folder
from holdfast.train.job import FOLDER
from holdfast.train.launch import follow as module
from holdfast.train.launch.follow import follow

LEADER = """
import sys, time
from pathlib import Path
from holdfast.runs import run_folder
run_folder.BEAT_S = 0.05
with run_folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def _leader(run: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, str(run)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, **variables(())},
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_folder.open_run(tmp_path / "r")
    return tmp_path / "r"


def test_a_run_whose_process_was_killed_is_not_followed_for_ever(run: Path) -> None:
    with _leader(run) as leader:
        killer = threading.Timer(1.0, leader.kill)
        killer.start()
        with pytest.raises(WorkerLost, match="not been heard of for 1 s") as caught:
            follow(run, 0.02, silent_s=1.0)
        assert leader.poll() is not None, "it was heard of for as long as it lived"
    assert "first machine" in caught.value.remedy
    assert (run / run_folder.HOLDER).is_file()


def test_what_a_killed_run_has_left_is_not_joined(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower waits for the next run, and ends with it."""
    with _leader(run) as leader:
        leader.kill()
    job = run / "train" / "sft" / "seed1.tmp" / FOLDER / "job.json"
    job.parent.mkdir(parents=True)
    job.write_text("{}")
    monkeypatch.setattr(module, "read_job", lambda file: pytest.fail("it was read"))
    monkeypatch.setattr(run_folder, "BEAT_S", 0.05)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(follow(run, 0.02)), daemon=True)
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()
    with run_folder.lock(run):
        time.sleep(0.5)
        assert thread.is_alive()
    thread.join(5)
    assert found == [0]
