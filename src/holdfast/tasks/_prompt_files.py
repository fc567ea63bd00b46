"""Reads prompts that only measure from a table, a csv or a jsonl."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from holdfast.errors import RELATIVE, DataError
from holdfast.runs import store


def never_trained_on(split: str, where: str) -> None:
    """Refuse to give out prompts for training.

    Raises:
        DataError: the split is `train`.
    """
    if split == "train":
        raise DataError(
            "these prompts measure and are never trained on",
            where=where,
            remedy="give the task `role: retained`",
        )


def read_rows(
    path: str, prompt: str, others: Sequence[str], source: str
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a csv or jsonl, numbered from 1; rows without a prompt are left out.

    Args:
        path: of the file; one that ends in ``.jsonl`` is read as such, others as csv.
        prompt: the column that holds the prompt.
        others: further columns that must be there.
        source: where the right file comes from, for messages.

    Raises:
        DataError: the file cannot be read, or lacks a column; the columns it has are named.
    """
    file, needed = Path(path).expanduser(), (prompt, *others)
    read = _jsonl if file.suffix.lower() in (".jsonl", ".json") else _csv
    try:
        rows = enumerate(read(file, needed, source), start=1)
        return [(number, row) for number, row in rows if row[prompt].strip()]
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}",
            where=str(file),
            remedy=f"check the path, or download {source}; {RELATIVE}",
        ) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"is not a CSV file: {error}", where=str(file)) from error


def _csv(file: Path, needed: Sequence[str], source: str) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        _check(reader.fieldnames or (), needed, str(file), source)
        for row in reader:
            yield {str(name): str(value or "") for name, value in row.items()}


def _jsonl(file: Path, needed: Sequence[str], source: str) -> Iterator[dict[str, str]]:
    for number, value in store.read_objects(file):
        if not isinstance(value, dict):
            raise DataError(
                "is not a JSON object", where=f"{file}:{number}", remedy="mend this line"
            )
        _check(value, needed, f"{file}:{number}", source)
        yield {str(name): "" if one is None else str(one) for name, one in value.items()}


def _check(columns: Collection[str], needed: Sequence[str], where: str, source: str) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(
            f"has no column {', '.join(missing)} (its columns: {', '.join(columns) or 'none'})",
            where=where,
            remedy=f"use {source}",
        )
