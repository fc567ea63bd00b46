"""Compares the planner's predicted peak with what training really takes of this CPU's memory.

Each case trains a real model for two optimiser steps of two micro-batches, through `train.fit`, in
a process of its own. That process first trains the lab's tiny model once, so that every library is
loaded and has its threads and scratch space: what it holds then is its baseline. From there on its
parent reads its resident memory every few milliseconds, from /proc: what is anonymous (its own) and
what is mapped from files (weights that are read from disk), which the system may drop at any time
and which are not counted. The kernel's own high-water mark of both is shown beside it.

The prediction is what `holdfast plan` says for a CPU: states by exact arithmetic, activations by a
trace of the model's own code under fake tensors. It is of a process that gives back what it freed,
as Holdfast sets up glibc for a training that is tight; `--plain` leaves glibc as it is, which keeps
freed memory for itself where there is plenty.

    OMP_NUM_THREADS=1 python benchmarks/real/memory.py FOLDER [FOLDER ...] \
        [--methods lora,qlora,full] [--seq 256] [--batch 2] [--recompute both] \
        [--json FILE] [--plain] [--tiny]

`--tiny` takes the lab's model, to try the script: there the allocator's own pages outweigh it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

from holdfast.memory.trace import estimates

MIB = 1 << 20
LOOK_EVERY_S = 0.004
PATIENCE_S = 1200.0
STEPS, ACCUMULATION = 2, 2
READY, GO = "ready", "go"


@dataclass(frozen=True)
class Case:
    """One training: whose, how, and of how much at once."""

    model: str
    method: str
    seq: int
    batch: int
    recompute: bool

    @property
    def name(self) -> str:
        """A row's beginning."""
        return f"{Path(self.model).name} | {self.method} | {'yes' if self.recompute else 'no'}"


def settings(case: Case) -> Any:
    """The training section of a study that says what the case does."""
    from holdfast.config import TrainSpec

    return TrainSpec(
        method=case.method, per_device_train_batch_size=case.batch, learning_rate=1e-4,
        gradient_accumulation_steps=ACCUMULATION, gradient_checkpointing=case.recompute,
        optim="adamw_torch", group_by_length=False,
    )  # fmt: skip


def train(case: Case, folder: Path) -> None:
    """Train the case; every row has its full length, and every token but the first a loss."""
    from holdfast.data.batching import Budget
    from holdfast.data.encoding import Encoded
    from holdfast.memory.memory_plan import MemoryPlan
    from holdfast.models import ModelRef
    from holdfast.train.data import TrainingData
    from holdfast.train.fit import fit
    from holdfast.train.job import TrainJob

    draw = random.Random(1126)
    count = STEPS * ACCUMULATION * case.batch
    rows = []
    for _ in range(count):
        length = case.seq - 7 * (len(rows) % 2)  # as in life, rows of a micro-batch are unequal
        ids = tuple(draw.randrange(10, 60) for _ in range(length))
        rows.append(Encoded(ids, (-100, *ids[1:]), 1))
    budget = Budget(STEPS, ACCUMULATION, count * (case.seq - 1), case.batch)
    plan = MemoryPlan(
        "cpu", case.method == "qlora", case.recompute, case.batch, ACCUMULATION, dtype="float32"
    )
    job = TrainJob(
        ModelRef(case.model), settings(case), budget, 1126, (STEPS,), folder, device="cpu",
        plan=plan,
    )  # fmt: skip
    fit(job, TrainingData(rows))


def child(case: Case, lab: str) -> None:
    """Warm up on the lab's model, say so, wait, and train."""
    import warnings

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        warm = replace(case, model=lab, seq=32, batch=2)
        train(warm, Path(folder) / "warm")
        os.write(3, (READY + "\n").encode())
        if sys.stdin.readline().strip() != GO:
            raise SystemExit("nobody listens")
        train(case, Path(folder) / "real")


def resident(pid: int) -> tuple[int, int, int]:
    """Anonymous, file-backed, and the high-water mark of their sum, bytes."""
    found = dict.fromkeys(("RssAnon", "RssFile", "VmHWM"), 0)
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key in found:
            found[key] = int(value.split()[0]) * 1024
    return found["RssAnon"], found["RssFile"], found["VmHWM"]


