"""Estimates activations by tracing the model's own code, or by formula where that cannot be done.

The trace runs in a process of its own (`holdfast.memory.trace.tracer`) under fake tensors; its
results are kept in a cache. When a trace is not possible the estimate says why and falls back to
the formulas. This side needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from holdfast import environment
from holdfast.memory.estimate.activations import (
    Activations,
    Aside,
    Estimate,
    Moment,
    activations,
    asides,
)
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.targets import PRESETS, is_pattern, names_of
from holdfast.memory.trace.trace_job import Point, Traced, TraceFailed, TraceJob
from holdfast.runs import store

VERSION = 2
"""Of the trace itself; raised when its figures change."""
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
MAIN = "holdfast.memory.trace.tracer"
LOSS = "loss"


@dataclass(frozen=True, slots=True)
class TracedActivations:
    """What a micro-batch takes, by trace; of what learns nothing, by formula."""

    traced: Traced
    micro_batch: int
    asides: tuple[Aside, ...] = ()

    def moments(self, layers: int, head: bool) -> Sequence[Moment]:
        """See `Activations.moments`: the peaks of the phases that such a process goes through."""
        phases = self.traced.phases(layers, self.micro_batch)
        found = [
            Moment(one.activations, one.logits if head else 0, one.workspace)
            for name, one in phases.items()
            if head or name != LOSS
        ]
        return found + [one.moment(layers, head) for one in self.asides]


@dataclass(frozen=True, slots=True)
class Estimates:
    """How activations are estimated for one plan.

    Attributes:
        estimate: for `make_plan`.
        source: `traced` or `formula`.
        note: why there is no trace although one was asked for, or what it does not cover; empty
            otherwise.
    """

    estimate: Estimate
    source: str
    note: str = ""


def estimates(
    shape: Shape,
    config: Mapping[str, object],
    work: Workload,
    trace: bool,
    cache: Path | None = None,
    device: Literal["cuda", "cpu"] = "cuda",
) -> Estimates:
    """Trace what a plan of this job needs, or fall back to the formulas and say why.

    Args:
        shape: the model.
        config: content of its ``config.json``.
        work: the job.
        trace: whether to try at all; needs torch, transformers, PEFT and TRL, no weights.
        cache: see `measure`.
        device: whose kernels run it.
    """
    if not trace:
        return Estimates(activations, "formula")
    if work.whole or work.tokens or (isinstance(work.target_modules, str)
                                     and is_pattern(work.target_modules)):  # fmt: skip
        why = "modules trained whole, or targets by a pattern, are not traced"
        return Estimates(activations, "formula", f"no trace: {why}")
    wanted = (True, False) if work.checkpointing is None else (work.checkpointing,)
    keys = [(method, recompute) for method in work.methods for recompute in wanted]
    results = measure([_job(shape, config, work, *key, device) for key in keys], cache)
    failed = [one for one in results if not isinstance(one, Traced)]
    if failed:
        return Estimates(activations, "formula", f"no trace: {failed[0].reason}")
    found: dict[tuple[str, bool], Traced] = {
        key: one for key, one in zip(keys, results, strict=True) if isinstance(one, Traced)
    }

    def estimate(
        shape: Shape, asked: Workload, method: str, micro_batch: int, checkpointing: bool
    ) -> Activations:
        traced = found.get((method, checkpointing))
        if traced is None or asked.seq_len != work.seq_len:  # a change that is being tried
            return activations(shape, asked, method, micro_batch, checkpointing)
        return TracedActivations(traced, micro_batch, asides(shape, asked, micro_batch))

    told = []
    if asides(shape, work, 1):
        told.append("answering in the training loop and reading the meters: by formula")
    if work.kernels:
        told.append("traced without Liger's kernels, which keep less")
    return Estimates(estimate, "traced", "; ".join(told))


def _job(
    shape: Shape,
    config: Mapping[str, object],
    work: Workload,
    method: str,
    checkpointing: bool,
    device: Literal["cuda", "cpu"],
) -> TraceJob:
    """What is traced for a workload; adapters on some layers are traced as if on all."""
    full = method == "full"
    targets = work.target_modules
    if targets in PRESETS:
        targets = tuple(sorted(names_of(shape, targets) or ()))
    return TraceJob(
        config=config,
        seq=work.seq_len,
        method=method,  # type: ignore[arg-type]
        device=device,
        r=work.rank,
        dropout=work.dropout,
        target_modules=targets,
        adapter_dtype=work.adapters(method == "qlora"),
        # float16 takes what bfloat16 takes, and loss scaling two numbers more
        dtype="bfloat16" if work.autocast and not full else "float32",
        autocast=work.autocast,
        checkpointing=checkpointing,
        attention="eager" if work.attention == "eager" else "auto",
        fused_loss=work.fused_loss,
        padded=not work.packed and work.padded and work.global_batch > 1 and work.micro_batch != 1,
        packed=work.packed and work.attention != "flash",  # which is told lengths, and has no mask
        optimizer=work.optim,
        variant="lora" if full else work.variant,
        logits=work.method_overhead.logits,
        positions=min(work.positions, work.seq_len) if work.method_overhead.reference else 0,
    )


def cache_folder() -> Path:
    """Where traces are kept unless the caller says otherwise."""
    return environment.cache_folder("traces")


def measure(
    jobs: Sequence[TraceJob], cache: Path | None = None, limit_s: float = 60.0
) -> list[Traced | TraceFailed]:
    """Trace every job that is not in the cache, in one other process.

    Args:
        jobs: what to trace.
        cache: folder of earlier traces; `cache_folder()` when None. One that cannot be written is
            done without.
        limit_s: after which it is ended; what it finished until then counts.

    Returns:
        One result for each job, in order; a failure is a result too.
    """
    folder = cache_folder() if cache is None else cache
    installed = versions()
    found: list[Traced | TraceFailed | None] = [_cached(folder, job, installed) for job in jobs]
    missing = [job for job, result in zip(jobs, found, strict=True) if result is None]
    fresh = iter(_run(missing, limit_s, installed) if missing else [])
    for place, result in enumerate(found):
        if result is None:
            result = found[place] = next(fresh)
            if isinstance(result, Traced):
                _keep(folder, result, installed)
    return [result for result in found if result is not None]


def versions() -> dict[str, str]:
    """Versions of what the figures depend on; a package that is not there is left out."""
    found = {"trace": str(VERSION)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _run(
    jobs: Sequence[TraceJob], limit_s: float, installed: Mapping[str, str]
) -> list[Traced | TraceFailed]:
    needed = [name for name in PACKAGES if name != "bitsandbytes"]
    if any(job.method == "qlora" for job in jobs):
        needed.append("bitsandbytes")
    if absent := [name for name in needed if name not in installed]:
        return [TraceFailed(job, f"{', '.join(absent)} not installed") for job in jobs]
    quiet = {
        "CUDA_VISIBLE_DEVICES": "",  # the trace is of the code; a GPU must not even be opened
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    reason = f"the trace took longer than {limit_s:g} s"
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", MAIN],
            input=json.dumps([asdict(job) for job in jobs]),
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=os.environ | quiet,
        )
        lines = done.stdout.splitlines()
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        reason = f"the trace's process ended with {done.returncode}: {last}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        lines = (output if isinstance(output, str) else output.decode()).splitlines(keepends=True)
        lines = [line for line in lines if line.endswith("\n")]
    except OSError as error:
        lines, reason = [], f"the trace's process could not be started: {error}"
    results = [_result(job, json.loads(line)) for job, line in zip(jobs, lines, strict=False)]
    return results + [TraceFailed(job, reason) for job in jobs[len(results) :]]


def _result(job: TraceJob, value: Mapping[str, Any], cached: bool = False) -> Traced | TraceFailed:
    if "reason" in value:
        return TraceFailed(job, value["reason"])
    points = tuple(Point(**one) for one in value["points"])
    return Traced(job, tuple(value["stack"]), points, value["seconds"], cached)


def _place(folder: Path, job: TraceJob, installed: Mapping[str, str]) -> Path:
    text = json.dumps([asdict(job), dict(installed)], sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _cached(folder: Path, job: TraceJob, installed: Mapping[str, str]) -> Traced | None:
    """The trace of an earlier plan; a file that cannot be read is as good as none."""
    try:
        value = json.loads(_place(folder, job, installed).read_text(encoding="utf-8"))
        result = _result(job, value, cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if isinstance(result, Traced) else None


def _keep(folder: Path, result: Traced, installed: Mapping[str, str]) -> None:
    value = {
        "stack": result.stack,
        "points": [asdict(point) for point in result.points],
        "seconds": result.seconds,
    }
    try:
        store.write_json(_place(folder, result.job, installed), value)
    except OSError:
        return  # a read-only home: the plan is as good, only slower next time
