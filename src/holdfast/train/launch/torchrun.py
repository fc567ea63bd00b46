"""How does a memory plan become processes, and what happens when one of them runs out of memory?

A plan for GPUs runs in a process of its own, so that the environment is right before torch is
imported and the memory is given back whatever happens. Out of memory is an answer, not a crash: the
next plan starts in a fresh process and goes on from the last complete checkpoint.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import errors
from holdfast.errors import HoldfastError, OutOfMemory, TrainingError, UsageError
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.train.job import ERROR, EVENTS, LOG, OOM, PROGRESS, SUMMARY, Job, write_job
from holdfast.train.launch.process import Ended, run_process

OUT_OF_MEMORY = 75
"""Exit code of a worker that ran out of memory (EX_TEMPFAIL: trying again differently may do)."""
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
PARENT = "HOLDFAST_PARENT"
SIGKILL = 9
DIED_OF_MEMORY = "out of memory at line"
"""What bitsandbytes' CUDA library prints before it ends the process."""

Event = Mapping[str, Any]
NextPlan = Callable[[MemoryPlan, Event], MemoryPlan | None]


def command(plan: MemoryPlan, job_path: Path) -> list[str]:
    """What is executed for a plan."""
    worker = ["-m", "holdfast.train.launch.worker", str(job_path)]
    if plan.world_size == 1 and plan.placement not in {"ddp", "fsdp2"}:
        return [sys.executable, *worker]
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    return [sys.executable, *torchrun, f"--nproc_per_node={plan.world_size}", *worker]


