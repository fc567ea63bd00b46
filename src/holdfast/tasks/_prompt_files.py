"""Reads prompts that only measure from a file of any kind that is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from holdfast.data import containers
from holdfast.errors import DataError, printable


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
    """The rows of a file, numbered from 1; rows without a prompt are left out.

    Args:
        path: of the file.
        prompt: the column that holds the prompt.
        others: further columns that must be there.
        source: where the right file comes from, for messages.

    Raises:
        DataError: the file cannot be read, or lacks a column; the columns it has are named.
    """
    file, found = Path(path).expanduser(), []
    try:
        rows = list(containers.rows(file))
    except DataError as error:
        if not file.exists():
            error.remedy += f"; or download {source}"
        raise
    for number, (_, where, value) in enumerate(rows, start=1):
        if not isinstance(value, dict):
            raise DataError("is not a JSON object", where=where, remedy=f"use {source}")
        _check(value, (prompt, *others), where, source)
        row = {str(name): _text(one, name, where) for name, one in value.items()}
        if row[prompt].strip():
            found.append((number, row))
    return found


def _text(value: object, name: str, where: str) -> str:
    """A cell as text; a number is what it is written as.

    Raises:
        DataError: a list or an object.
    """
    if isinstance(value, list | dict):
        raise DataError(
            f"holds {'a list' if isinstance(value, list) else 'an object'} where text should be",
            where=f"{where}: {printable(str(name))}",
            remedy="write text",
        )
    return "" if value is None else str(value)


def _check(columns: Collection[str], needed: Sequence[str], where: str, source: str) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(
            f"has no column {', '.join(missing)} (its columns: {', '.join(columns) or 'none'})",
            where=where,
            remedy=f"use {source}",
        )
