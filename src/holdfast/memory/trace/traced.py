"""What does the user's real model take, by a trace of its own code under fake tensors?

The trace runs in its own process (`holdfast.memory.trace.trace`), on stacks of a few layers. The peak of
each phase of a step is linear in the layers, and piecewise linear in the batch, so a few traces
answer for every depth and batch. They are kept in a cache. When a trace is not possible the answer
says why, and the caller falls back to the formulas. This side needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from holdfast.memory.estimate.method_overhead import Logits
from holdfast.memory.estimate.workload import Variant
from holdfast.memory.memory_plan import Breakdown
from holdfast.runs import store

VERSION = 1
"""Of the trace itself; raised when its figures change."""
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
MAIN = "holdfast.memory.trace.trace"


@dataclass(frozen=True, slots=True)
class TraceJob:
    """What is traced: one process that trains (or answers with) one model.

    Attributes:
        config: content of the model's ``config.json``.
        seq: tokens in each example, the longest; padding included.
        method: `lora`, `qlora` (NF4, double quantisation) or `full`.
        device: whose kernels and allocator are meant; `cuda` is what a plan for a GPU wants, `cpu`
            is what can be checked here.
        phase: `train`, or `answer`: read `seq` tokens, then one more from the key-value cache.
        r: rank of the adapters.
        dropout: of the adapters.
        target_modules: PEFT's; a name such as `all-linear`, or names of modules.
        adapter_dtype: PEFT keeps float32 on a bfloat16 base, TRL turns a quantised base's into
            bfloat16.
        dtype: of the base weights (for `qlora`: of what is not quantised, and of the computation).
        autocast: the forward pass runs under bfloat16 autocast, as the trainer's ``bf16=True``.
        checkpointing: activations are recomputed, layer by layer (non-reentrant).
        attention: `auto` is what transformers chooses for this model.
        fused_loss: TRL's fused head; else the model's own loss on full logits.
        kbit_upcast: PEFT's `prepare_model_for_kbit_training` made what is not quantised float32.
        padded: rows are padded, so an explicit mask is built and keys and values are expanded.
        accumulate: gradients of an earlier micro-batch are alive in the forward pass.
        optimizer: the trainer's name of it.
        variant: of the adapters; see `holdfast.config.LoraSpec`.
        logits: see `holdfast.memory.estimate.method_overhead.Extra`. With `policy+reference` two micro-batches are
            traced: one whose whole logits are compared with the base's, and a plain one.
        positions: of each row at which they are, the last ones; 0: all.
    """

    config: Mapping[str, Any]
    seq: int
    method: Literal["lora", "qlora", "full"] = "lora"
    device: Literal["cuda", "cpu"] = "cuda"
    phase: Literal["train", "answer"] = "train"
    r: int = 16
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"
    adapter_dtype: Literal["float32", "bfloat16"] = "float32"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    autocast: bool = True
    checkpointing: bool = True
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    fused_loss: bool = True
    kbit_upcast: bool = False
    padded: bool = False
    accumulate: bool = True
    optimizer: str = "adamw_torch_fused"
    variant: Variant = "lora"
    logits: Logits = "none"
    positions: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One traced stack: its layers by kind, its batch, and each phase's peak by category."""

    kinds: Mapping[str, int]
    batch: int
    peaks: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Traced:
    """What was traced for one job.

    Attributes:
        job: the question.
        stack: the kind of every layer of the whole model, first to last.
        points: the traces: the smallest stack at several batches, then, at some of them, stacks
            with one more layer of one kind.
        seconds: how long they took.
        cached: they were read from the cache.
    """

    job: TraceJob
    stack: tuple[str, ...]
    points: tuple[Point, ...]
    seconds: float = field(default=0.0, compare=False)
    cached: bool = field(default=False, compare=False)

    def predict(self, layers: int | None = None, batch: int = 1) -> Breakdown:
        """The peak of one process: the largest of its phases' peaks.

        Args:
            layers: how many of the model's layers it holds; all of them when None.
            batch: examples per micro-batch.
        """
        return max(self.phases(layers, batch).values(), key=lambda one: one.total)

    def phases(self, layers: int | None = None, batch: int = 1) -> dict[str, Breakdown]:
        """The peak of every phase of a step: forward, loss, backward, optimiser."""
        stack = self.stack[: len(self.stack) if layers is None else layers]
        return {
            phase: Breakdown(**{name: self._bytes(phase, name, stack, batch) for name in parts})
            for phase, parts in self.points[0].peaks.items()
        }

    def _bytes(self, phase: str, name: str, stack: Sequence[str], batch: int) -> int:
        """One category's share of a phase's peak, for these layers and this batch."""

        def known(kinds: Mapping[str, int]) -> dict[int, int]:
            of_stack = [point for point in self.points if point.kinds == kinds]
            return {point.batch: point.peaks[phase][name] for point in of_stack}

        smallest = self.points[0].kinds
        base = known(smallest)
        total = _between(base, batch)
        for kind, count in smallest.items():
            larger = known({**smallest, kind: count + 1})
            adds = {one: value - base[one] for one, value in larger.items()}
            total += (stack.count(kind) - count) * _between(adds, batch)
        return max(0, round(total))


def _between(known: Mapping[int, int], batch: int) -> float:
    """The value at a batch, on the straight line through its traced neighbours."""
    pairs = list(pairwise(sorted(known)))
    low, high = next((pair for pair in pairs if batch <= pair[1]), pairs[-1])
    return known[low] + (known[high] - known[low]) / (high - low) * (batch - low)


@dataclass(frozen=True, slots=True)
class TraceFailed:
    """No trace of this job: the formulas have to answer.

    Attributes:
        job: the question.
        reason: why, in words.
    """

    job: TraceJob
    reason: str


def cache_folder() -> Path:
    """Where traces are kept unless the caller says otherwise."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "holdfast" / "traces"


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
    needed = [one for one in PACKAGES if one != "bitsandbytes"]
    if any(job.method == "qlora" for job in jobs):
        needed.append("bitsandbytes")
    if absent := [one for one in needed if one not in installed]:
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
