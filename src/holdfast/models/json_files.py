"""Reads the JSON files of models and adapters; whatever may be wrong with one is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.errors import ModelError

LFS = b"version https://git-lfs"
AGAIN = "the file is damaged or was not downloaded whole: fetch it again"
PULL = "it is only a pointer: run `git lfs pull` in the folder, or fetch it with `hf download`"

MOST_BYTES, MOST_OBJECTS = 100_000_000, 3_000_000
"""The largest vocabularies and indexes have a third of it."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file of a model holds.

    Raises:
        ModelError: it cannot be read, is a git-lfs pointer, no UTF-8, no JSON or no object.
    """
    where = str(path)
    try:
        if path.exists() and not path.is_file():
            raise ModelError("is no regular file", where=where, remedy="put the file itself there")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ModelError(
                f"has {size:,} bytes, and no such file has more than {MOST_BYTES:,}",
                where=where,
                remedy=AGAIN,
            )
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot be read: {error.strerror}", where=where, remedy="fetch it again"
        ) from error
    if raw.startswith(LFS):
        raise ModelError("is a git-lfs pointer", where=where, remedy=PULL)
    if raw.count(b"{") + raw.count(b"[") > MOST_OBJECTS:
        raise ModelError(f"holds more than {MOST_OBJECTS:,} objects", where=where, remedy=AGAIN)
    try:
        found = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ModelError("is not UTF-8 text", where=where, remedy=AGAIN) from error
    except (ValueError, RecursionError) as error:
        place = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        said = "is empty" if not raw.strip() else f"is not whole or not JSON{place}"
        raise ModelError(said, where=where, remedy=AGAIN) from error
    if not isinstance(found, dict):
        raise ModelError(
            f"is no JSON object, but {json.dumps(found)[:40]}", where=where, remedy=AGAIN
        )
    return found
