"""While a study runs its trackers follow it; what becomes of them changes nothing of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import SMALL, readings_of, run_study, write_study

from holdfast import study
from holdfast.config import load
from holdfast.errors import MissingDependency, StudyError
from holdfast.progress import Silent
from holdfast.report.trackers import build, follower, process
from holdfast.report.trackers.follower import follow
from holdfast.report.trackers.process import following
from holdfast.report.trackers.sending import alone
from holdfast.runs.plan import read_plan


class Heard(Silent):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def gone(pid: int, within_s: float = 30.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_study_with_trackers_is_the_same_study(
    tiny_model: Path, tmp_path: Path, file: Path, told: Any, small_run: Path
) -> None:
    """One that works, one that fails, one that dies: all is sent, and the readings are equal."""
    out = tmp_path / "out.jsonl"
    names = ("Kept", "Broken", "Dies")
    track = [{f"{file}:{name}": {"path": str(out.with_suffix(f".{name}"))}} for name in names]
    path = write_study(tmp_path, tiny_model, **SMALL, track=track)
    heard = Heard()
    loaded = load.load(path)
    study.run(loaded, tmp_path / "runs" / "s", heard, str(path))
    run = tmp_path / "runs" / "s"
    assert readings_of(run) == readings_of(small_run)
    marks = [{one.name: one.identity for one in read_plan(at).stages} for at in (run, small_run)]
    assert marks[0] == marks[1], "where tracking runs is no part of what is measured"
    rows = told(out.with_suffix(".Kept"))
    sent = [row for row in rows if row["what"] == "send"]
    losses = [step for row in sent if row["run"] == "sft/seed1"
              for step, _, values in row["figures"] if "train/loss" in values]  # fmt: skip
    assert losses == list(dict.fromkeys(losses)) and losses[-1] == 6
    assert sent[-1]["files"] == ["index.html", "report.md", "results.json"]
    assert [row for row in rows if row["what"] == "finish"][-1]["done"] is True
    fails = [line for line in heard.lines if "mine.py:Broken" in line]
    assert "RuntimeError: the server is on fire; the study goes on" in fails[0]
    assert len(fails) == 2 and "is not complete: `holdfast track` sends the rest" in fails[1]
    assert any("mine.py:Dies is not complete" in line for line in heard.lines)
    assert not any("noise of a library" in line for line in heard.lines)
    assert not (run / "progress.json").exists()
    before = len(rows)
    study.run(loaded, run, heard, str(path))  # finished: nothing is sent twice
    assert [row["what"] for row in told(out.with_suffix(".Kept"))[before:]] == ["start", "finish"]


def test_one_that_hangs_is_ended(
    run: Path, file: Path, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "END_S", 3.0)
    heard, out = Heard(), tmp_path / "out.jsonl"
    with following(({f"{file}:Hangs": {"path": str(out)}},), run, heard):
        end = time.monotonic() + 60
        while not any(row["what"] == "hangs" for row in told(out)):
            assert time.monotonic() < end
            time.sleep(0.05)
    assert len(heard.lines) == 1 and "Hangs is not complete" in heard.lines[0]
    pid = next(row["pid"] for row in told(out) if row["what"] == "hangs")
    assert gone(pid)


def test_when_the_study_fails_trackers_are_not_waited_for_long(
    run: Path, file: Path, tmp_path: Path, told: Any
) -> None:
    out = tmp_path / "out.jsonl"
    with (
        pytest.raises(ZeroDivisionError),
        following(({f"{file}:Kept": {"path": str(out)}},), run, Silent()),
    ):
        end = time.monotonic() + 60
        while not told(out):  # a busy machine takes long to begin a process
            assert time.monotonic() < end
            time.sleep(0.05)
        raise ZeroDivisionError
    assert [row for row in told(out) if row["what"] == "finish"], "what there was is sent"


BEGUN = """
import sys, time
from pathlib import Path
from holdfast.progress import Silent
from holdfast.report.trackers import process
run, name, out = sys.argv[1:]
with process.following(({name: {"path": out}},), Path(run), Silent()):
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["Kept", pytest.param("Hangs", marks=pytest.mark.slow)])
def test_a_study_that_is_killed_leaves_no_process(
    run: Path, file: Path, tmp_path: Path, told: Any, kind: str
) -> None:
    out = tmp_path / "out.jsonl"
    parent = subprocess.Popen(
        [sys.executable, "-c", BEGUN, str(run), f"{file}:{kind}", str(out)], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"begun\n"
        found = subprocess.run(
            ["ps", "--ppid", str(parent.pid), "-o", "pid="], capture_output=True, text=True
        )
        (child,) = map(int, found.stdout.split())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert gone(child, 90)
    ends = [row for row in told(out) if row["what"] == "finish"]
    assert bool(ends) == (kind == "Kept"), "it sent what there was"


def test_one_that_begins_while_a_former_one_ends_waits_for_it(
    run: Path, file: Path, tmp_path: Path, told: Any
) -> None:
    """After kill -9 a study is begun again at once: it is tracked all the same."""
    out, heard, name = tmp_path / "out.jsonl", Heard(), f"{file}:Kept"
    former = ExitStack()
    former.enter_context(alone(build(name, {"path": str(out)}, run, "track"), run))
    with former, following(({name: {"path": str(out)}},), run, heard):
        time.sleep(3.0)
        assert not told(out) and not heard.lines
        former.close()
    assert [row for row in told(out) if row["what"] == "finish"] and not heard.lines


def test_one_that_cannot_begin_stops_nothing(run: Path, file: Path, tmp_path: Path) -> None:
    (run / "tracking").write_text("in the way")
    heard = Heard()
    with following(({f"{file}:Kept": {"path": str(tmp_path / "out.jsonl")}},), run, heard):
        pass
    assert len(heard.lines) == 1 and "cannot begin: File exists" in heard.lines[0]


def test_runs_are_closed_though_the_last_sending_fails(
    run: Path, file: Path, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.01)
    out, said, ended = tmp_path / "out.jsonl", [], threading.Event()
    ended.set()
    tracker = build(f"{file}:Broken", {"path": str(out)}, run, "track")
    assert not follow(tracker, run, ended, said.append)
    assert said == ["RuntimeError: the server is on fire; the study goes on without it"]
    assert [row["run"] for row in told(out) if row["what"] == "finish"][-1] == "study"


def test_a_server_that_comes_back_gets_what_is_missing(
    run: Path, file: Path, tmp_path: Path, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.01)
    out, said = tmp_path / "out.jsonl", []
    tracker = build(f"{file}:Kept", {"path": str(out)}, run, "track")
    send, ended, calls = tracker.send, threading.Event(), [0]

    def away(*given: Any) -> None:
        calls[0] += 1
        if 3 <= calls[0] <= 6:
            raise ConnectionError("refused")
        if calls[0] == 8:
            ended.set()
        send(*given)

    tracker.send = away  # type: ignore[method-assign]
    assert follow(tracker, run, ended, said.append)
    assert said == [
        "ConnectionError: refused; the study goes on without it",
        "is reached again, and has got what was missing",
    ]
    names = [(row["run"], step, name) for row in told(out) for step, _, values
             in row.get("figures", []) for name in values]  # fmt: skip
    assert len(names) == len(set(names)) > 50
    assert told(out)[-1]["what"] == "finish"


def test_a_study_does_not_begin_with_a_tracker_that_cannot_be(
    tiny_model: Path, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, tiny_model, track=["tensorbord"])
    with pytest.raises(StudyError, match="did you mean 'tensorboard'"):
        run_study(path, tmp_path / "runs")
    path = write_study(tmp_path, tiny_model, track=[{f"{file}:Kept": {}}])
    with pytest.raises(StudyError, match=r"path: is required"):
        study.plan(path)
    needs = tmp_path / "needs.py"
    needs.write_text(
        "from holdfast.report.trackers import Tracker\n"
        "class Needs(Tracker):\n    package = 'no_such_package_anywhere'\n"
        "    def start(self, run): ...\n    def send(self, run, batch): ...\n"
    )
    path = write_study(tmp_path, tiny_model, track=[f"{needs}:Needs"])
    with pytest.raises(MissingDependency, match="no_such_package_anywhere"):
        run_study(path, tmp_path / "runs")
    assert study.plan(path).stages, "a dry run needs no tracker's package"
    assert not (tmp_path / "runs").exists()


def test_the_plan_keeps_where_it_is_sent(run: Path) -> None:
    assert json.loads((run / "plan.json").read_text())["study"].get("track") is None
