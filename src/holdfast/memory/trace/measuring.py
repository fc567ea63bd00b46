"""Runs traces and counts in other processes, and keeps what came of them; needs no torch itself."""

from __future__ import annotations

import contextlib
import hashlib
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
from holdfast.memory.model.catalogue import Found
from holdfast.memory.trace.trace_job import Point, Traced, TraceFailed, TraceJob
from holdfast.runs import store

VERSION = 3
"""Of the trace itself; raised when its figures change."""
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
MAIN = "holdfast.memory.trace.tracer"
COUNTER = "holdfast.memory.trace.class_counter"
LIMIT_S = 60.0
"""After which a counting process is ended."""
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
    reason = f"the trace took longer than {limit_s:g} s"
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


def class_parts(
    found: Found, revision: str | None, own: bool, cache: Path | None
) -> Mapping[str, object]:
    """The matrices that a model's own class has, or the `reason` why it does not say them.

    Args:
        found: its config.json.
        revision: of the hub's repository.
        own: by the Python code that it brings, which is run.
        cache: folder of earlier counts; None: the usual one.
    """
    file = Path(found.source)
    question = {
        "model": str(file.parent) if file.is_file() else found.name,
        "revision": revision, "config": found.config, "trust": own,
    }  # fmt: skip
    folder = environment.cache_folder("counts") if cache is None else cache
    key = json.dumps([question["config"], versions(), COUNTER], sort_keys=True)
    place = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if not own:  # code that was brought may change under the same config
        try:
            kept = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = None
        if isinstance(kept, dict) and "total" in kept:
            return kept
    value = _asked(question)
    if not own and "reason" not in value:
        with contextlib.suppress(OSError):  # a read-only home: as good, only slower next time
            store.write_json(place, value)
    return value


def _asked(question: Mapping[str, object]) -> dict[str, object]:
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", COUNTER],
            input=json.dumps(question), capture_output=True, text=True, timeout=LIMIT_S,
            env=os.environ | QUIET,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"reason": f"counting took longer than {LIMIT_S:g} s"}
    except OSError as error:
        return {"reason": f"the counting process could not be started: {error}"}
    try:
        value: dict[str, object] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"reason": f"the counting process ended with {done.returncode}: {last[:300]}"}
    return value
