"""Reads rows out of a file of whichever kind, which is told by its content, then by its name.

Parquet, Arrow and what is packed are told by their first bytes. A text is a table where its name
says so (.csv, .tsv), else JSON where it begins with ``[`` or ``{``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import cast

from holdfast.data.reading.files import READ, Row, Shape, kind_of
from holdfast.data.reading.texts import sample
from holdfast.errors import DataError

SUFFIXES = {
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow",
    ".ipc": "arrow",
}  # fmt: skip
"""The kind of file that a name's last part means."""
PACKED = (".gz", ".zst", ".zstd", ".bz2", ".xz")
READERS = {
    "json": "json_rows", "jsonl": "json_rows", "csv": "csv_rows", "tsv": "csv_rows",
    "parquet": "arrow_rows", "arrow": "arrow_rows",
}  # fmt: skip
"""By kind: the module whose `rows` reads it."""
MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}


def rows(path: Path, shape: Shape | None = None) -> Iterator[Row]:
    """The rows of one file, as they come.

    Args:
        path: of the file.
        shape: what the file does not say itself.

    Raises:
        DataError: no such file, none of the known kinds, torn, malformed or empty; names row and
            column, and which formats are read.
        MissingDependency: Parquet, Arrow or zstd without `pyarrow`.
    """
    if kind_of(path) == "folder":
        raise DataError(
            "is a folder, where a file is needed", where=str(path), remedy="name a file in it"
        )
    asked = shape or Shape()
    kind = asked.format or recognised(path)
    if kind not in READERS:
        raise DataError(
            "is one text as a whole, of which no row can be made",
            where=str(path),
            remedy=f"leave `format: text` out, or let a task of `kind: text` read it; {READ}",
        )
    read = cast(
        "Callable[[Path, Shape], Iterator[Row]]",
        import_module(f"holdfast.data.reading.{READERS[kind]}").rows,
    )
    found = False
    for row in read(path, Shape(kind, asked.field, asked.delimiter)):
        found = True
        yield row
    if not found:
        raise DataError("holds no rows", where=str(path), remedy=f"fill it; {READ}")


def recognised(path: Path) -> str:
    """The kind of a file, a key of `READERS`.

    Raises:
        DataError: none of the known.
    """
    first, packed = sample(path)
    for magic, kind in MAGIC.items():
        if first.startswith(magic):
            if packed:
                raise DataError(
                    f"is {kind} within {packed}",
                    where=str(path),
                    remedy=f"unpack it: {kind} is packed already; {READ}",
                )
            return kind
    named = suffix_kind(path)
    if named in ("csv", "tsv"):
        return named
    text = first.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    if text[:1] in (b"{", b"[") or named == "json":
        return "json"
    if named is not None:
        raise DataError(
            f"is named {path.suffix} and is something else",
            where=str(path),
            remedy=f"it may be torn: copy it again; {READ}",
        )
    what = "is empty" if not first else "is of no known kind"
    raise DataError(
        what,
        where=str(path),
        remedy=f"{READ}; where the name does not say which, `format` does: {{path: ..., format: "
        "csv}",
    )


def suffix_kind(path: Path) -> str | None:
    """The kind that a file's name says, that of its packing taken off; None: it says none."""
    suffixes = [one.lower() for one in path.suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None
