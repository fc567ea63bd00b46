"""Is what is written whole, and is what is broken named?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.errors import DataError, FolderError
from holdfast.runs import run_folder, store
from holdfast.types import Example, Message, Reading


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [Example("a", (Message("user", "1 + 1?\u2028你好"),), "2", "me", {"group": "g"})]
    store.write_jsonl(tmp_path / "x.jsonl", rows)
    assert store.read_jsonl(tmp_path / "x.jsonl", Example) == rows
    readings = [Reading("a", 0, None, "unsure"), Reading("b", 1, 1.0, "correct", "2", "g")]
    store.write_jsonl(tmp_path / "y.jsonl", readings)
    assert store.read_jsonl(tmp_path / "y.jsonl", Reading) == readings


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    store.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        store.write_json(path, {"new": object()})
    assert store.read_json(path) == {"old": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n', encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl:3: not valid JSON"):
        list(store.read_objects(path))
    with pytest.raises(DataError, match="No such file"):
        list(store.read_objects(tmp_path / "missing.jsonl"))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        list(store.read_objects(path))


def test_fingerprints_see_values_not_order() -> None:
    assert store.fingerprint({"a": 1, "b": (2,)}) == store.fingerprint({"b": [2], "a": 1})
    assert store.fingerprint({"a": 1}) != store.fingerprint({"a": 1.5})


def test_field_diff_names_the_leaves() -> None:
    old, new = {"t": {"lr": 1, "r": 16}, "x": 1}, {"t": {"lr": 2, "r": 16}, "y": 3}
    assert store.field_diff(old, new) == ["t.lr: 1 → 2", "x: 1 → null", "y: null → 3"]
    steps = [{"methods": [["grpo", {"beta": 0, "group": group}]]} for group in (8, 4)]
    assert store.field_diff(*steps) == ["methods[0][1].group: 8 → 4"]
    assert store.field_diff([1], [1, 2], "steps") == ["steps: [1] → [1, 2]"]


@pytest.mark.parametrize("length", [0, 40, 75, 100, 5000])
def test_what_differs_of_a_long_text_is_shown(length: int) -> None:
    """Two beginnings that are alike say nothing."""
    (line,) = store.field_diff(*("a" * length + end + "z" * 200 for end in ("one", "two")), "text")
    assert "one" in line and "two" in line and len(line) < 180


def test_run_folders_are_recognised(tmp_path: Path) -> None:
    run_folder.check_run(tmp_path / "new")
    with pytest.raises(FolderError, match="not a run folder"):
        run_folder.check_run(tmp_path / "new", must_exist=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FolderError, match="not a run folder"):
        run_folder.check_run(tmp_path / "mine")
    run_folder.open_run(tmp_path / "run")
    run_folder.check_run(tmp_path / "run")
    store.write_json(tmp_path / "run" / "run.json", {"format": 99})
    with pytest.raises(FolderError, match=r"format 99, which this version .* does not know"):
        run_folder.check_run(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="cannot be written"):
        run_folder.open_run(tmp_path / "file" / "run")


HOLD = """
import sys, time
from pathlib import Path
from holdfast.runs import run_folder
with run_folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_locked_folder_is_refused_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderError, match=f"process {holder.pid}"), run_folder.lock(tmp_path):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    for _ in range(50):
        try:
            with run_folder.lock(tmp_path):
                return
        except FolderError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its holder")
