"""Takes memory away during loading, training and answering: is the result the same?

Each trial is a process of its own with a limit on its memory, set between what the whole
micro-batch (or batch) takes and what half of it takes: on a CPU by `RLIMIT_DATA`, so that an
allocation fails, and by a control group where one may be made, so that the kernel kills; on a GPU
by the share that torch's allocator may take. `load` fails because this process already holds what
the model needs, as after an earlier stage. The losses of both steps and the replies are compared
with those of the same trial without a limit.

    python benchmarks/real/oom.py FOLDER [--only train,load,kill,answer] [--tiny] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

MIB = 1 << 20
WORDS, STEPS = 64, 2
MICRO, TINY_MICRO = 4, 32
"""Examples at a time; more of a model so small that what libraries come and go with hides it."""
PROMPTS, NEW = 24, 24
KINDS = ("train", "load", "kill", "answer")
GROUPS = Path("/sys/fs/cgroup")


def setup(model: str, folder: Path, on_gpu: bool, micro: int) -> tuple[Any, Any, int]:
    """A study, its one training, and the longest example's tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    from holdfast.config import Study
    from holdfast.data.batching import plain_budget
    from holdfast.models import ModelRef
    from holdfast.runs import store
    from holdfast.train.data import encode_all
    from holdfast.train.job import TrainJob
    from holdfast.types import Example, Message

    train = {
        "micro_batch_size": micro, "gradient_accumulation_steps": 2,
        "optim": "adamw_torch", "learning_rate": 1e-3, "lora": {"r": 4, "dropout": 0.0},
        "gradient_checkpointing": False, "max_steps": STEPS, "bf16": on_gpu,
    }  # fmt: skip
    study = Study(
        name="oom", model=model, tasks={"lab_math": {"role": "target"}}, train=train,
        hardware={"device": "cuda" if on_gpu else "cpu"},
    )  # fmt: skip
    rows = [
        Example(f"p{i}", (Message("user", f"say {i}"),), " ".join(["so"] * (WORDS - i % 3)))
        for i in range(2 * micro * STEPS)
    ]
    store.write_jsonl(folder / "examples.jsonl", rows)
    ref = ModelRef(model)
    encoded, _, _ = encode_all(ref, rows, study.train)
    budget = plain_budget([one.cost for one in encoded], STEPS, study.train.accumulation, micro)
    job = TrainJob(
        ref, study.train, budget, 5, (STEPS,), folder / "run", folder / "examples.jsonl",
        device=study.hardware.device,
    )  # fmt: skip
    return study, job, max(len(one.ids) for one in encoded)


def train(model: str, folder: Path, cap: Any) -> dict[str, Any]:
    """Train with or without a limit; losses and what happened."""
    from dataclasses import replace

    from holdfast.progress import Silent
    from holdfast.train import stage

    micro = TINY_MICRO if weights_of(model) < 64 * MIB else MICRO
    study, job, longest = setup(model, folder, cap.on_gpu, micro)
    gpus = stage.gpus_of(study)
    if cap.on_gpu and cap.share:
        job = replace(job, memory_cap=cap.share)
    if cap.ballast:  # else it would not even begin in this process
        stage.TIGHT = float("inf")
    with cap:
        found = stage.run(study, job, longest, gpus, Silent())
    noted = job.folder / "memory.jsonl"
    lines = noted.read_text(encoding="utf-8").splitlines() if noted.is_file() else []
    return {"values": [loss for _, loss in found["loss"]], "events": [json.loads(x) for x in lines],
            "memory": found.get("memory")}  # fmt: skip


def answer(model: str, folder: Path, cap: Any) -> dict[str, Any]:
    """Answer with or without a limit; the replies and what happened."""
    from holdfast.config import Sampling
    from holdfast.engines.hf import HFEngine
    from holdfast.models import ModelRef
    from holdfast.progress import Silent
    from holdfast.types import Example, Message

    asked = [
        Example(f"q{i}", (Message("user", f"{i}: " + "tell me more " * 40),))
        for i in range(PROMPTS)
    ]
    device = "cuda" if cap.on_gpu else "cpu"
    with HFEngine(ModelRef(model), device, "float32", batch_size=PROMPTS) as engine, cap:
        replies = engine.generate(asked, Sampling(max_new_tokens=NEW), None, Silent())
        return {"values": [one[0].text for one in replies], "events": engine.events}


class Cap:
    """A limit for as long as it lasts, and the most that was used above what was there before."""

    def __init__(self, limit: int | None, ballast: int, on_gpu: bool) -> None:
        """Take bytes above what is there, bytes to hold beforehand, and whose memory is meant."""
        self.limit, self.ballast, self.on_gpu = limit, ballast, on_gpu
        self.peak, self.share = 0, None if limit is None or not on_gpu else limit / MIB
        self._ended = threading.Event()

    def __enter__(self) -> None:
        """Begin."""
        before = held("RssAnon")
        if not self.on_gpu and self.limit is not None:
            import resource

            most = held("VmData") + self.limit
            self._kept = bytearray(self.ballast)
            resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))

        def look() -> None:
            while not self._ended.wait(0.005):
                self.peak = max(self.peak, held("RssAnon") - before)

        threading.Thread(target=look, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        """End."""
        self._ended.set()
        if not self.on_gpu and self.limit is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)


