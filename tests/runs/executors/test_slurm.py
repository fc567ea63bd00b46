"""Slurm: what it is asked for, what its answers mean, and runs in a queue of real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fixtures import fake_slurm, side_by_side
from fixtures.side_by_side import Lines, begun, carry, none_left, records_of, variables
from fixtures.study import write_study

from holdfast import study
from holdfast.config import load
from holdfast.config.hardware import SlurmSpec
from holdfast.errors import FolderError, HoldfastError, UsageError, WorkerLost
from holdfast.progress import Silent
from holdfast.runs.executors import links, slurm
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.seats import Seat
from holdfast.runs.executors.slurm import Queue, Slurm


class Answers:
    """Slurm's programs, as recorded: what is said to each command, by its first word."""

    def __init__(self, **said: Sequence[str] | str) -> None:
        self.said, self.asked = {**said}, list[list[str]]()

    def __call__(self, command: Sequence[str]) -> str:
        self.asked.append(list(command))
        found = self.said.get(command[0], "")
        if not isinstance(found, str):
            answers = list(found)
            self.said[command[0]], found = answers[1:] or answers, answers[0]
        if found.startswith("error: "):
            raise UsageError(found.removeprefix("error: "))
        return found


def _queue(
    folder: Path, answers: Answers, spec: SlurmSpec | None = None
) -> tuple[Queue, list[str]]:
    (folder / links.FOLDER).mkdir(exist_ok=True)
    lines: list[str] = []
    return Queue(folder, spec or SlurmSpec(), lines.append, answers), lines


def _seats(*numbers: int) -> list[Seat]:
    return [Seat(number, (number,)) for number in numbers]


def test_the_script_asks_for_what_the_study_says(tmp_path: Path) -> None:
    spec = SlurmSpec(
        partition="gpu", gpus=2, cpus=8, memory="64G", time="12:00:00", options=("--account=lab",)
    )
    queue, _ = _queue(tmp_path, Answers(sbatch="4711;cluster\n"), spec)
    queue.submit(_seats(3, 4), ["/env/bin/python", "-m", "worker", "--folder", "/a b/r"])
    script = (tmp_path / links.FOLDER / "slurm-3.sh").read_text()
    lines = script.splitlines()
    assert lines[0] == "#!/bin/sh"
    for asked in ("array=0-1", "partition=gpu", "gres=gpu:2", "cpus-per-task=8", "mem=64G",
                  "time=12:00:00", "account=lab", "requeue", "signal=B:TERM@120"):  # fmt: skip
        assert f"#SBATCH --{asked}" in lines, asked
    assert lines[-2:] == [
        slurm.AS_COUNTED,
        "exec /env/bin/python -m worker --folder '/a b/r' --seat \"$((3 + SLURM_ARRAY_TASK_ID))\"",
    ]
    assert (tmp_path / links.FOLDER / slurm.JOBS).read_text() == "4711\n"
    plain, _ = _queue(tmp_path, Answers(sbatch="4712\n"), SlurmSpec(gpus=0))
    script = plain.script(1, 1, ["x"])
    assert "gres" not in script and "partition" not in script
    assert slurm.NO_GPUS in script.splitlines(), "a node may have some, which are not ours"


def test_states_are_told_once_and_ends_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    waits = "17_0|PENDING|Priority|\n17_1|PENDING|Priority|\n17_2|RUNNING|None|node1\n"
    answers = Answers(
        sbatch="17\n",
        squeue=[waits, waits, "17_0|RUNNING|None|node2\n"],
        scontrol="JobId=17 ArrayTaskId=9 JobState=NODE_FAIL Reason=None ExitCode=0:0 NodeList=n9",
    )
    queue, lines = _queue(tmp_path, answers)
    queue.submit(_seats(1, 2, 3), ["x"])
    assert list(queue.ended()) == [] and list(queue.ended()) == []
    assert lines[1:] == ["Slurm: 2 pending (Priority), 1 running"]
    gone = dict(queue.ended())
    assert sorted(gone) == [2, 3] and not any(one.counted for one in gone.values())
    assert "NODE_FAIL of job 17_1 on n9" in gone[2].why
    assert lines[2:] == ["Slurm: 1 running"]
    assert list(queue.ended()) == [], "each is told once"


