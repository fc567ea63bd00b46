"""Starts the processes of a memory plan, follows them, and says as a typed error why they failed.

A plan for GPUs runs in a process of its own, so that the environment is right before torch is
imported and the memory is given back whatever happens.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import errors
from holdfast.errors import Damaged, HoldfastError, OutOfMemory, TrainingError, UsageError
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.progress import Progress
from holdfast.runs import records, sealed
from holdfast.runs.store import fingerprint
from holdfast.train.job import ERROR, LOG, OOM, PROGRESS, SUMMARY, TrainJob, write_job
from holdfast.train.launch.process import STOP, STOP_AT, ProcessEnd, run_process

OUT_OF_MEMORY = 75
"""Exit code of a worker that ran out of memory (EX_TEMPFAIL: trying again differently may do)."""
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
PARENT = "HOLDFAST_PARENT"
EXACT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_TRIM_THRESHOLD_": str(1 << 17)}
"""Of glibc: what is freed goes back to the system at once. Left to itself it raises the first to 32
MiB as it goes, and keeps what was freed below that between what still lives."""
SIGKILL = 9
DIED_OF_MEMORY = "out of memory at line"
"""What bitsandbytes' CUDA library prints before it ends the process."""

Build = Callable[[MemoryPlan, Path], Sequence[str]]
"""Makes the command of a plan and of the file of a job."""


def command(plan: MemoryPlan, job_path: Path) -> list[str]:
    """What is executed for a plan."""
    worker = ["-m", "holdfast.train.launch.worker", str(job_path)]
    if plan.world_size == 1 and plan.placement not in {"ddp", "fsdp2"}:
        return [sys.executable, *worker]
    where = ["--standalone"]
    if plan.nodes > 1:  # the same on every one of them
        where = [f"--nnodes={plan.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={plan.meeting}"]
        where.append(f"--rdzv-id={fingerprint(str(job_path))}")
    torchrun = ["-m", "torch.distributed.run", *where]
    return [sys.executable, *torchrun, f"--nproc_per_node={plan.per_node}", *worker]


def across(plan: MemoryPlan, nodes: int, meeting: str) -> MemoryPlan:
    """The same training over several machines: each takes its share of every step.

    Args:
        plan: of one machine.
        nodes: how many there are, each with the GPUs of the plan.
        meeting: see `MemoryPlan`.

    Raises:
        UsageError: the plan or its batch cannot be shared out.
    """
    if nodes == 1:
        return plan
    if plan.placement not in {"single", "ddp", "fsdp2"}:
        raise UsageError(
            f"a training that is placed as {plan.strategy} stays on one machine",
            where="hardware.nodes",
            remedy="set hardware.strategy to ddp or fsdp2, or leave hardware.nodes out",
        )
    if plan.accumulation % nodes:
        raise UsageError(
            f"{plan.accumulation} micro-batches of a step cannot be shared out over {nodes} "
            "machines",
            where="hardware.nodes",
            remedy="make train.gradient_accumulation_steps a multiple of all processes together",
        )
    placement = "ddp" if plan.placement == "single" else plan.placement
    share = plan.accumulation // nodes
    return replace(plan, placement=placement, accumulation=share, nodes=nodes, meeting=meeting)


def alone(plan: MemoryPlan) -> MemoryPlan:
    """The plan of one machine that `across` was given, as far as its memory goes."""
    shared = plan.accumulation * plan.nodes
    return replace(plan, accumulation=shared, nodes=1, meeting="")


def following(run_folder: Path) -> str:
    """What is given on the other machines of a run."""
    return shlex.join(["python", "-m", "holdfast.train.launch.follow", str(run_folder)])


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
    if plan.placement == "cpu":
        found = {**EXACT, **found}
    if plan.gpus and plan.placement != "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(plan, base, find))
        found.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of nvidia-smi
        if "PYTORCH_ALLOC_CONF" not in found:  # its newer name; torch reads both
            found.setdefault(ALLOCATOR, "expandable_segments:True")
    if plan.placement == "fsdp2" and not plan.quantized:  # rank 0 alone reads the weights
        found |= {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    if plan.world_size > 1:
        threads = max(1, (os.cpu_count() or 1) // plan.per_node)
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


def launch(
    job: TrainJob, plan: MemoryPlan, progress: Progress, build: Build = command
) -> dict[str, Any]:
    """Train a job in the processes of its plan.

    Args:
        job: what to train; its plan says on which GPUs.
        plan: that plan.
        progress: follows the training.
        build: see `Build`.

    Returns:
        What `fit.fit` returns.

    Raises:
        OutOfMemory: memory ran out in one of them.
        HoldfastError: what the process raised, as it raised it.
        TrainingError: the process crashed; the message has its last lines.
    """
    folder = job.launch_folder
    for name in (OOM, ERROR, PROGRESS, STOP, STOP_AT):
        (folder / name).unlink(missing_ok=True)
    path = folder / "job.json"
    write_job(job, path)
    variables = environment(plan, os.environ) | {PARENT: str(os.getpid())}
    ended = run_process(build(plan, path), variables, folder / LOG, folder / PROGRESS, progress)
    summary = job.folder / SUMMARY
    if ended.code == 0 and summary.is_file():
        return sealed.read(summary, records.again(job.folder))
    raise _failure(job, ended)


def _failure(job: TrainJob, ended: ProcessEnd) -> HoldfastError:
    """What went wrong in the process; torchrun has an exit code of its own, so files say it."""
    log, oom = job.launch_folder / LOG, job.launch_folder / OOM
    if oom.is_file() or ended.code == OUT_OF_MEMORY or DIED_OF_MEMORY in ended.tail:
        said = noted(oom)
        return OutOfMemory(
            said.get("message", "memory ran out"),
            phase=said.get("phase", "forward"),
            where=said.get("where", ""),
            remedy=said.get("remedy", "let `holdfast plan` choose what fits"),
        )
    if (job.launch_folder / ERROR).is_file():
        return rebuilt(noted(job.launch_folder / ERROR))
    killed = ended.code == -SIGKILL or "Signal 9 (SIGKILL)" in ended.tail
    if killed and ended.starved:
        return OutOfMemory(
            "the training process was killed by the kernel for want of memory",
            phase="backward" if _began(job) else "load",
            where=str(log),
            remedy="free host memory, raise the container's limit, or let `holdfast plan` choose "
            "what fits; the same command continues from the last checkpoint",
        )
    if killed:
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


def _began(job: TrainJob) -> bool:
    """Whether a process had its model loaded: then it said how many steps there are."""
    with suppress(OSError):
        return '"total"' in (job.launch_folder / PROGRESS).read_text(encoding="utf-8")
    return False


def noted(file: Path) -> dict[str, Any]:
    """What a process wrote down before it ended; nothing where it had no time to."""
    try:
        return sealed.read(file, "")
    except Damaged:
        return {}


def rebuilt(noted: Mapping[str, object]) -> HoldfastError:
    """The error that a process wrote down."""
    kind = getattr(errors, str(noted.get("type")), TrainingError)
    message, where, remedy = (str(noted.get(key, "")) for key in ("message", "where", "remedy"))
    if not (isinstance(kind, type) and issubclass(kind, HoldfastError)):
        kind = TrainingError
    return kind(message, where=where, remedy=remedy)
