"""JSON files that cannot be wrong unnoticed: read within bounds, sealed with their own digest.

A seal guards against accidents (a torn write, a flipped bit, a careless edit), not against whoever
means harm and can seal anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import Damaged, DataError

SEAL = "seal"
LARGEST_BYTES = 128 << 20
"""Of a JSON file that is read as a whole; rows of a jsonl are read one at a time."""


def load(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        DataError: it is missing, no file, too large, not UTF-8, no JSON, or nested too deeply.
    """
    try:
        if not path.is_file():
            raise DataError("is not there, or is no file", where=str(path))
        if (size := path.stat().st_size) > LARGEST_BYTES:
            raise DataError(f"is {size >> 20} MiB long, more than can be right", where=str(path))
        return parse(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except RecursionError as error:
        raise DataError("not valid JSON: nested too deeply", where=str(path)) from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"not valid JSON: {error}", where=str(path)) from error


def parse(data: str | bytes) -> Any:
    """One JSON value.

    Raises:
        ValueError: no JSON, no UTF-8, a number of thousands of digits, or half a surrogate pair.
        RecursionError: nested too deeply.
    """
    text = data.decode() if isinstance(data, bytes) else data
    value = json.loads(text)
    if "\\u" in text:  # half of a surrogate pair is no text
        json.dumps(value, ensure_ascii=False).encode()
    return value


def digest(value: object) -> str:
    """Of JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def seal(value: Mapping[str, object]) -> dict[str, object]:
    """An object with its seal; `value` as it comes back from JSON."""
    return {**value, SEAL: digest(value)}


def unseal(value: object, path: Path, remedy: str) -> dict[str, Any]:
    """An object without its seal, where it has one: files of older versions have none.

    Args:
        value: what `load` gave.
        path: of the file.
        remedy: what to do about a broken one.

    Raises:
        Damaged: no object, or the seal does not fit.
    """
    if not isinstance(value, Mapping):
        raise Damaged("is not a JSON object", where=str(path), remedy=remedy)
    found = dict(value)
    said = found.pop(SEAL, None)
    if said is not None and said != digest(found):
        raise Damaged("was changed after it was written", where=str(path), remedy=remedy)
    return found


def read(path: Path, remedy: str) -> dict[str, Any]:
    """The object in a sealed file; one without a seal is taken as it is.

    Raises:
        Damaged: it cannot be read, is no object, or its seal does not fit.
    """
    try:
        value = load(path)
    except DataError as error:
        raise Damaged(error.message, where=str(path), remedy=remedy) from error
    return unseal(value, path, remedy)


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks, once per process and state of the file."""
    found = path.stat()
    return _digest_of_file(str(path), found.st_size, found.st_mtime_ns, found.st_ino)


@functools.lru_cache(maxsize=1 << 16)
def _digest_of_file(path: str, size: int, changed_ns: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
