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
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import RELATIVE, DataError
from holdfast.runs import records, rows, sealed, temporary
from holdfast.runs.rows import Row

RECORD = records.RECORD
MODE = 0o666
"""Of new files, before the user's umask."""


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: readers see the old file or the new one, never half."""
    _write(path, (text,))


def _write(path: Path, texts: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary.beside(path)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            if path.is_file():
                os.chmod(part, stat.S_IMODE(path.stat().st_mode))
            file.writelines(texts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON file; a broken one is a `DataError` that names it.

    One of a finished stage is compared with the stage's record first, as by every reader here.
    """
    records.check_file(path)
    return sealed.load(path)


def read_value(path: Path, kind: type[Row]) -> Row:
    """The one dataclass in a JSON file.

    Raises:
        DataError: the file is broken, or holds something else.
    """
    return rows.as_row(kind, read_json(path), str(path))


def write_sealed(path: Path, value: Mapping[str, object]) -> None:
    """Write what `holdfast.runs.sealed.read` reads, atomically."""
    write_json(path, sealed.seal(canonical(value)))


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
        Damaged: a file of a finished stage is not as it was.
    """
    records.check_file(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _value(line, f"{path}:{number}")
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=str(path), remedy="convert it") from error
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            remedy=f"check the path; {RELATIVE}",
        ) from error


def _value(line: str, where: str) -> Any:
    try:
        return sealed.parse(line)
    except UnicodeEncodeError as error:
        raise DataError(
            "holds half of a surrogate pair, which is no text",
            where=where,
            remedy="mend the \\\\u escape of this line",
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"not valid JSON: {error.msg} at column {error.colno}",
            where=where,
            remedy="every line of a jsonl file is one JSON object; mend this line",
        ) from error
    except (ValueError, RecursionError) as error:
        what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"not valid JSON: {what}", where=where, remedy="mend this line") from error


def append_line(path: Path, row: object) -> None:
    """Add one row to a file that a run keeps while it is under way."""
    with path.open("a", encoding="utf-8") as file:
        file.write(jsonl_line(row))


def read_lines(path: Path) -> list[Any]:
    """The rows that `append_line` wrote, without a last one that a crash has torn; [] for no file.

    Raises:
        DataError: any other line is broken.
    """
    if not path.is_file():
        return []
    records.check_file(path)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return [_value(line, f"{path}:{n}") for n, line in enumerate(lines, 1) if line.strip()]


def read_jsonl(path: Path, row: type[Row]) -> list[Row]:
    """Read rows that `write_jsonl` wrote.

    Raises:
        DataError: see `read_objects`; or a row is of another shape, which is named.
    """
    return list(iterate_jsonl(path, row))


def iterate_jsonl(path: Path, row: type[Row]) -> Iterator[Row]:
    """Read rows that `write_jsonl` wrote, one at a time."""
    return (rows.as_row(row, value, path, number) for number, value in read_objects(path))


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


def field_diff(old: object, new: object, prefix: str = "") -> list[str]:
    """The leaves in which two JSON values differ, one line each: ``train.lr: 1e-4 → 2e-4``.

    Lists of one length are compared entry by entry; of long values the part that differs is shown.
    """
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines = []
        for key in sorted({*old, *new}):
            path = f"{prefix}.{key}" if prefix else str(key)
            lines += field_diff(old.get(key), new.get(key), path)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, pair in pairs for line in field_diff(*pair, f"{prefix}[{i}]")]
    texts = [json.dumps(value, ensure_ascii=False) for value in (old, new)]
    letters = enumerate(zip(*texts, strict=False))
    alike = next((i for i, pair in letters if len({*pair}) > 1), min(map(len, texts)))
    return [f"{prefix}: {' → '.join(_brief(text, alike) for text in texts)}"]


def _brief(text: str, alike: int) -> str:
    """80 characters of a text, from shortly before it stops being like the other one."""
    start = max(0, alike - 20) if alike > 60 else 0
    shown = "…" * (start > 0) + text[start:]
    return shown if len(shown) <= 80 else shown[:79] + "…"
