"""Does a plan become the process that was printed, and does a run survive what happens to it?"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures.paths import TESTS

from holdfast.config import TrainSpec
from holdfast.data.batching import Budget
from holdfast.errors import ModelError, OutOfMemory, TrainingError, UsageError
from holdfast.memory.memory_plan import Breakdown, MemoryPlan
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop
from holdfast.runs import store
from holdfast.train import stage
from holdfast.train.job import TrainJob, read_job, write_job
from holdfast.train.launch import torchrun
from holdfast.train.launch.process import STOP, FiledStop
from holdfast.types import ModelRef

ONE = MemoryPlan("single", gpus=(0,), predicted=(Breakdown(weights=1 << 30),))
SMALLER = MemoryPlan("single", quantized=True, gpus=(0,))
DDP = MemoryPlan("ddp", gpus=(1, 3), accumulation=2)


def _job(folder: Path, **more: Any) -> TrainJob:
    return TrainJob(
        ModelRef("b"), TrainSpec(method="lora", gradient_accumulation_steps=4),
        Budget(6, 2, 9, 1), 1, (3, 6), folder, Path("e.jsonl"), **more,
    )  # fmt: skip


class Seen(Silent):
    def __init__(self) -> None:
        self.steps, self.lines = 0, list[str]()

    def advance(self, amount: int = 1) -> None:
        self.steps += amount

    def say(self, line: str) -> None:
        self.lines.append(line)


def _never(*_: Any) -> Any:
    raise AssertionError("not to be called")


def _stub(code: str) -> Any:
    """A worker of a few lines: `desk`, `folder` and the plan's `strategy` are there for it."""
    head = (
        "import json, os, sys, time, pathlib\n"
        "desk = pathlib.Path(sys.argv[1]).parent; folder = desk.parent\n"
        "plan = json.loads((desk / 'job.json').read_text())['plan']\n"
        "def tell(**it): open(desk / 'progress.jsonl', 'a').write(json.dumps(it) + '\\n')\n"
    )
    return lambda plan, path: [sys.executable, "-c", head + code, str(path)]


def test_a_job_survives_the_file(tmp_path: Path) -> None:
    job = _job(
        tmp_path, plan=ONE, memory_cap=0.5, losses=(("kl", {"weight": 0.1}),), stop={"kl": 0.5}
    )
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(UsageError, match="is not a job"):
        read_job(tmp_path / "job.json")
    with pytest.raises(UsageError, match="is not a job"):
        read_job(tmp_path / "none.json")


def test_commands() -> None:
    path = Path("j.json")
    assert torchrun.command(ONE, path) == [
        sys.executable,
        "-m",
        "holdfast.train.launch.worker",
        "j.json",
    ]
    assert torchrun.command(DDP, path) == [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
        "-m", "holdfast.train.launch.worker", "j.json",
    ]  # fmt: skip
    for placement in ("split", "offload", "cpu"):
        plan = MemoryPlan(placement, gpus=(0, 1))
        assert "torch.distributed.run" not in torchrun.command(plan, path)


def test_several_machines_share_out_a_step() -> None:
    one = MemoryPlan("single", gpus=(0,), accumulation=4)
    two = torchrun.across(one, 2, "first:29400")
    assert (two.placement, two.accumulation, two.world_size) == ("ddp", 2, 2)
    assert two.global_batch == one.global_batch
    command = torchrun.command(two, Path("/r/job.json"))
    assert "--nnodes=2" in command and "--rdzv-endpoint=first:29400" in command
    assert "--nproc_per_node=1" in command and "--standalone" not in command
    assert command == torchrun.command(two, Path("/r/job.json")), "the same on every machine"
    assert torchrun.alone(two).accumulation == 4 and torchrun.alone(two).nodes == 1
    both = torchrun.across(replace(DDP, accumulation=4), 2, "first:29400")
    assert (both.world_size, both.per_node, both.accumulation) == (4, 2, 2)
    assert torchrun.across(one, 1, "") is one
    with pytest.raises(UsageError, match="stays on one machine"):
        torchrun.across(MemoryPlan("split", gpus=(0, 1)), 2, "first:29400")
    with pytest.raises(UsageError, match="cannot be shared out over 3"):
        torchrun.across(one, 3, "first:29400")


