"""Trains under a memory plan and, when memory runs out, goes on under the next one.

Out of memory is an answer, not a crash: the next plan starts in a fresh process and goes on from
the last complete checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from holdfast.errors import OutOfMemory
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.train.job import EVENTS, OOM, TrainJob
from holdfast.train.launch.torchrun import Build, command, launch

Event = Mapping[str, Any]
"""One time that memory ran out: phase, message, plan, and what was tried next."""
NextPlan = Callable[[MemoryPlan, Event], MemoryPlan | None]


def train(
    job: TrainJob,
    plan: MemoryPlan,
    progress: Progress,
    next_plan: NextPlan,
    events: list[dict[str, Any]],
    *,
    here: Callable[[TrainJob, Progress], Mapping[str, Any]],
    build: Build = command,
) -> dict[str, Any]:
    """Train as planned; when memory runs out, go on from the last checkpoint with the next plan.

    Args:
        job: what to train.
        plan: the first plan.
        progress: follows the training, wherever it runs.
        next_plan: what to try after a plan and its event; None: give up.
        events: gets every event: one that a process mended itself, and every change of plan.
        here: trains in this process; for plans that need no GPU.
        build: see `torchrun.Build`.

    Returns:
        What `fit.fit` returns.

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
                summary = launch(replace(job, plan=plan), plan, progress, build)
        except OutOfMemory as error:
            known = _collect(job, events, known)
            event = _event(job, plan, error)
            new = next_plan(plan, event)
            event["to"] = None if new is None else _brief(new)
            with (job.folder / EVENTS).open("a", encoding="utf-8") as file:
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


def _event(job: TrainJob, plan: MemoryPlan, error: OutOfMemory) -> dict[str, Any]:
    path = job.launch_folder / OOM
    noted = store.read_json(path) if plan.placement != "cpu" and path.is_file() else {}
    return {
        "phase": error.phase,
        "message": error.message,
        "from": _brief(plan),
        "predicted_bytes": max((one.total for one in plan.predicted), default=None),
        "allocated_bytes": noted.get("allocated_bytes"),
        "reserved_bytes": noted.get("reserved_bytes"),
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


def _count(job: TrainJob) -> int:
    path = job.folder / EVENTS
    return sum(1 for _ in store.read_objects(path)) if path.is_file() else 0


def _collect(job: TrainJob, events: list[dict[str, Any]], known: int) -> int:
    """Append what the file has beyond `known` lines; returns how many it has."""
    path = job.folder / EVENTS
    lines = [value for _, value in store.read_objects(path)] if path.is_file() else []
    events += lines[known:]
    return len(lines)
