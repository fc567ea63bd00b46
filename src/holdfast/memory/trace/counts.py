"""Asks a model's own class for its parameters and matrices, and keeps what it said.

The class is built in a process of its own; this side needs no torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from holdfast import environment
from holdfast.memory.model.catalogue import Found
from holdfast.memory.trace import answers
from holdfast.memory.trace.measuring import QUIET, versions

COUNTER = "holdfast.memory.trace.class_counter"
COUNT_VERSION = 2
"""Of what it answers; raised when that changes."""
LIMIT_S = 180.0
"""After which a counting process is ended."""


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
    file = _count_file(found, cache)
    # Code that was brought may change under the same config.
    kept = None if own else answers.read(file)
    if kept is not None and ("total" in kept or answers.REASON in kept):
        return kept
    absent = [name for name in ("torch", "transformers") if name not in versions()]
    if absent:
        return {answers.REASON: f"{', '.join(absent)} not installed"}
    value = _asked(question)
    if not own and not value.get(answers.LIMIT):  # without it there is no plan: tried again
        answers.keep(file, value)
    return value


def kept_parts(found: Found, cache: Path | None = None) -> Mapping[str, object] | None:
    """What `class_parts` was told before; None: it was not asked, or could not be."""
    kept = answers.read(_count_file(found, cache))
    return kept if kept is not None and "total" in kept else None


def _count_file(found: Found, cache: Path | None) -> Path:
    folder = environment.cache_folder("counts") if cache is None else cache
    return answers.place(folder, found.config, versions(), COUNTER, COUNT_VERSION)


def _asked(question: Mapping[str, object]) -> dict[str, object]:
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", COUNTER],
            input=json.dumps(question), capture_output=True, text=True, timeout=LIMIT_S,
            env=os.environ | QUIET,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return answers.failure(f"counting took longer than {LIMIT_S:g} s", LIMIT_S)
    except OSError as error:
        return answers.failure(f"the counting process could not be started: {error}")
    try:
        value: dict[str, object] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return answers.failure(f"the counting process ended with {done.returncode}: {last[:300]}")
    return value
