"""Real workers: whatever dies, only its stage is begun again, and nobody is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures import side_by_side
from fixtures.side_by_side import alive, begun, carry, made, none_left, records_of, variables

from holdfast.errors import FolderError, HoldfastError, TrainingError, WorkerLost
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop
from holdfast.runs import run_folder, stages
from holdfast.runs.executors import links

CHAIN = [("a", (), ""), ("b/x", ("a",), ""), ("b/y", ("a",), ""), ("c", ("b/x", "b/y"), "")]


@pytest.fixture(autouse=True)
def _nobody_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    assert none_left(tmp_path), alive(tmp_path)


class Told(Silent):
    """What is shown, with a `Stop` of its own."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.lines: list[str] = []
        self.steps = 0

    def advance(self, amount: int = 1) -> None:
        self.steps += amount

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_the_stages_are_those_that_one_process_makes(tmp_path: Path) -> None:
    carry(tmp_path / "two", CHAIN)
    plan = made(CHAIN)
    one = tmp_path / "one"
    stages.execute(stages.schedule(plan, one), plan, one, Silent())
    two, alone = records_of(tmp_path / "two", CHAIN), records_of(one, CHAIN)
    for name in two:
        assert two[name]["fingerprint"] == alone[name]["fingerprint"]
        assert two[name]["files"] == alone[name]["files"]
    pids = {record["summary"]["pid"] for record in two.values()}
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    assert {record["summary"]["threads"] for record in two.values()} == {"1"}
    assert all(step.done for step in stages.schedule(plan, tmp_path / "two"))
    assert not (tmp_path / "two" / links.FOLDER / links.SECRET).exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_stages_run_side_by_side(tmp_path: Path) -> None:
    """Each of two waits for what the other has done: one after another they would never end."""
    run = tmp_path / "r"
    rows = [("x", (), f"wait {begun(run, 'y')}"), ("y", (), f"wait {begun(run, 'x')}")]
    carry(tmp_path / "r", rows)
    assert len({one["summary"]["pid"] for one in records_of(tmp_path / "r", rows).values()}) == 2


def test_what_takes_nothing_runs_beside_what_takes_everything(tmp_path: Path) -> None:
    done = tmp_path / "r" / "light" / "record.json"
    rows = [("heavy", (), f"wait {done}"), ("heavy too", (), ""), ("light", (), "")]
    carry(tmp_path / "r", rows, 1, asks=lambda name: (int(name.startswith("heavy")), ""))
    found = records_of(tmp_path / "r", rows)
    assert found["light"]["summary"]["pid"] != found["heavy"]["summary"]["pid"]


def test_a_large_stage_gets_the_slots_of_small_ones(tmp_path: Path) -> None:
    rows = [("s1", (), ""), ("s2", (), ""), ("large", ("s1", "s2"), ""), ("s3", ("large",), "")]
    carry(tmp_path / "r", rows, 2, asks=lambda name: (2 if name == "large" else 1, ""))
    pids = {name: one["summary"]["pid"] for name, one in records_of(tmp_path / "r", rows).items()}
    assert pids["large"] not in (pids["s1"], pids["s2"])


def test_what_takes_nothing_and_waits_keeps_no_slot_from_others(tmp_path: Path) -> None:
    run = tmp_path / "r"
    rows = [
        ("light", (), f"wait {begun(run, 'heavy')}"),
        ("light too", (), ""),
        ("heavy", (), f"wait {run / 'light' / 'record.json'}"),
    ]
    carry(run, rows, 1, asks=lambda name: (int(name == "heavy"), ""))
    records_of(run, rows)


def test_slots_that_a_large_stage_leaves_over_are_lent(tmp_path: Path) -> None:
    """Of three slots two are taken; what waits for two others cannot have the third."""
    run = tmp_path / "r"
    rows = [
        ("large", (), f"wait {begun(run, 'small')}"),
        ("large too", (), ""),
        ("small", (), f"wait {run / 'large' / 'record.json'}"),
    ]
    carry(run, rows, 3, asks=lambda name: (1 if name == "small" else 2, ""))
    records_of(run, rows)


def test_a_dead_worker_costs_its_stage_alone(tmp_path: Path) -> None:
    rows = [
        ("a", (), ""),
        ("b", ("a",), "die 1"),
        ("c", ("a",), "sleep 0.2"),
        ("d", ("b", "c"), ""),
    ]
    told = Told()
    carry(tmp_path / "r", rows, progress=told)
    assert records_of(tmp_path / "r", rows)["b"]["sittings"] == 2
    assert any(line.startswith("b: it was ended by SIGKILL") for line in told.lines), told.lines


def test_what_dies_always_ends_the_run(tmp_path: Path) -> None:
    rows = [("a", (), ""), ("b", ("a",), "die"), ("never", ("b",), "")]
    with pytest.raises(WorkerLost, match=r"died 3 times.*SIGKILL") as caught:
        carry(tmp_path / "r", rows)
    assert caught.value.where == "b" and "worker-" in caught.value.remedy
    assert stages.read_record(tmp_path / "r" / "a") is not None
    mended = [("a", (), ""), ("b", ("a",), "sleep 0"), ("never", ("b",), "")]
    carry(tmp_path / "r", mended)
    records_of(tmp_path / "r", mended)