def measure(case: Case, lab: str, plain: bool = False) -> dict[str, float]:
    """Peaks of the case's process above its baseline, bytes; `plain`: with glibc as it is."""
    from holdfast.memory.memory_plan import MemoryPlan
    from holdfast.train.launch.torchrun import environment

    variables = dict(os.environ) if plain else environment(MemoryPlan("cpu"), os.environ)
    read, write = os.pipe()
    command = [sys.executable, "-W", "ignore", __file__, lab, "--child", json.dumps(asdict(case))]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(
        ["sh", "-c", f'exec "$@" 3>&{write}', "sh", *command], stdin=subprocess.PIPE, text=True,
        stdout=said, stderr=said, pass_fds=(write,), env=variables,
    ) as process:  # fmt: skip
        os.close(write)
        with os.fdopen(read) as pipe:
            ready = pipe.readline().strip() == READY
        if ready and process.stdin is not None:
            anonymous, mapped, _ = resident(process.pid)
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="utf-8")
            print(GO, file=process.stdin, flush=True)
            top = files = high = 0
            while process.poll() is None:
                try:
                    now = resident(process.pid)
                except (OSError, IndexError):
                    break
                top, files, high = max(top, now[0]), max(files, now[1]), max(high, now[2])
                time.sleep(LOOK_EVERY_S)
        if process.wait() or not ready:
            said.seek(0)
            raise RuntimeError(f"{case.name}: {said.read()[-400:]}")
    return {
        "anonymous": top - anonymous,
        "mapped": files - mapped,
        "high_water": high - anonymous - mapped,
        "baseline": anonymous,
    }


def predicted(case: Case) -> tuple[int, str]:
    """What the planner says of the case, bytes beyond the libraries' own, and on what grounds."""
    from holdfast.memory.planner.planner import plan
    from holdfast.memory.planner.request import PlanRequest
    from holdfast.memory.planner.strategies import ON_CPU

    patient = functools.partial(estimates.measure, limit_s=PATIENCE_S)  # a busy machine is no news
    with mock.patch.object(estimates, "measure", patient):
        report = plan(
            PlanRequest(
                case.model, "cpu", case.seq, train=settings(case), micro_batch=case.batch,
                supervised_tokens=case.seq,
            )
        )  # fmt: skip
    found = next(one.plan for one in report.candidates if one.plan.checkpointing is case.recompute)
    return found.fullest.total - ON_CPU.context_bytes, report.source


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--methods", default="lora,qlora,full")
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--recompute", choices=("yes", "no", "both"), default="both")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(Case(**json.loads(args.child)), args.models[0])
        return 0
    from holdfast.config import LAB_FOLDER

    models = args.models or ([str(LAB_FOLDER)] if args.tiny else [])
    if not models:
        parser.error("name a model's folder, or --tiny")
    if args.tiny:
        args.seq = min(args.seq, 64)
    recompute = {"yes": (True,), "no": (False,), "both": (True, False)}[args.recompute]
    print(f"\nCPU, torch {version('torch')}, transformers {version('transformers')}, "
          f"{args.batch} x {args.seq} tokens a micro-batch, glibc "
          f"{'as it is' if args.plain else 'set up as for a tight training'}; "
          "MiB above the process's baseline\n")  # fmt: skip
    print("| model | method | recomputed | predicted | own peak | ratio | high-water, files too |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows: list[dict[str, Any]] = []
    for model in models:
        for method in args.methods.split(","):
            for each in recompute:
                case = Case(model, method, args.seq, args.batch, each)
                rows.append(row(case, str(LAB_FOLDER), args.plain))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    ratios = [abs(one["ratio"] - 1) for one in rows if "ratio" in one]
    print(f"\nlargest error {max(ratios, default=0):.1%} of {len(ratios)}; "
          f"{len(rows) - len(ratios)} failed")  # fmt: skip
    return int(len(ratios) < len(rows))


def row(case: Case, lab: str, plain: bool) -> dict[str, Any]:
    """Measure a case, print its row, and return it; a case that fails is told and passed over."""
    try:
        guess, source = predicted(case)
        found = measure(case, lab, plain)
    except Exception as error:
        print(f"| {case.name} | did not run: {str(error).strip().splitlines()[-1][:120]} | | | |",
              flush=True)  # fmt: skip
        return asdict(case) | {"failed": str(error)[-2000:]}
    ratio = guess / found["anonymous"]
    print(f"| {case.name} | {guess / MIB:,.0f} ({source}) | {found['anonymous'] / MIB:,.0f} | "
          f"{ratio:.3f} | {found['high_water'] / MIB:,.0f} |", flush=True)  # fmt: skip
    return asdict(case) | found | {"predicted": guess, "source": source, "ratio": ratio}


if __name__ == "__main__":
    sys.exit(main())
