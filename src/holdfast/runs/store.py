"""Reads and writes the files of a run folder, so that a crash never leaves half a file.

Every write goes to a temporary name beside its target, is flushed to disk, and is renamed over it.
A finished stage is a folder that holds ``record.json``, written last; a folder without one does not
count. A *fingerprint* is the hash of the values that bear identity: equal fingerprint, same work.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from holdfast.errors import DataError, FolderError, RELATIVE
from holdfast.types import Example, Message, Reading, Reply, Verdict

RECORD = "record.json"
Row = TypeVar("Row", Example, Reply, Verdict, Reading)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: readers see the old file or the new one, never half."""
    _write(path, (text,))


def _write(path: Path, texts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(texts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON file; a broken one is a `DataError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"not valid JSON: {error}", where=str(path)) from error


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write one JSON value per line, atomically, as they come; dataclasses become objects."""
    _write(path, map(jsonl_line, rows))


def jsonl_line(row: object) -> str:
    """One row of a jsonl file, with its line end."""
    return json.dumps(row, ensure_ascii=False, default=_plain) + "\n"


def read_objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number, value) of a jsonl file; blank lines are passed over.

    Raises:
        DataError: the file is missing, not UTF-8, or a line is not JSON; the line is named.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        value = json.loads(line)
                        if "\\u" in line:  # half of a surrogate pair is no text
                            json.dumps(value, ensure_ascii=False).encode()
                        yield number, value
                    except UnicodeEncodeError as error:
                        raise DataError(
                            "holds half of a surrogate pair, which is no text",
                            where=f"{path}:{number}",
                            remedy="mend the \\\\u escape of this line",
                        ) from error
                    except json.JSONDecodeError as error:
                        raise DataError(
                            f"not valid JSON: {error.msg} at column {error.colno}",
                            where=f"{path}:{number}",
                            remedy="every line of a jsonl file is one JSON object; mend this line",
                        ) from error
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            remedy=f"check the path; {RELATIVE}",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=str(path), remedy="convert it") from error


def read_jsonl(path: Path, row: type[Row]) -> list[Row]:
    """Read rows that `write_jsonl` wrote."""
    return list(iterate_jsonl(path, row))


def iterate_jsonl(path: Path, row: type[Row]) -> Iterator[Row]:
    """Read rows that `write_jsonl` wrote, one at a time."""
    names = {one.name for one in fields(row)}
    return (_build(row, value, names) for _, value in read_objects(path))


def _build(row: type[Row], value: Mapping[str, Any], names: set[str]) -> Row:
    kept = {name: found for name, found in value.items() if name in names}
    if row is Example:
        kept["messages"] = tuple(Message(**message) for message in kept["messages"])
        kept["tools"] = tuple(kept.get("tools", ()))
    return row(**kept)


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, bool], ...]:
    """Names of a dataclass's fields, and whether each is left out where it is empty."""
    return tuple((one.name, "sparse" in one.metadata) for one in fields(kind))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {
            name: found
            for name, sparse in _fields(type(value))
            if (found := getattr(value, name)) or not sparse
        }
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def canonical(value: object) -> Any:
    """`value` as it will be after a round trip through JSON (tuples become lists)."""
    return json.loads(json.dumps(value, sort_keys=True, default=_plain))


def fingerprint(value: object) -> str:
    """A short hash of JSON values, independent of key order."""
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_rows(rows: Iterable[object]) -> str:
    """The `fingerprint` of a list whose entries may be JSON texts already (sorted keys)."""
    texts = (
        one if isinstance(one, str) else json.dumps(one, sort_keys=True, default=_plain)
        for one in rows
    )
    return hashlib.sha256(f"[{', '.join(texts)}]".encode()).hexdigest()[:16]


def fingerprint_file(path: Path) -> str:
    """A short hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def field_diff(old: object, new: object, prefix: str = "") -> list[str]:
    """The leaves in which two JSON values differ, one line each: ``train.lr: 1e-4 → 2e-4``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in sorted({*old, *new}):
            path = f"{prefix}.{key}" if prefix else str(key)
            lines += field_diff(old.get(key), new.get(key), path)
        return lines
    return [] if old == new else [f"{prefix}: {_brief(old)} → {_brief(new)}"]


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"