def test_the_first_failure_ends_the_run_as_it_was_raised(tmp_path: Path) -> None:
    rows = [("a", (), ""), ("bad", ("a",), "fail"), ("steps", ("a",), "steps")]
    with pytest.raises(TrainingError, match="never learns") as caught:
        carry(tmp_path / "r", rows)
    assert (caught.value.where, caught.value.remedy) == ("bad.tmp", "give it an end")
    left = tmp_path / "r" / "steps.tmp"
    if left.is_dir():  # it had begun: it ended at the end of a step
        assert (left / "whole").read_text() == (left / "steps").read_text()


def test_a_mistake_in_a_stage_is_told_with_the_way_to_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(HoldfastError, match="ZeroDivisionError: a mistake") as caught:
        carry(tmp_path / "r", [("a", (), "break")], 1)
    assert links.FOLDER in caught.value.remedy
    log = (tmp_path / "r" / links.FOLDER / "worker-1.log").read_text()
    assert "Traceback" in log and "ZeroDivisionError" in log


def test_what_cannot_be_prepared_is_told_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be prepared"):
        carry(tmp_path / "r", CHAIN, broken=True)


def test_another_stage_on_the_workers_side_is_refused(tmp_path: Path) -> None:
    other = [("a", (), "sleep 0.01")]
    with pytest.raises(HoldfastError, match="is another stage here"):
        carry(tmp_path / "r", [("a", (), "")], 1, theirs=other)


def _later(work: threading.Thread) -> threading.Thread:
    work.start()
    return work


def test_a_stop_waits_for_what_is_worth_finishing(tmp_path: Path) -> None:
    told, rows = Told(), [("one", (), "steps"), ("two", (), "steps"), ("after", ("one",), "")]
    run = tmp_path / "r"

    def ask() -> None:
        while told.steps < 4 or not told.stop.doing:
            time.sleep(0.01)
        told.stop.signals.append(signal.SIGINT)

    watch = _later(threading.Thread(target=ask))
    with pytest.raises(KeyboardInterrupt):
        carry(run, rows, progress=told)
    watch.join()
    for name in ("one", "two"):
        left = run / f"{name}.tmp"
        if left.is_dir():
            assert (left / "whole").read_text() == (left / "steps").read_text(), "a whole step"
    assert not (run / "after").exists()
    with run_folder.lock(run):
        pass


def test_a_killed_coordinator_leaves_nobody_and_nothing_lost(tmp_path: Path) -> None:
    run = tmp_path / "r"
    rows = [("a", (), ""), ("b", ("a",), "wait"), ("c", ("a",), "wait"), ("d", ("b", "c"), "")]
    command = [sys.executable, side_by_side.__file__, str(run), json.dumps(rows), "2"]
    process = subprocess.Popen(command, env=variables(()))
    try:
        until = time.monotonic() + 60
        while not all(begun(run, name).exists() for name in "bc"):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        workers = alive(run)
        assert len(workers) == 2
        with pytest.raises(FolderError, match="another run is using this folder"):
            carry(run, rows)
    finally:
        process.kill()
        process.wait()
    assert none_left(run)
    quick = [(name, needs, "sleep 0" if does else "") for name, needs, does in rows]
    carry(run, quick)
    found = records_of(run, quick)
    assert found["a"]["summary"]["pid"] in workers, "what was finished is kept"


def test_a_worker_that_outlives_its_run_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    run_folder.open_run(tmp_path / "r")
    (tmp_path / "r" / links.FOLDER).mkdir()
    monkeypatch.setattr(run_folder, "WORKER_ENDS_S", 0.1)
    with (
        FileLock(tmp_path / "r" / links.FOLDER / "node7-4711.lock"),
        pytest.raises(FolderError, match="node7-4711"),
        run_folder.lock(tmp_path / "r"),
    ):
        pass
    with run_folder.lock(tmp_path / "r"):
        pass


def test_a_worker_of_another_folder_is_not_let_in(tmp_path: Path) -> None:
    """Each machine has a folder of that name: the worker says so with its exit code."""
    elsewhere = tmp_path / "r"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "holdfast.runs.executors.worker", "--knock", "127.0.0.1:1"]
    for secret, code in (("", links.NOT_SHARED), ("x", links.NOBODY_THERE)):
        if secret:
            links.write_secret(elsewhere)
        done = subprocess.run(
            [*command, "--folder", str(elsewhere)],
            env=variables(()),
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
    door = links.Door("of another run", "127.0.0.1")
    done = subprocess.run(
        [*command[:-1], door.address, "--folder", str(elsewhere)], env=variables(()),
        capture_output=True, text=True,
    )  # fmt: skip
    door.close()
    assert done.returncode == links.NOT_SHARED and "is it shared?" in done.stdout