def held(key: str) -> int:
    """A figure of /proc/self/status, bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def own_group() -> Path | None:
    """A new control group below this process's own; None where none may be made."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, kinds, path = line.split(":", 2)
        top = GROUPS / "memory" if "memory" in kinds.split(",") else None if kinds else GROUPS
        if top is not None:
            place = top / path.strip("/") / f"holdfast-oom-{os.getpid()}"
            with suppress(OSError):
                place.mkdir()
                if (place / _limit(place)).exists():
                    return place
                place.rmdir()
    return None


def _limit(group: Path) -> str:
    return "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"


def run(kind: str, model: str, limit: int | None, ballast: int, gpu: bool,
        group: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """One trial in a process of its own, in a control group if one is given."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {"kind": kind, "limit": limit, "ballast": ballast, "gpu": gpu, "folder": folder,
                 "group": group and str(group)}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, model, "--child", json.dumps(asked)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        why = " ".join(lines[-3:])
        raise RuntimeError(why)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(model: str, asked: dict[str, Any]) -> None:
    """Be such a process."""
    warm_up(Path(asked["folder"]) / "warm")
    group = asked["group"]
    limit = None if group else asked["limit"]
    cap = Cap(limit, asked["ballast"], asked["gpu"])
    if group:
        most = held("RssAnon") + asked["limit"]
        (Path(group) / _limit(Path(group))).write_text(str(most), encoding="utf-8")
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")
    work = answer if asked["kind"] == "answer" else train
    found = work(model, Path(asked["folder"]), cap)
    print(json.dumps(found | {"peak": cap.peak}))


def warm_up(folder: Path) -> None:
    """Train the lab's model a little, so that what libraries take is there before the limit."""
    from holdfast.config import LAB_FOLDER
    from holdfast.progress import Silent
    from holdfast.train.launch import worker

    _, job, _ = setup(str(LAB_FOLDER), folder, False, 2)
    worker.train(job, Silent())


def weights_of(model: str) -> int:
    """Bytes of the model's weights in float32."""
    from holdfast.memory.model.reading import read_shape

    return 4 * read_shape(model, None).parameters


def trial(kind: str, model: str, gpu: bool) -> dict[str, Any]:
    """With and without the limit; what differs."""
    calm = run(kind, model, None, 0, gpu)
    weights = weights_of(model)
    if gpu:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        peak = max((one["allocated_bytes"] for one in calm.get("memory") or ()), default=0)
        limit = round((weights + 0.6 * max(0, peak - weights)) / total * MIB)
        scarce = run(kind, model, limit, 0, gpu)
    elif kind == "load":
        scarce = run(kind, model, round(1.2 * calm["peak"]) + 128 * MIB, calm["peak"], gpu)
    elif kind == "kill":
        group = own_group()
        if group is None:
            return {"kind": kind, "skipped": "no control group may be made here"}
        room = weights + round(0.7 * (calm["peak"] - weights))
        try:
            scarce = run(kind, model, room, 0, gpu, group)
        finally:
            for _ in range(50):
                with suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.1)
    else:
        base = weights if kind == "train" else 0
        scarce = run(kind, model, base + round(0.6 * (calm["peak"] - base)), 0, gpu)
    pairs = list(zip(calm["values"], scarce["values"], strict=True))
    same = max(
        (abs(a - b) if isinstance(a, float) else float(a != b) for a, b in pairs), default=0.0
    )
    return {"kind": kind, "same": same, "events": scarce["events"], "peak": calm["peak"]}


def main() -> int:
    """Run the trials and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?")
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--tiny", action="store_true", help="the lab's model, on the CPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.model, json.loads(args.child))
        return 0
    from holdfast import models
    from holdfast.config import LAB_FOLDER

    model = args.model or str(LAB_FOLDER)
    gpu = not args.tiny and models.pick_device("auto") == "cuda"
    kinds = [one for one in args.only.split(",") if not (gpu and one in ("load", "kill"))]
    print(f"\n{'GPU' if gpu else 'CPU'}, {Path(model).name}\n")
    print("| memory taken away while | what was done | largest difference | recovered |")
    print("|---|---|---|---|", flush=True)
    rows = []
    for kind in kinds:
        try:
            rows.append(trial(kind, model, gpu))
        except Exception as error:
            rows.append({"kind": kind, "failed": str(error)})
        print(line(rows[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return int(not all("skipped" in row or good(row) for row in rows))


def good(row: dict[str, Any]) -> bool:
    """Whether memory ran out, and nothing came of it."""
    return "failed" not in row and bool(row["events"]) and row["same"] <= 1e-4


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    if why := row.get("failed") or row.get("skipped"):
        return f"| {row['kind']} | {why[:200]} | | {'no' if 'failed' in row else 'not tried'} |"
    done = "; ".join(dict.fromkeys(map(told, row["events"]))) or "nothing: it did not run out"
    return f"| {row['kind']} | {done} | {row['same']:.1e} | {'yes' if good(row) else 'NO'} |"


def told(event: dict[str, Any]) -> str:
    """One event in a few words."""
    if "to" in event:
        new = event["to"] and f"{event['to']['micro_batch']} at a time"
        return f"{event['phase']}: a fresh process, {new or 'given up'}"
    return f"{event['phase']}: {event['from_micro_batch']} → {event['to_micro_batch']} at a time"


if __name__ == "__main__":
    sys.exit(main())