def test_what_will_never_start_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    waits, never = (f"17_0|PENDING|{why}|\n" for why in ("Resources", "PartitionConfig"))
    queue, _ = _queue(tmp_path, Answers(sbatch="17\n", squeue=[waits, never]))
    queue.submit(_seats(1), ["x"])
    assert list(queue.ended()) == []
    [(number, ending)] = queue.ended()
    assert number == 1 and isinstance(ending.final, UsageError)
    assert "PartitionConfig" in str(ending.final) and "hardware.slurm" in ending.final.remedy


def test_without_the_controllers_memory_the_accounting_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    answers = Answers(
        sbatch="17\n", squeue="error: slurm_load_jobs error: Invalid job id specified",
        scontrol="error: Invalid job id specified", sacct="OUT_OF_MEMORY|0:125|node4\n",
    )  # fmt: skip
    queue, _ = _queue(tmp_path, answers)
    queue.submit(_seats(1), ["x"])
    [(number, ending)] = queue.ended()
    assert number == 1 and ending.counted and "OUT_OF_MEMORY of job 17_0 on node4" in ending.why


def test_a_controller_that_does_not_answer_loses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    down = "error: slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    queue, lines = _queue(tmp_path, Answers(sbatch="17\n", squeue=down))
    queue.submit(_seats(1, 2), ["x"])
    assert list(queue.ended()) == []
    assert list(queue.ended()) == [] and queue.end(1, time.monotonic()) is None
    assert sum("Unable to contact" in line for line in lines) == 1, "said once"


def test_a_folder_that_is_not_shared_is_told_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    shown = f"JobState=FAILED Reason=NonZeroExitCode ExitCode={links.NOT_SHARED}:0 NodeList=node3"
    queue, _ = _queue(tmp_path, Answers(sbatch="17\n", squeue="", scontrol=shown))
    queue.submit(_seats(1), ["x"])
    [(_, ending)] = queue.ended()
    assert isinstance(ending.final, FolderError) and "node3" in str(ending.final)
    assert "--runs-dir" in ending.final.remedy


def test_a_job_is_not_waited_for_while_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "AGAIN_S", 0.0)
    answers = Answers(
        sbatch="17\n", squeue=["17_0|COMPLETING|None|n1\n", ""],
        scontrol="JobState=FAILED Reason=NonZeroExitCode ExitCode=0:9 NodeList=n1",
    )  # fmt: skip
    queue, _ = _queue(tmp_path, answers)
    queue.submit(_seats(5), ["x"])
    assert queue.end(5, time.monotonic()) is None
    ending = queue.end(5, time.monotonic())
    assert ending is not None and ending.counted
    assert ending.why == "Slurm says FAILED of job 17_0 on n1, signal 9"


def test_a_job_that_does_not_end_is_cancelled(tmp_path: Path) -> None:
    answers = Answers(sbatch="17\n", squeue="17_0|RUNNING|None|n1\n")
    queue, _ = _queue(tmp_path, answers)
    queue.submit(_seats(5), ["x"])
    ending = queue.end(5, time.monotonic() - 2 * slurm.ENDS_S)
    assert ending is not None and not ending.counted and "did not end (running)" in ending.why
    assert answers.asked[-1] == ["scancel", "17_0"]


def test_a_job_that_the_queue_leaves_out_for_a_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    answers = Answers(sbatch="17\n", squeue="", scontrol="JobState=PENDING ExitCode=0:0")
    queue, _ = _queue(tmp_path, answers)
    queue.submit(_seats(1), ["x"])
    assert list(queue.ended()) == []
    ending = queue.end(1, time.monotonic())
    assert ending is not None and ending.returns and not ending.counted