@pytest.mark.parametrize(
    ("gpus", "already", "there", "expected"),
    [
        ((1, 3), None, None, "1,3"),
        ((3,), "2,3", None, "3"),
        ((3, 2), "2,3", None, "3,2"),
        ((3,), "GPU-aa,GPU-bb", (5, 3), "GPU-bb"),
        ((0,), "MIG-cc", (0,), "MIG-cc"),
        ((1,), "4,7", (0, 1), "7"),  # torch alone was asked, and counts what it sees
    ],
)
def test_narrowing(gpus: tuple[int, ...], already: str | None, there: Any, expected: str) -> None:
    def find(environ: Mapping[str, str]) -> list[Any]:
        assert there is not None, "asked although the numbers are plain"
        assert environ["CUDA_VISIBLE_DEVICES"] == already
        return [SimpleNamespace(index=one) for one in there]

    base = {} if already is None else {"CUDA_VISIBLE_DEVICES": already}
    found = torchrun.environment(MemoryPlan("split", gpus=gpus), base, find)
    assert found["CUDA_VISIBLE_DEVICES"] == expected
    assert found["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_plan_for_other_gpus_is_refused() -> None:
    with pytest.raises(UsageError, match="GPU 1, 3"):
        torchrun.environment(DDP, {"CUDA_VISIBLE_DEVICES": "0"}, lambda environ: [])


def test_what_the_user_has_set_stays() -> None:
    assert torchrun.environment(ONE, {})["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        found = torchrun.environment(ONE, {name: "max_split_size_mb:64"})
        assert found[name] == "max_split_size_mb:64"
        assert "expandable_segments:True" not in found.values()
    assert torchrun.environment(DDP, {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in torchrun.environment(MemoryPlan("cpu"), {})


def test_the_printed_command_is_the_one_that_runs(tmp_path: Path) -> None:
    """What a shell makes of the printed line: same arguments, same environment."""
    base = {"PATH": os.environ["PATH"], "HF_HOME": "a b"}
    path = tmp_path / "with space" / "job.json"
    line = torchrun.printable(DDP, path, base)
    show = "import os, sys, json; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    python = shlex.quote(sys.executable)
    asked = line.replace(f"{python} -m", f"{python} -c {shlex.quote(show)} -m", 1)
    said = subprocess.run(asked, shell=True, env=base, capture_output=True, text=True, check=True)
    arguments, found = json.loads(said.stdout)
    assert arguments == torchrun.command(DDP, path)[1:]
    wanted = torchrun.environment(DDP, base)
    assert {name: found.get(name) for name in wanted} == wanted


def test_the_next_plan_goes_on_in_a_fresh_process(tmp_path: Path) -> None:
    build = _stub(
        "tell(what='total', amount=6, unit='steps'); tell(what='advance', amount=3)\n"
        "if plan['quantized']:\n"
        "    tell(what='say', line='here')\n"
        "    (folder / 'summary.json').write_text('{\"steps\": 6}'); sys.exit()\n"
        "oom = {'message': 'full', 'phase': 'backward', 'allocated_bytes': 7, 'remedy': 'r'}\n"
        "(desk / 'oom.json').write_text(json.dumps(oom)); sys.exit(75)\n"
    )
    asked, events, seen = [], [{"old": 1}], Seen()

    def next_plan(plan: MemoryPlan, event: Any) -> MemoryPlan:
        asked.append((plan, event["phase"], event["predicted_bytes"], event["allocated_bytes"]))
        return SMALLER

    job = _job(tmp_path)
    found = stage.train(job, ONE, seen, next_plan, events, here=_never, build=build)
    assert found == {"steps": 6}
    assert asked == [(ONE, "backward", 1 << 30, 7)]
    assert seen.steps == 6
    assert seen.lines == [
        "out of memory (backward) with single, micro-batch 1, checkpointing, 1.0 GiB predicted: "
        "going on from the last checkpoint with qlora, micro-batch 1, checkpointing",
        "here",
    ]
    assert len(events) == 2
    assert events[1]["to"]["strategy"] == "qlora"
    assert [value for _, value in store.read_objects(tmp_path / "memory.jsonl")] == events[1:]


def test_without_a_next_plan_it_is_said_what_to_do(tmp_path: Path) -> None:
    build = _stub("sys.exit(75)")
    events: list[dict[str, Any]] = []
    with pytest.raises(OutOfMemory, match="holdfast plan"):
        stage.train(
            _job(tmp_path), ONE, Silent(), lambda *_: None, events, here=_never, build=build
        )
    assert [event["to"] for event in events] == [None]


def test_a_typed_error_arrives_as_it_was(tmp_path: Path) -> None:
    error = {"type": "ModelError", "message": "gone", "where": "m", "remedy": "fetch it"}
    build = _stub(f"(desk / 'error.json').write_text({json.dumps(json.dumps(error))}); sys.exit(3)")
    with pytest.raises(ModelError) as found:
        stage.train(_job(tmp_path), ONE, Silent(), _never, [], here=_never, build=build)
    assert str(found.value) == "m: gone\n  → fetch it"


def test_old_answers_are_not_believed(tmp_path: Path) -> None:
    desk = _job(tmp_path).launch_folder
    store.write_json(desk / "oom.json", {"phase": "load"})
    with pytest.raises(TrainingError, match="code 4"):
        stage.train(
            _job(tmp_path), ONE, Silent(), _never, [], here=_never, build=_stub("sys.exit(4)")
        )


def test_a_crash_shows_its_last_lines_and_the_log(tmp_path: Path) -> None:
    build = _stub("print('early'); raise KeyError('lost')")
    with pytest.raises(TrainingError, match="KeyError: 'lost'") as found:
        stage.train(_job(tmp_path), ONE, Silent(), _never, [], here=_never, build=build)
    log = Path(found.value.where)
    assert "early" in log.read_text()


@pytest.mark.parametrize("code", ["os.kill(os.getpid(), 9)", "print('Signal 9 (SIGKILL)'); 1/0"])
def test_killed_by_the_host(tmp_path: Path, code: str) -> None:
    with pytest.raises(TrainingError, match="out of host memory"):
        stage.train(_job(tmp_path), ONE, Silent(), _never, [], here=_never, build=_stub(code))


@pytest.mark.parametrize(
    ("told", "phase"), [("", "load"), ("tell(what='total', amount=6)", "backward")]
)
def test_killed_for_want_of_memory_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, phase: str
) -> None:
    """The kernel's count of such kills goes up while the process runs, and the process is gone."""
    counts = iter((3, 4, 4, 4))
    monkeypatch.setattr("holdfast.train.launch.process.kills", lambda: next(counts))
    build = _stub(
        f"{told}\n"
        "if plan['quantized']: (folder / 'summary.json').write_text('{\"steps\": 6}'); sys.exit()\n"
        "os.kill(os.getpid(), 9)"
    )
    events: list[dict[str, Any]] = []
    found = stage.train(
        _job(tmp_path), ONE, Silent(), lambda *_: SMALLER, events, here=_never, build=build
    )
    assert found == {"steps": 6}
    assert [(one["phase"], one["message"]) for one in events] == [
        (phase, "the training process was killed by the kernel for want of memory")
    ]


def test_a_tight_training_gives_back_what_it_frees() -> None:
    """The user's own settings of glibc stay; a plan for GPUs sets none."""
    found = torchrun.environment(MemoryPlan("cpu"), {"MALLOC_TRIM_THRESHOLD_": "7"})
    assert found == {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "7"}
    assert not any(name.startswith("MALLOC") for name in torchrun.environment(DDP, {}))


def test_cpu_plans_stay_in_this_process(tmp_path: Path) -> None:
    plan = MemoryPlan("cpu")

    def here(job: TrainJob, progress: Any) -> dict[str, Any]:
        assert job.plan == plan
        return {"steps": 6}

    job = _job(tmp_path)
    assert stage.train(job, plan, Silent(), _never, [], here=here, build=_never) == {"steps": 6}


STAYS = (
    "import subprocess\n"
    "from holdfast.progress.stopping import exit_with_parent\n"
    "exit_with_parent(int(os.environ['HOLDFAST_PARENT']))\n"
    "child = subprocess.Popen(['sleep', '100'])\n"
    "(folder / 'pids').write_text(f'{os.getpid()} {child.pid}')\n"
    "tell(what='advance', amount=1); time.sleep(100)\n"
)


def _gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has, its parent has only not asked yet."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _wait(ready: Any, what: str) -> None:
    end = time.monotonic() + 60  # a busy machine takes its time to start a process
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.05)


class Stops(Silent):
    def advance(self, amount: int = 1) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage.train(_job(tmp_path), ONE, Stops(), _never, [], here=_never, build=_stub(STAYS))
    pids = [int(one) for one in (tmp_path / "pids").read_text().split()]
    _wait(lambda: all(map(_gone, pids)), f"{pids} are left")


class Asked(Silent):
    """Somebody presses Ctrl-C when the worker has told of something worth finishing."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.seen: list[object] = []

    def kept(self, amount: int) -> None:
        self.seen.append(("kept", amount))

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        self.seen.append((tokens, loss, self.stop.doing))
        self.stop.signals.append(signal.SIGINT)


def test_a_worker_finishes_its_step_before_it_is_stopped(tmp_path: Path) -> None:
    asked = Asked()
    build = _stub(
        "tell(what='kept', amount=2); tell(what='hold', text='step 3 and a checkpoint')\n"
        "tell(what='worked', tokens=70, loss=0.5)\n"
        "while not (desk / 'stop').is_file(): time.sleep(0.01)\n"
        "(folder / 'checkpoint-3').mkdir(); sys.exit(130)\n"
    )
    with pytest.raises(KeyboardInterrupt):
        stage.train(_job(tmp_path), ONE, asked, _never, [], here=_never, build=build)
    assert asked.seen == [("kept", 2), (70, 0.5, "step 3 and a checkpoint")]
    assert (tmp_path / "checkpoint-3").is_dir()
    assert asked.stop.doing == ""


@pytest.mark.parametrize(("world", "last"), [(1, 4), (2, 5)])
def test_all_workers_stop_after_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int, last: int
) -> None:
    told: list[str] = []
    first, second = FiledStop(tmp_path, told.append), FiledStop(tmp_path)

    def by(one: FiledStop, rank: int, step: int) -> bool:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        return one.by(step)

    first.hold("step 4")
    assert not by(first, 0, 3)
    (tmp_path / STOP).touch()
    if world > 1:
        assert not by(second, 1, 4), "it may come to the end of a step before the first does"
    ended = [step for step in (4, 5) if by(first, 0, step)]
    assert ended[0] == last
    assert world == 1 or by(second, 1, last)
    with pytest.raises(KeyboardInterrupt):
        first.release()
    assert told == ["step 4", ""]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_launcher_leaves_no_worker(tmp_path: Path, number: int) -> None:
    """SIGTERM is passed on; after SIGKILL the worker notices by itself."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "import test_launch as t; from pathlib import Path\n"
        "job = t._job(Path(sys.argv[1]))\n"
        "t.stage.train(job, t.ONE, t.Silent(), t._never, [], here=t._never, "
        "build=t._stub(t.STAYS))\n"
    )
    place = os.pathsep.join((str(TESTS), str(TESTS / "train")))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), place], stderr=subprocess.DEVNULL
    ) as launcher:
        pids = tmp_path / "pids"
        _wait(lambda: pids.is_file() and pids.read_text(), "the worker did not start")
        worker, child = (int(one) for one in pids.read_text().split())
        launcher.send_signal(number)
        launcher.wait(10)
    _wait(lambda: _gone(worker), "the worker is left")
    if number == signal.SIGTERM:
        _wait(lambda: _gone(child), "its child is left")
    elif not _gone(child):
        os.kill(child, signal.SIGKILL)
