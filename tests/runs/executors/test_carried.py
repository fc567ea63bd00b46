"""Runs on machines that do not see the run folder: the same stages, brought once, fetched back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.side_by_side import Lines, carry, made, none_left, records_of, variables
from fixtures.unseen import Unseen

from holdfast.config.hardware import RaySpec
from holdfast.errors import Damaged, FolderError, HoldfastError, TrainingError, WorkerLost
from holdfast.progress import Silent
from holdfast.runs import run_folder, stages, temporary
from holdfast.runs.executors import carried, links
from holdfast.runs.executors.carried import Copy, Depot
from holdfast.runs.executors.machine import Machine

ROWS = [("a", (), ""), ("b/1", ("a",), "sleep 0.1"), ("b/2", ("a",), "sleep 0.1"),
        ("c", ("b/1", "b/2"), ""), ("light", ("c",), "")]  # fmt: skip


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers keep their own folders; nothing is left there."""
    monkeypatch.setenv("PYTHONPATH", variables(())["PYTHONPATH"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "places"))
    (tmp_path / "places").mkdir()
    return tmp_path / "places"


def _unseen(told: Lines, starters: list[Unseen]) -> Callable[[Path], Unseen]:
    def start(folder: Path) -> Unseen:
        starters.append(Unseen(folder, RaySpec(), Machine(folder, variables), told.say))
        return starters[-1]

    return start


def _asks(name: str) -> tuple[int, str]:
    return int(name != "light"), ""


def _alone(folder: Path) -> None:
    run_folder.open_run(folder)
    plan = made(ROWS)
    stages.execute(stages.schedule(plan, folder), plan, folder, Silent())


def test_what_is_made_there_is_what_is_made_here(tmp_path: Path, places: Path) -> None:
    run, told, starters = tmp_path / "r", Lines(), list[Unseen]()
    carry(run, ROWS, 2, told, _asks, _unseen(told, starters))
    found = records_of(run, ROWS)
    _alone(tmp_path / "alone")
    for name, _, _ in ROWS:
        for file in (tmp_path / "alone" / name).iterdir():
            assert file.name == "record.json" or (
                (run / name / file.name).read_bytes() == file.read_bytes()
            )
        assert found[name]["files"] == records_of(tmp_path / "alone", ROWS)[name]["files"]
    assert all(step.done for step in stages.schedule(made(ROWS), run)), "whole, and in order"
    assert sum("does not see the run folder" in line for line in told.lines) == 1
    assert not list(places.iterdir()) and none_left(tmp_path)
    assert not list(run.rglob("*.part")) and not list(run.rglob("*.tmp"))
    read = starters[0].nodes.depot.read_names
    assert read.count("a/out.txt") <= len(starters[0].nodes.codes), "once for each worker at most"


def test_a_worker_that_dies_costs_its_stage(tmp_path: Path, places: Path) -> None:
    run, told = tmp_path / "r", Lines()
    rows = [("a", (), ""), ("b", ("a",), "die 1"), ("c", ("b",), "")]
    with pytest.raises(WorkerLost, match="died 3 times"):  # its count of deaths dies with it
        carry(run, rows, 1, told, starter=_unseen(told, []))
    assert stages.read_record(run / "a") and not (run / "b").exists()
    assert not list(places.iterdir()) and none_left(tmp_path)
    carry(run, rows, 1, told)
    records_of(run, rows)


def test_what_a_stage_raises_is_raised(tmp_path: Path, places: Path) -> None:
    told = Lines()
    with pytest.raises(TrainingError, match="never learns to stop"):
        carry(tmp_path / "r", [("a", (), "fail")], 1, told, starter=_unseen(told, []))
    assert not list(places.iterdir())


def test_the_output_of_a_worker_comes_as_well(tmp_path: Path, places: Path) -> None:
    told = Lines()
    with pytest.raises(HoldfastError, match="ZeroDivisionError: a mistake") as caught:
        carry(tmp_path / "r", [("a", (), "break")], 1, told, starter=_unseen(told, []))
    assert f"{links.FOLDER}/ of the run folder" in caught.value.remedy
    log = tmp_path / "r" / links.FOLDER / "node-1.log"
    assert "ZeroDivisionError: a mistake" in log.read_text()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    _alone(tmp_path / "r")
    (tmp_path / "r" / "study.yaml").write_text("name: s\n")
    return tmp_path / "r"


def _copy(run: Path, place: Path) -> Copy:
    place.mkdir()
    return Copy(place, Depot(str(run)), "secret")


def test_large_files_go_in_pieces(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "CHUNK_BYTES", 3)
    copy = _copy(run, tmp_path / "copy")
    assert (tmp_path / "copy" / "study.yaml").read_text() == "name: s\n"
    assert links.read_secret(tmp_path / "copy") == "secret"
    copy.fetch("b/1")
    kept = stages.read_record(tmp_path / "copy" / "b/1")
    assert kept == stages.read_record(run / "b/1")
    temporary.remove_tree(run / "b/1")
    copy.deliver("b/1")
    assert stages.read_record(run / "b/1") == kept
    assert all(step.done for step in stages.schedule(made(ROWS), run))


def test_a_stage_that_another_worker_made_first_stays(run: Path, tmp_path: Path) -> None:
    """Others may have read it; what came second is given up, here and there."""
    copy = _copy(run, tmp_path / "copy")
    copy.fetch("a")
    before = (run / "a" / "record.json").read_bytes()
    copy.deliver("a")
    assert (run / "a" / "record.json").read_bytes() == before
    assert not (tmp_path / "copy" / "a").exists(), "it is brought again where it is read"
    copy.fetch("a")
    assert not list(run.rglob("*.part"))


def test_what_did_not_come_whole_is_refused(run: Path, tmp_path: Path) -> None:
    copy, depot = _copy(run, tmp_path / "copy"), Depot(str(run))
    copy.fetch("c")
    temporary.remove_tree(run / "c")
    part = depot.begin("c")
    depot.write(f"{part}/out.txt", b"something else")
    with pytest.raises(Damaged, match="not finished"):
        depot.finish(part, "c")
    depot.write(f"{part}/record.json", (tmp_path / "copy" / "c" / "record.json").read_bytes())
    with pytest.raises(FolderError, match="not what the worker has sent"):
        depot.finish(part, "c")
    assert not (run / "c").exists()


@pytest.mark.parametrize("name", ["", "../secret", "/etc/passwd", "a/../../secret"])
def test_nothing_outside_of_the_run_folder_is_read_or_written(run: Path, name: str) -> None:
    (run.parent / "secret").write_text("s")
    depot = Depot(str(run))
    with pytest.raises(ValueError, match="not in the run folder"):
        depot.read(name, 0)
    with pytest.raises(ValueError, match="not in the run folder"):
        depot.write(name, b"x")
