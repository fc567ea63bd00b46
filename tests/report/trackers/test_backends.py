"""What the real packages keep, read back by their own readers."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.analysis.so_far import cell_of
from holdfast.runs.live import Watched
from holdfast.types import Point

RUNS = ["base", "low/seed1", "low/seed2", "sft/seed1", "sft/seed2", "study"]


def track(run: Path, to: str, *settings: str, env: Mapping[str, str] | None = None) -> str:
    """Send a run folder by the command, in a process of its own; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "track", str(run), "--to", to, *settings],
        capture_output=True, text=True, timeout=240, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def logged(run: Path, training: str = "sft/seed1") -> dict[int, float]:
    rows = [
        json.loads(line)
        for line in (run / "train" / training / "log.jsonl").read_text().splitlines()
    ]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def figure(run: Path, step: int) -> float:
    cell = cell_of(Watched(run).plan, Point("sft", 1, step), "lab_math")
    assert cell is not None and cell.score.high is not None
    return cell.score.high


@pytest.mark.filterwarnings("ignore")
def test_tensorboard(run: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    assert "batches sent" in track(run, "tensorboard")
    assert "has all of it already" in track(run, "tensorboard")
    root = run / "tracking" / "tensorboard"
    found = {str(one.parent.relative_to(root)) for one in root.rglob("events.out.tfevents.*")}
    assert sorted(found) == RUNS

    def read(name: str) -> Any:
        events = EventAccumulator(str(root / name), size_guidance={"tensors": 0})
        return events.Reload()

    def numbers(events: Any, tag: str) -> dict[int, float]:
        rows = [(one.step, float(make_ndarray(one.tensor_proto))) for one in events.Tensors(tag)]
        assert len(rows) == len(dict(rows)), "nothing twice"
        return dict(rows)

    training, study = read("sft/seed1"), read("study")
    assert numbers(training, "train/loss") == pytest.approx(logged(run), rel=1e-6)
    assert numbers(training, "readings/lab_math/high")[6] == pytest.approx(figure(run, 6))
    assert {"train/tokens_per_s", "train/memory_gib", "meters/kl"} <= {*training.Tags()["tensors"]}
    at = [one.wall_time for one in training.Tensors("train/loss")]
    rows = [
        json.loads(line) for line in (run / "train/sft/seed1/log.jsonl").read_text().splitlines()
    ]
    assert at == pytest.approx([row["time"] for row in rows if "loss" in row])
    assert training.SummaryMetadata("_hparams_/session_start_info").plugin_data.plugin_name
    (table,) = study.Tensors("frontier")
    text = make_ndarray(table.tensor_proto).item().decode()
    assert text.startswith("| arm | step | scale | gain |") and "sft" in text
    assert (
        "report/index.html" in make_ndarray(study.Tensors("report")[0].tensor_proto).item().decode()
    )


def test_tensorboard_elsewhere(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    track(run, "tensorboard", f"path={tmp_path / 'board'}")
    assert {one.name for one in (tmp_path / "board" / "s").iterdir()} == {
        "base", "low", "sft", "study",
    }  # fmt: skip


def test_tensorboard_anew(run: Path) -> None:
    pytest.importorskip("tensorboard")
    for more in ((), ("--again",)):
        track(run, "tensorboard", *more)
    files = (run / "tracking" / "tensorboard").rglob("events.out.tfevents.*")
    folders = [one.parent for one in files]
    assert len(folders) == len(set(folders)) == 2 * len(RUNS), "runs of their own"


def test_trackio(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    env = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    for words in ("batches sent", "has all of it already"):
        assert words in track(run, "trackio", "project=mine", env=env)
    read = (
        "import json, sys\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "names = S.get_runs('mine')\n"
        "json.dump({one: S.get_logs('mine', one) for one in names}, sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", read], capture_output=True, text=True, env={**os.environ, **env}
    )
    found = {name.rsplit("-", 1)[0]: rows for name, rows in json.loads(done.stdout).items()}
    assert sorted(found) == [f"s/{name}" for name in RUNS]
    rows = [(row["step"], row["train/loss"]) for row in found["s/sft/seed1"] if "train/loss" in row]
    assert dict(rows) == pytest.approx(logged(run)) and len(rows) == len(dict(rows))
    highs = {row["step"]: row["readings/lab_math/high"] for row in found["s/sft/seed1"]
             if "readings/lab_math/high" in row}  # fmt: skip
    assert highs[6] == pytest.approx(figure(run, 6))
    assert any("frontier" in row for row in found["s/study"])
    kept = {one.name for one in (tmp_path / "trackio").rglob("*")}
    assert any("report" in name or "artifact" in name for name in kept)


def records(file: Path) -> Iterator[bytes]:
    """The records of a file in the format of LevelDB's log, which wandb writes after 7 bytes."""
    data, at, part = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(run: Path) -> None:
    """In two sittings; that the second goes on with the runs of the first stands in its records,
    and without it ``wandb sync`` would let it replace them."""
    pytest.importorskip("wandb")
    kept = run.with_name("kept")
    late = [run / "stats", run / "report", run / "readings/sft/seed1/checkpoint-6/lab_math"]
    for number, place in enumerate(late):
        kept.mkdir(exist_ok=True)
        place.rename(kept / str(number))
    assert "batches sent" in track(run, "wandb", "mode=offline", "project=mine")
    for number, place in enumerate(late):
        (kept / str(number)).rename(place)
    for words in ("batches sent", "has all of it already"):
        assert words in track(run, "wandb", "mode=offline", "project=mine")
    read = (
        "import json, sys\nfrom pathlib import Path\n"
        "from wandb.proto.wandb_internal_pb2 import Record\n"
        "for line in sys.stdin:\n"
        "    record = Record.FromString(bytes.fromhex(line))\n"
        "    kind = record.WhichOneof('record_type')\n"
        "    items = getattr(getattr(record, kind), 'item', ()) if kind == 'history' else ()\n"
        "    told = {'.'.join(o.nested_key) or o.key: json.loads(o.value_json) for o in items}\n"
        "    run = record.run if kind == 'run' else None\n"
        "    named = [run.run_id, run.display_name, run.run_group, run.project] if run else []\n"
        "    about = [*named, run.resume] if run else []\n"
        "    print(json.dumps([kind, told, about]))\n"
    )
    found: dict[str, list[Any]] = {}
    ids: dict[str, set[str]] = {}
    for file in (run / "tracking" / "wandb").rglob("*.wandb"):
        lines = "\n".join(record.hex() for record in records(file))
        done = subprocess.run([sys.executable, "-c", read], input=lines, capture_output=True,
                              text=True, check=True)  # fmt: skip
        told = [json.loads(line) for line in done.stdout.splitlines()]
        own, name, group, project, goes_on = next(one for kind, _, one in told if kind == "run")
        assert (group, project, goes_on) == ("s", "mine", True)
        ids.setdefault(name, set()).add(own)
        found.setdefault(name, []).extend(values for kind, values, _ in told if kind == "history")
        found.setdefault("kinds", []).extend(kind for kind, _, _ in told)
    assert not [one for one in (run / "tracking").rglob("*") if one.is_symlink()]
    assert sorted(ids) == RUNS and all(len(some) == 1 for some in ids.values())
    rows = [(row["step"], row["train/loss"]) for row in found["sft/seed1"] if "train/loss" in row]
    assert dict(rows) == pytest.approx(logged(run)) and len(rows) == len(dict(rows))
    highs = {row["step"]: row["readings/lab_math/high"] for row in found["sft/seed1"]
             if "readings/lab_math/high" in row}  # fmt: skip
    assert highs[6] == pytest.approx(figure(run, 6))
    (own,) = ids["sft/seed1"]
    assert len([*(run / "tracking" / "wandb").rglob(f"run-{own}.wandb")]) == 2
    assert any(key.startswith("frontier") for row in found["study"] for key in row)
    assert "artifact" in found["kinds"]


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real tracking server on the loopback; what it keeps outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
         "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
         "--artifacts-destination", str(folder / "artifacts")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
    )  # fmt: skip
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while True:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None and time.monotonic() < end, "it does not start"
                time.sleep(0.25)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def asked(address: str, path: str, **body: object) -> Any:
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{path}", json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def mlflow_runs(address: str, name: str) -> dict[str, Any]:
    with urllib.request.urlopen(
        f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}", timeout=60
    ) as answer:
        number = json.load(answer)["experiment"]["experiment_id"]
    found = asked(address, "runs/search", experiment_ids=[number], max_results=100)["runs"]
    return {one["info"]["run_name"]: one for one in found}