def test_a_machine_that_is_not_reached_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.0)
    shown = f"JobState=FAILED ExitCode={links.NOBODY_THERE}:0 NodeList=n1"
    queue, _ = _queue(tmp_path, Answers(sbatch="17\n", squeue="", scontrol=shown))
    queue.submit(_seats(1), ["x"])
    [(_, ending)] = queue.ended()
    assert ending.counted and "hardware.slurm" in ending.why


def test_jobs_that_cannot_be_cancelled_are_left_to_the_next_run(tmp_path: Path) -> None:
    queue, _ = _queue(tmp_path, Answers(sbatch="17\n", scancel="error: no controller"))
    queue.submit(_seats(1), ["x"])
    queue.close()
    assert (tmp_path / links.FOLDER / slurm.JOBS).read_text() == "17\n"


def test_what_a_killed_run_left_in_the_queue_is_cancelled(tmp_path: Path) -> None:
    (tmp_path / links.FOLDER).mkdir()
    (tmp_path / links.FOLDER / slurm.JOBS).write_text("17\n18\n$(rm)\n")
    answers = Answers()
    queue, _ = _queue(tmp_path, answers)
    assert answers.asked == [["scancel", "17", "18"]]
    queue.close()
    assert not (tmp_path / links.FOLDER / slurm.JOBS).exists()


def test_without_slurm_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    queue = Queue(tmp_path, SlurmSpec(), print, slurm._execute)
    with pytest.raises(UsageError, match="there is no sbatch here"):
        queue.submit(_seats(1), ["x"])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a fake Slurm whose programs are on the path, and which is asked often."""
    folder = tmp_path / "slurm"
    settings = fake_slurm.install(folder) | {"PYTHONPATH": variables(())["PYTHONPATH"]}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "LOOK_EVERY_S", 0.3)
    monkeypatch.setattr(slurm, "AGAIN_S", 0.05)
    yield folder
    assert none_left(tmp_path)
    subprocess.run(["scancel", *{task.partition("_")[0] for task in fake_slurm.states(folder)}])


def _on_slurm(told: Lines, **options: object) -> Callable[[Path], Slurm]:
    spec = SlurmSpec.model_validate({"gpus": 0, "host": "127.0.0.1", **options})
    return lambda folder: Slurm(folder, spec, Machine(folder, variables), told.say)


ROWS = [("a", (), ""), ("b", ("a",), "sleep 0.1"), ("c", ("a",), "sleep 0.1"),
        ("light", ("b", "c"), "")]  # fmt: skip


def _asks(name: str) -> tuple[int, str]:
    return int(name != "light"), ""


def test_a_run_in_the_queue(tmp_path: Path, cluster: Path) -> None:
    told = Lines()
    carry(tmp_path / "r", ROWS, 2, told, _asks, _on_slurm(told))
    records_of(tmp_path / "r", ROWS)
    assert told.lines[0] == "Slurm: job 100, 1 workers", told.lines
    assert set(fake_slurm.states(cluster).values()) <= {"COMPLETED", "CANCELLED", "FAILED"}
    assert not (tmp_path / "r" / links.FOLDER / slurm.JOBS).exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_preempted_worker_comes_back(tmp_path: Path, cluster: Path, times: int) -> None:
    run, told = tmp_path / "r", Lines()
    go = tmp_path / "go"
    rows = [("a", (), f"wait {go}"), ("b", ("a",), "")]

    def take_back() -> None:
        for _ in range(times):
            while not begun(run, "a").exists():
                time.sleep(0.02)
            begun(run, "a").unlink()
            fake_slurm.preempt(cluster, "100_0")
        while not begun(run, "a").exists():
            time.sleep(0.02)
        go.touch()

    watch = threading.Thread(target=take_back, daemon=True)
    watch.start()
    carry(run, rows, 1, told, starter=_on_slurm(told))
    watch.join(10)
    assert records_of(run, rows)["a"]["sittings"] == 1 + times
    assert list(fake_slurm.states(cluster)) == ["100_0"], "the same job, queued again"


def _limited(run: Path, cluster: Path) -> None:
    """Let the time of every worker be over as soon as it is at `a`; for ever."""

    def warn() -> None:
        while True:
            if begun(run, "a").exists():
                begun(run, "a").unlink()
                fake_slurm.warn(cluster)
            time.sleep(0.02)

    threading.Thread(target=warn, daemon=True).start()


def test_what_takes_longer_than_a_worker_lives_ends_the_run(tmp_path: Path, cluster: Path) -> None:
    run, told = tmp_path / "r", Lines()
    _limited(run, cluster)
    with pytest.raises(WorkerLost, match="not made in the time that a worker has") as caught:
        carry(run, [("a", (), "wait")], 1, told, starter=_on_slurm(told))
    assert caught.value.where == "a" and "hardware.slurm.time" in caught.value.remedy
    assert len(fake_slurm.states(cluster)) == 3, "the first, and two retries"
    assert sum("a: its time was over" in line for line in told.lines) == 2, told.lines


def test_what_gets_on_in_the_time_that_a_worker_has_is_made(tmp_path: Path, cluster: Path) -> None:
    run, told, rows = tmp_path / "r", Lines(), [("a", (), "pieces 6")]
    _limited(run, cluster)
    carry(run, rows, 1, told, starter=_on_slurm(told))
    assert records_of(run, rows)["a"]["sittings"] == 6 == len(fake_slurm.states(cluster))


def test_workers_whose_time_is_over_before_they_are_ready_end_the_run(
    tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `time: 1`, of which two minutes are left for coming to a safe point."""

    def warn() -> None:
        while True:
            fake_slurm.warn(cluster)
            time.sleep(0.02)

    threading.Thread(target=warn, daemon=True).start()
    told = Lines()
    with pytest.raises(WorkerLost, match="not made in the time that a worker has"):
        carry(tmp_path / "r", [("a", (), "")], 1, told, starter=_on_slurm(told))


