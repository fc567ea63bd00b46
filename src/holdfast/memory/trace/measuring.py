"""Runs traces in another process, and keeps what came of them; needs no torch itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from holdfast import environment
from holdfast.memory.trace import answers
from holdfast.memory.trace.trace_job import Point, Traced, TraceFailed, TraceJob

VERSION = 3
"""Of the trace itself; raised when its figures change."""
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
MAIN = "holdfast.memory.trace.tracer"
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",  # it is all about code; a GPU must not even be opened
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment of the other process."""


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
    files = [answers.place(folder, asdict(job), installed) for job in jobs]
    found = [_cached(file, job, limit_s) for file, job in zip(files, jobs, strict=True)]
    missing = [job for job, result in zip(jobs, found, strict=True) if result is None]
    if absent := [name for name in _needed(missing) if name not in installed]:
        reason = f"{', '.join(absent)} not installed"
        return [one or TraceFailed(job, reason) for job, one in zip(jobs, found, strict=True)]
    fresh = iter(_run(missing, limit_s) if missing else [])
    for number, job in enumerate(jobs):
        if found[number] is None:
            value = next(fresh)
            found[number] = _result(job, value)
            answers.keep(files[number], value)
    return [result for result in found if result is not None]


def _needed(jobs: Sequence[TraceJob]) -> list[str]:
    """The packages that these traces take."""
    four_bits = any(job.method == "qlora" for job in jobs)
    return [name for name in PACKAGES if jobs and (four_bits or name != "bitsandbytes")]


def versions() -> dict[str, str]:
    """Versions of what the figures depend on; a package that is not there is left out."""
    found = {"trace": str(VERSION)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _run(jobs: Sequence[TraceJob], limit_s: float) -> list[dict[str, Any]]:
    """One answer for each job, in order."""
    failed = answers.failure(f"the trace took longer than {limit_s:g} s", limit_s)
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", MAIN],
            input=json.dumps([asdict(job) for job in jobs]),
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=os.environ | QUIET,
        )
        lines = done.stdout.splitlines()
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        failed = answers.failure(f"the trace's process ended with {done.returncode}: {last}")
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        lines = (output if isinstance(output, str) else output.decode()).splitlines(keepends=True)
        lines = [line for line in lines if line.endswith("\n")]
    except OSError as error:
        lines = []
        failed = answers.failure(f"the trace's process could not be started: {error}")
    results = [json.loads(line) for _, line in zip(jobs, lines, strict=False)]
    return results + [failed] * (len(jobs) - len(results))


def _result(job: TraceJob, value: Mapping[str, Any], cached: bool = False) -> Traced | TraceFailed:
    if "reason" in value:
        return TraceFailed(job, value["reason"])
    points = tuple(Point(**one) for one in value["points"])
    return Traced(job, tuple(value["stack"]), points, value["seconds"], cached)


def _cached(file: Path, job: TraceJob, limit_s: float) -> Traced | TraceFailed | None:
    """The trace of an earlier plan, or how it failed."""
    value = answers.read(file, limit_s)
    try:
        return None if value is None else _result(job, value, cached=True)
    except (KeyError, TypeError):
        return None