def history(address: str, run: Any, name: str) -> list[tuple[int, float]]:
    where = f"run_id={run['info']['run_id']}&metric_key={name}"
    with urllib.request.urlopen(
        f"{address}/api/2.0/mlflow/metrics/get-history?{where}", timeout=60
    ) as answer:
        return [(int(one["step"]), one["value"]) for one in json.load(answer)["metrics"]]


@pytest.mark.slow
def test_a_real_mlflow_server(run: Path, tmp_path: Path) -> None:
    """With a server that goes away in the middle: the study's trackers get what is missing."""
    pytest.importorskip("flask")
    pytest.importorskip("mlflow")
    port = free_port()
    with mlflow_server(tmp_path, port) as address:
        settings = (f"uri={address}", "experiment=mine")
        kept = run.with_name("kept")
        kept.mkdir()
        for name in ("stats", "report"):
            (run / name).rename(kept / name)
        assert "batches sent" in track(run, "mlflow", *settings)
        first = mlflow_runs(address, "mine")
    for name in ("stats", "report"):
        (kept / name).rename(run / name)
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "track", str(run), "--to", "mlflow", *settings],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1 and "mlflow failed: " in done.stderr
    with mlflow_server(tmp_path, port) as address:
        assert "mlflow: 2 batches sent" in track(run, "mlflow", *settings)
        found = mlflow_runs(address, "mine")
        assert sorted(found) == sorted(["s", *(f"s: {name}" for name in RUNS if name != "study")])
        training, study = found["s: sft/seed1"], found["s"]
        assert training["info"]["run_id"] == first["s: sft/seed1"]["info"]["run_id"]
        rows = history(address, training, "train/loss")
        assert dict(rows) == pytest.approx(logged(run)) and len(rows) == len(dict(rows))
        highs = dict(history(address, training, "readings/lab_math/high"))
        assert highs[6] == pytest.approx(figure(run, 6))
        params = {one["key"]: one["value"] for one in training["data"]["params"]}
        assert params["train.learning_rate"] == "0.01" and params["seed"] == "1"
        tags = {one["key"]: one["value"] for one in training["data"]["tags"]}
        assert tags["mlflow.parentRunId"] == study["info"]["run_id"]
        assert len(tags["holdfast.data"]) == 16 and study["info"]["status"] == "FINISHED"
        files = asked_files(address, study)
        assert {"results.json", "frontier.json", "report"} <= files
        assert "has all of it already" in track(run, "mlflow", *settings)


def asked_files(address: str, run: Any) -> set[str]:
    where = f"run_id={run['info']['run_id']}"
    with urllib.request.urlopen(
        f"{address}/api/2.0/mlflow/artifacts/list?{where}", timeout=60
    ) as answer:
        return {one["path"] for one in json.load(answer)["files"]}


@pytest.mark.slow
def test_mlflow_without_a_server(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "batches sent" in track(run, "mlflow")
    with sqlite3.connect(run / "tracking" / "mlflow" / "mlflow.db") as base:
        rows = base.execute(
            "select m.step, m.value from metrics m join runs r on r.run_uuid = m.run_uuid "
            "where r.name = 's: sft/seed1' and m.key = 'train/loss'"
        ).fetchall()
    assert dict(rows) == pytest.approx(logged(run)) and len(rows) == len(dict(rows))
    assert list((run / "tracking" / "mlflow" / "artifacts").rglob("report/index.html"))