def test_a_partition_that_does_not_exist(tmp_path: Path, cluster: Path) -> None:
    told = Lines()
    with pytest.raises(UsageError, match="invalid partition specified: nope") as caught:
        carry(tmp_path / "r", ROWS, 2, told, _asks, _on_slurm(told, partition="nope"))
    assert "one of: cpu, gpu" in caught.value.remedy
    carry(tmp_path / "r", ROWS, 2, told, _asks, _on_slurm(told, partition="cpu"))
    records_of(tmp_path / "r", ROWS)


def test_a_killed_coordinator_leaves_no_job_at_work(tmp_path: Path, cluster: Path) -> None:
    run = tmp_path / "r"
    rows = [("a", (), "wait")]
    process = subprocess.Popen(
        [sys.executable, side_by_side.__file__, str(run), json.dumps(rows), "1", "slurm"],
        env={**os.environ, **variables(())},
    )
    try:
        until = time.monotonic() + 60
        while not begun(run, "a").exists():
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert none_left(run)
    told, quick = Lines(), [("a", (), "sleep 0")]
    carry(run, quick, 1, told, starter=_on_slurm(told))
    records_of(run, quick)


def test_a_study_without_a_cluster_is_told_so(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("holdfast.train.stage.detect", lambda: pytest.fail("of no interest"))
    file = write_study(tmp_path, tiny_model)
    with pytest.raises(HoldfastError, match="there is no sbatch here"):
        study.run(load.load(file), tmp_path / "r", Silent(), str(file), on="slurm")


def test_what_a_node_does_not_have_ends_the_run_as_if_it_were_here(
    tiny_model: Path, tmp_path: Path, cluster: Path
) -> None:
    """No GPU is needed where the command is given; the first worker says that it has none."""
    hardware = {"workers": 1, "device": "cuda", "slurm": {"gpus": 0, "host": "127.0.0.1"}}
    file = write_study(tmp_path, tiny_model, seeds=[1], hardware=hardware)
    with pytest.raises(HoldfastError, match="torch sees no GPU"):
        study.run(load.load(file), tmp_path / "r", Silent(), str(file), on="slurm")
    assert len(fake_slurm.states(cluster)) == 1
