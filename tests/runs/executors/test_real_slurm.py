"""Runs in a real Slurm of this machine, where its programs are; see `fixtures.real_slurm`."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fixtures import real_slurm
from fixtures.side_by_side import Lines, begun, carry, none_left, records_of, variables
from fixtures.study import readings_of, write_study

from holdfast import study
from holdfast.config import load
from holdfast.config.hardware import SlurmSpec
from holdfast.errors import UsageError
from holdfast.progress import Silent
from holdfast.runs.executors import links, slurm
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.slurm import Slurm

ABSENT = real_slurm.missing()
pytestmark = pytest.mark.skipif(
    bool(ABSENT), reason=f"a real Slurm needs {', '.join(ABSENT)} (apt install slurm-wlm munge)"
)


@pytest.fixture(scope="module")
def programs() -> Iterator[Mapping[str, str]]:
    short = tempfile.TemporaryDirectory(prefix="slurm-")  # as a socket's path has to be
    with short as folder, real_slurm.started(Path(folder)) as settings:
        yield settings


@pytest.fixture
def cluster(
    programs: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What every process of the test has; nothing of the run is left in the queue or at work."""
    for name, value in programs.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", variables(())["PYTHONPATH"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.5)
    monkeypatch.setattr(slurm, "AGAIN_S", 0.2)
    yield
    assert none_left(tmp_path)
    until = time.monotonic() + 20
    while (left := _slurm("squeue", "-h")) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left


def _slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _on_slurm(told: Lines, **options: object) -> Callable[[Path], Slurm]:
    spec = SlurmSpec.model_validate({"gpus": 0, "host": "127.0.0.1", **options})
    return lambda folder: Slurm(folder, spec, Machine(folder, variables), told.say)


def _beside(what: Callable[[], None], go: Path) -> threading.Thread:
    """Do something while a run is under way; whatever happens its stages end."""

    def done() -> None:
        try:
            what()
        finally:
            go.touch()

    thread = threading.Thread(target=done, daemon=True)
    thread.start()
    return thread


def _seen(*files: Path, within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not all(file.exists() for file in files):
        assert time.monotonic() < until, files
        time.sleep(0.05)


def test_a_study_reads_what_one_process_reads(
    cluster: None, tiny_model: Path, tmp_path: Path
) -> None:
    hardware = {"workers": 2, "slurm": {"gpus": 0, "host": "127.0.0.1"}}
    short = {"optim": "adamw_torch", "max_steps": 2, "checkpoints": 1}
    file = write_study(
        tmp_path, tiny_model, seeds=[1], hardware=hardware, train=short, arms={"sft": {}}
    )
    loaded, told = load.load(file), Lines()
    alone, two = tmp_path / "alone", tmp_path / "two"
    study.run(loaded, alone, Silent(), str(file), on="local")
    study.run(loaded, two, told, str(file), on="slurm")
    assert readings_of(two) == readings_of(alone) and len(readings_of(two)) == 6
    assert any("2 stages at a time on Slurm" in line for line in told.lines), told.lines
    assert any(line.startswith("Slurm: job ") for line in told.lines), told.lines
    assert any("1 running" in line or "2 running" in line for line in told.lines), told.lines


def test_a_preempted_job_is_queued_again_and_costs_one_stage(cluster: None, tmp_path: Path) -> None:
    """A job of a partition of more weight takes the cores of one of two workers."""
    run, told, go = tmp_path / "r", Lines(), tmp_path / "go"
    rows = [("a", (), f"wait {go}"), ("b", (), f"wait {go}"), ("c", ("a", "b"), "")]

    def take_back() -> None:
        _seen(begun(run, "a"), begun(run, "b"))
        for name in "ab":
            begun(run, name).unlink()
        cores = real_slurm.CPUS - 1
        _slurm("sbatch", "--partition=urgent", f"--cpus-per-task={cores}", "--output=/dev/null",
               "--wrap=sleep 1")  # fmt: skip
        until = time.monotonic() + 60
        while not any(begun(run, name).exists() for name in "ab"):
            assert time.monotonic() < until
            time.sleep(0.05)

    watch = _beside(take_back, go)
    carry(run, rows, 2, told, starter=_on_slurm(told))
    watch.join(10)
    found = records_of(run, rows)
    assert sorted(found[name]["sittings"] for name in "ab") == [1, 2], told.lines
    assert any("pending (BeginTime)" in line for line in told.lines), told.lines
    [line] = [line for line in told.lines if "begun again" in line]
    assert "Slurm has queued job" in line, told.lines
    assert sum("workers" in line for line in told.lines) == 1, "the same jobs, queued again"


def test_a_cancelled_job_costs_one_stage(cluster: None, tmp_path: Path) -> None:
    run, told, go = tmp_path / "r", Lines(), tmp_path / "go"
    rows = [("a", (), f"wait {go}"), ("b", (), f"wait {go}"), ("c", ("a", "b"), "")]

    def cancel() -> None:
        _seen(begun(run, "a"), begun(run, "b"))
        for name in "ab":
            begun(run, name).unlink()
        job = (run / links.FOLDER / slurm.JOBS).read_text().split()[0]
        _slurm("scancel", f"{job}_0")
        until = time.monotonic() + 60
        while not any(begun(run, name).exists() for name in "ab"):
            assert time.monotonic() < until
            time.sleep(0.05)

    watch = _beside(cancel, go)
    carry(run, rows, 2, told, starter=_on_slurm(told))
    watch.join(10)
    found = records_of(run, rows)
    assert sorted(found[name]["sittings"] for name in "ab") == [1, 2], told.lines
    [line] = [line for line in told.lines if "begun again" in line]
    assert "CANCELLED of job" in line, told.lines


@pytest.mark.parametrize(
    ("options", "words", "remedy"),
    [
        ({"partition": "nope"}, "invalid partition specified: nope", "one of: main, urgent"),
        ({"memory": "900T"}, "Memory specification can not be satisfied", "hardware.slurm"),
        ({"gpus": 1}, "Invalid generic resource", "hardware.slurm"),
        ({"time": "soon"}, "Invalid --time specification", "hardware.slurm"),
        ({"cpus": 64}, "will not come: PartitionConfig", "scontrol show partition"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(
    cluster: None, tmp_path: Path, options: dict[str, object], words: str, remedy: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        carry(tmp_path / "r", [("a", (), "")], 1, starter=_on_slurm(Lines(), **options))
    assert remedy in caught.value.remedy
