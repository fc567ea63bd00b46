"""Keeps what other processes answered, failures too, so that nobody waits for the same twice.

A failure of the model's own code is kept as long as the versions that it was asked with. One that
another moment may not see (no time, no memory, a package that is not there) is believed for an
hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

from holdfast.runs import store

BELIEVED_S = 3600.0
"""How long a passing failure counts."""
REASON, PASSING, LIMIT = "reason", "passing", "limit_s"


def place(folder: Path, *question: object) -> Path:
    """The file of the answer to a question; all that the answer depends on belongs to it."""
    text = json.dumps(question, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def failure(reason: str, limit_s: float = 0.0) -> dict[str, object]:
    """An answer that is none, for a reason that may pass; after how many seconds, if that is it."""
    return {REASON: reason, PASSING: True, LIMIT: limit_s}


def read(file: Path, limit_s: float = 0.0) -> dict[str, object] | None:
    """The answer in a file; None: there is none, or it is to be asked for again.

    Args:
        file: see `place`.
        limit_s: how long an answer would be waited for; one that failed in less is asked for again.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        age_s = time.time() - file.stat().st_mtime
    except (OSError, ValueError, RecursionError):
        return None  # a file that cannot be read is as good as none
    if not isinstance(value, dict):
        return None
    if value.get(PASSING):
        waited = value.get(LIMIT)
        short = isinstance(waited, int | float) and 0 < waited < limit_s
        if short or age_s > BELIEVED_S:
            return None
    return value


def keep(file: Path, value: Mapping[str, object]) -> None:
    """Write an answer; where that cannot be done it is asked for again next time."""
    with contextlib.suppress(OSError):
        store.write_json(file, dict(value))