def environment(
    plan: MemoryPlan, base: Mapping[str, str], find: Callable[..., Sequence[GPU]] = detect
) -> dict[str, str]:
    """The environment of a plan's processes.

    Args:
        plan: which GPUs.
        base: the environment there is; what the user has set in it stays.
        find: lists the GPUs that an environment leaves visible; asked where that is not plain.

    Raises:
        UsageError: the plan needs a GPU that is not visible.
    """
    found = dict(base)
    if plan.gpus and plan.placement != "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(plan, base, find))
        found.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of nvidia-smi
        if "PYTORCH_ALLOC_CONF" not in found:  # its newer name; torch reads both
            found.setdefault(ALLOCATOR, "expandable_segments:True")
    if plan.placement == "fsdp2" and not plan.quantized:  # rank 0 alone reads the weights
        found |= {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    if plan.world_size > 1:
        threads = max(1, (os.cpu_count() or 1) // plan.world_size)
        found.setdefault("OMP_NUM_THREADS", str(threads))
    return found


def _visible(
    plan: MemoryPlan, base: Mapping[str, str], find: Callable[..., Sequence[GPU]]
) -> list[str]:
    """The plan's GPUs by number, or by the UUIDs that CUDA_VISIBLE_DEVICES has already."""
    already = base.get("CUDA_VISIBLE_DEVICES")
    if already is None:
        return [str(one) for one in plan.gpus]
    names = [one.strip() for one in already.split(",") if one.strip()]
    numbers = [int(one) for one in names if one.isdigit()]
    if not set(plan.gpus) <= set(numbers):
        numbers = [one.index for one in find(environ=base)]
    if not set(plan.gpus) <= set(numbers[: len(names)]):
        raise UsageError(
            f"the plan uses GPU {', '.join(map(str, plan.gpus))}, which it does not name",
            where=f"CUDA_VISIBLE_DEVICES={already}",
            remedy="unset it, or plan again for the GPUs that are visible",
        )
    return [names[numbers.index(one)] for one in plan.gpus]


def printable(plan: MemoryPlan, job_path: Path, base: Mapping[str, str]) -> str:
    """The command line with its environment, for a person to paste into a shell."""
    added = environment(plan, base)
    settings = [f"{k}={shlex.quote(v)}" for k, v in sorted(added.items()) if base.get(k) != v]
    return " ".join([*settings, shlex.join(command(plan, job_path))])


def run(
    job: Job,
    plan: MemoryPlan,
    progress: Progress,
    next_plan: NextPlan,
    events: list[dict[str, Any]],
    *,
    here: Callable[[Job, Progress], Mapping[str, Any]],
    build: Callable[[MemoryPlan, Path], Sequence[str]] = command,
) -> dict[str, Any]:
    """Train as planned; when memory runs out, go on from the last checkpoint with the next plan.

    Args:
        job: what to train.
        plan: the first plan.
        progress: follows the training, wherever it runs.
        next_plan: what to try after a plan and its event; None: give up.
        events: gets every event: one that a process mended itself, and every change of plan.
        here: trains in this process; for plans that need no GPU.
        build: the command of a plan.

    Returns:
        What `train.fit` returns.

    Raises:
        OutOfMemory: no plan is left.
        HoldfastError: what the process raised, as it raised it.
        TrainingError: the process crashed; the message has its last lines.
    """
    known = _count(job)
    while True:
        try:
            if plan.placement == "cpu":
                summary = here(replace(job, plan=plan), progress)
            else:
                summary = _launched(replace(job, plan=plan), plan, progress, build)
        except OutOfMemory as error:
            known = _collect(job, events, known)
            event = _event(job, plan, error)
            new = next_plan(plan, event)
            event["to"] = None if new is None else _brief(new)
            with (Path(job.folder) / EVENTS).open("a", encoding="utf-8") as file:
                file.write(store.jsonl_line(event))
            known = _collect(job, events, known)
            if new is None:
                raise
            progress.say(
                f"out of memory ({error.phase}) with {_words(plan)}: going on from the last "
                f"checkpoint with {_words(new)}"
            )
            plan = new
        else:
            _collect(job, events, known)
            return dict(summary)


def _launched(
    job: Job,
    plan: MemoryPlan,
    progress: Progress,
    build: Callable[[MemoryPlan, Path], Sequence[str]],
) -> Mapping[str, Any]:
    desk = job.desk
    for name in (OOM, ERROR, PROGRESS):
        (desk / name).unlink(missing_ok=True)
    path = desk / "job.json"
    write_job(job, path)
    told = environment(plan, os.environ) | {PARENT: str(os.getpid())}
    ended = run_process(build(plan, path), told, desk / LOG, desk / PROGRESS, progress)
    summary = Path(job.folder) / SUMMARY
    if ended.code == 0 and summary.is_file():
        return dict(store.read_json(summary))
    raise _failure(job, ended)


def _failure(job: Job, ended: Ended) -> HoldfastError:
    """What went wrong in the process; torchrun has an exit code of its own, so files say it."""
    log = job.desk / LOG
    dead = DIED_OF_MEMORY in ended.tail
    if (job.desk / OOM).is_file() or ended.code == OUT_OF_MEMORY or dead:
        told = store.read_json(job.desk / OOM) if (job.desk / OOM).is_file() else {}
        return OutOfMemory(
            told.get("message", "memory ran out"),
            phase=told.get("phase", "forward"),
            where=told.get("where", ""),
            remedy=told.get("remedy", "let `holdfast plan` choose what fits"),
        )
    if (job.desk / ERROR).is_file():
        return rebuilt(store.read_json(job.desk / ERROR))
    if ended.code == -SIGKILL or "Signal 9 (SIGKILL)" in ended.tail:
        return TrainingError(
            "a training process was killed (SIGKILL), as the system does when the machine runs out "
            "of host memory",
            where=str(log),
            remedy="free host memory or use fewer processes; the same command continues from the "
            "last checkpoint",
        )
    return TrainingError(
        f"the training process ended with code {ended.code}; its last lines:\n{ended.tail}",
        where=str(log),
        remedy="the whole output is in that file; the same command continues from the last "
        "checkpoint",
    )


def rebuilt(told: Mapping[str, Any]) -> HoldfastError:
    """The error that a process wrote down."""
    kind = getattr(errors, str(told.get("type")), TrainingError)
    message, where, remedy = (str(told.get(key, "")) for key in ("message", "where", "remedy"))
    if not (isinstance(kind, type) and issubclass(kind, HoldfastError)):
        kind = TrainingError
    return kind(message, where=where, remedy=remedy)


def _event(job: Job, plan: MemoryPlan, error: OutOfMemory) -> dict[str, Any]:
    path = job.desk / OOM
    told = store.read_json(path) if plan.placement != "cpu" and path.is_file() else {}
    return {
        "phase": error.phase,
        "message": error.message,
        "from": _brief(plan),
        "predicted_bytes": max((one.total for one in plan.predicted), default=None),
        "allocated_bytes": told.get("allocated_bytes"),
        "reserved_bytes": told.get("reserved_bytes"),
    }


def _brief(plan: MemoryPlan) -> dict[str, Any]:
    names = ("strategy", "placement", "quantized", "checkpointing", "micro_batch", "accumulation")
    return {name: getattr(plan, name) for name in (*names, "gpus", "adapter_dtype")}


def _words(plan: MemoryPlan) -> str:
    parts = [plan.strategy, f"micro-batch {plan.micro_batch}"]
    parts += ["checkpointing"] if plan.checkpointing else []
    parts += ["bf16 adapters"] if plan.adapter_dtype == "bfloat16" else []
    if plan.predicted:
        parts.append(f"{max(one.total for one in plan.predicted) / GIB:.1f} GiB predicted")
    return ", ".join(parts)


def _count(job: Job) -> int:
    path = Path(job.folder) / EVENTS
    return sum(1 for _ in store.read_objects(path)) if path.is_file() else 0


def _collect(job: Job, events: list[dict[str, Any]], known: int) -> int:
    """Append what the file has beyond `known` lines; returns how many it has."""
    path = Path(job.folder) / EVENTS
    lines = [value for _, value in store.read_objects(path)] if path.is_file() else []
    events += lines[known:]
    return len(lines)
