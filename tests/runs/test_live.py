"""A run can be looked at under way, finished or broken off, whatever is half written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.errors import FolderError
from holdfast.progress import Silent
from holdfast.runs import live, noted, run_folder, sealed, store
from holdfast.runs.live import Watched
from holdfast.runs.plan import Plan

TRAIN = "train/sft/seed2"


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def begin_again(run: Path) -> None:
    """Leave the folder as if a training were at work."""
    for name in ("stats", "report"):
        shutil.rmtree(run / name)
    (run / TRAIN).rename(run / f"{TRAIN}.tmp")
    (run / f"{TRAIN}.tmp" / "record.json").unlink()
    (run / f"{TRAIN}.tmp" / "claim.json").write_text("{}")


def readers(plan: Plan, name: str) -> set[str]:
    """The stages that read what a stage made, or what came of it."""
    found = {name}
    for stage in plan.stages:
        if found.intersection(stage.needs):
            found.add(stage.name)
    return found - {name}


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_finished_run(run: Path) -> None:
    look = Watched(run).look()
    assert look.state == "finished" and not look.working and not look.left
    assert look.total == len(look.done) == len(Watched(run).plan.stages) > 20
    record = json.loads((run / TRAIN / "record.json").read_text())
    assert look.done[TRAIN] == record["made"]


def test_a_run_under_way_broken_off_and_stopped(run: Path) -> None:
    begin_again(run)
    watched = Watched(run)
    (run / "lock.json").write_text(json.dumps({"pid": os.getpid()}))
    look = watched.look()
    assert (look.state, look.working) == ("under way", (TRAIN,))
    assert set(look.left) == readers(watched.plan, TRAIN) and TRAIN not in look.done
    assert {"stats", "report"} < set(look.left)
    (run / "lock.json").write_text(json.dumps({"pid": gone()}))
    assert watched.look().state == "broken off"
    (run / "lock.json").unlink()
    assert watched.look().state == "stopped"


def test_what_read_an_older_making_does_not_count(run: Path) -> None:
    """It will be made again, and until then its figures are those of another model."""
    record = run / TRAIN / "record.json"
    store.write_sealed(record, {**sealed.read(record, ""), "made": "another"})
    watched = Watched(run)
    look = watched.look()
    assert look.done[TRAIN] == "another" and look.state == "stopped"
    assert set(look.left) == readers(watched.plan, TRAIN)


def test_what_is_made_again_is_read_where_it_is_made(run: Path) -> None:
    work = run / f"{TRAIN}.tmp"
    assert live.training_folder(run, TRAIN, Watched(run).look()) == run / TRAIN
    (run / TRAIN / "record.json").rename(run / TRAIN / "record.forgotten.json")
    assert live.training_folder(run, TRAIN, Watched(run).look()) == work, "it waits for its turn"
    work.mkdir()
    (work / "claim.json").write_text("{}")
    look = Watched(run).look()
    assert look.working == (TRAIN,) and live.training_folder(run, TRAIN, look) == work


def test_of_another_machine_what_it_says_counts(run: Path) -> None:
    begin_again(run)
    (run / "lock.json").write_text(json.dumps({"pid": gone()}))
    told = {"host": "elsewhere", "at": time.time()}
    (run / noted.FILE).write_text(json.dumps(told))
    assert Watched(run).look().state == "under way"
    (run / noted.FILE).write_text(json.dumps(told | {"at": time.time() - 2 * live.FRESH_S}))
    assert Watched(run).look().state == "broken off"


def test_what_is_half_written_is_passed_over(run: Path, tmp_path: Path) -> None:
    record = run / TRAIN / "record.json"
    whole = record.read_bytes()
    watched = Watched(run)
    record.write_bytes(whole[: len(whole) // 2])
    assert TRAIN not in watched.look().done
    record.write_bytes(whole)
    assert TRAIN in watched.look().done
    for text in ("{", '{"pid": "no number"}', "[1]", ""):
        (run / "lock.json").write_text(text)
        (run / noted.FILE).write_text(text)
        assert watched.look().state in ("finished", "broken off")
    torn = tmp_path / "log.jsonl"
    torn.write_text('{"step": 1}\nnonsense\n[2]\n{"step": 2}\n{"step": 3')
    assert live.rows(torn) == [{"step": 1}, {"step": 2}]
    assert live.rows(tmp_path / "missing") == []


def test_the_lock_is_neither_taken_nor_waited_for(run: Path) -> None:
    with run_folder.lock(run):
        assert Watched(run).look().state == "under way"
    with run_folder.lock(run):  # and nobody else holds it
        pass


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"run\.json"):
        Watched(tmp_path).look()


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def enter(self, stage: str) -> None:
        self.calls.append(f"enter {stage}")

    def kept(self, amount: int) -> None:
        self.calls.append(f"kept {amount}")

    def advance(self, amount: int = 1) -> None:
        self.calls.append(f"advance {amount}")

    def say(self, line: str) -> None:
        self.calls.append(f"say {line}")


def test_how_far_a_run_is_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "EVERY_S", 0.0)
    heard = Heard()
    with noted.noted(heard, tmp_path) as told:
        told.begin(4, 1)
        told.expect({"train/a/seed1": 100.0, "stats": 10.0}, {"budget": 1.0})
        told.enter("train/a/seed1")
        told.total(8, "steps")
        told.kept(2)
        told.say("a line")
        told.worked(40, 1.5)
        told.advance(2)
        found = live.parsed(tmp_path / noted.FILE)
    assert heard.calls == ["enter train/a/seed1", "kept 2", "say a line", "advance 2"]
    assert (found["stages"], found["done"], found["stage"]) == (4, 1, "train/a/seed1")
    assert found["words"].startswith("4 of 8 steps, loss 1.5")
    assert 0 < found["left_s"] <= 110 and found["said"] == ["a line"]
    assert found["pid"] == os.getpid() and os.uname().nodename not in json.dumps(found)
    assert not (tmp_path / noted.FILE).exists() and not list(tmp_path.iterdir())
