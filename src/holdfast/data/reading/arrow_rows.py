"""Reads rows of Parquet and of Arrow, both as a file and as a stream.

Keys that a nested object has only because another row has them are left out: such files give every
object all keys, with nothing in most.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.data.reading.files import READ, Row, Shape, pyarrow
from holdfast.errors import DataError, first_line, printable

ROWS = 1024
"""Rows that are held at once."""
END = b"\xff\xff\xff\xff\0\0\0\0"
"""Of an Arrow stream."""


def rows(path: Path, shape: Shape) -> Iterator[Row]:
    """The rows of a table, from 1.

    Args:
        path: of the file.
        shape: `format` is ``parquet`` or ``arrow``.

    Raises:
        DataError: it is torn, or names a column twice.
        MissingDependency: `pyarrow` is not installed.
    """
    arrow = pyarrow(path)
    number = 0
    try:
        for batch in _batches(path, shape, arrow):
            for value in table_rows(batch):
                number += 1
                yield Row(number, f"{path}, row {number}", value)
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot be read as {shape.format}: {printable(first_line(error))}",
            where=f"{path}, row {number + 1}" if number else str(path),
            remedy=f"it is torn or of another kind: copy it again, or write it anew; {READ}",
        ) from error


def _batches(path: Path, shape: Shape, arrow: Any) -> Iterator[Any]:
    if shape.format == "parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(path) as file:
            _check(file.schema_arrow, path)
            yield from file.iter_batches(batch_size=ROWS)
        return
    import pyarrow.ipc

    with path.open("rb") as file:
        if file.read(6) == b"ARROW1":
            with pyarrow.ipc.open_file(path) as reader:
                _check(reader.schema, path)
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)
            return
        file.seek(max(0, path.stat().st_size - len(END)))
        ended = file.read() == END
        file.seek(0)
        with pyarrow.ipc.open_stream(file) as reader:
            _check(reader.schema, path)
            yield from reader
        if not ended:
            raise DataError(
                "breaks off: the end of the stream is missing",
                where=str(path),
                remedy="copy or download it again",
            )


def _check(schema: Any, path: Path) -> None:
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise DataError(
            f"names the column {printable(twice[0])} twice",
            where=str(path),
            remedy="give every column a name of its own",
        )


def table_rows(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch or table of Arrow's as JSON would hold them."""
    readers = {
        one.name: reader for one in batch.schema if (reader := _reader(one.type)) is not None
    }
    for start in range(0, batch.num_rows, ROWS):
        for row in batch.slice(start, ROWS).to_pylist():
            for name, reader in readers.items():
                row[name] = reader(row[name])
            yield row


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    """What makes a value of a nested type what it was in JSON; None: it is so already."""
    import pyarrow.types as types

    if getattr(kind, "extension_name", "") == "arrow.json":
        return lambda value: json.loads(value) if isinstance(value, str) else value
    if types.is_struct(kind):
        inner = {field.name: _reader(field.type) for field in kind}

        def plain(value: Any) -> Any:
            return value and {
                key: one if (reader := inner.get(key)) is None else reader(one)
                for key, one in value.items()
                if one is not None
            }

        return plain
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        each = _reader(kind.value_type)
        return None if each is None else lambda value: value and [each(one) for one in value]
    if types.is_map(kind):
        return lambda value: value and dict(value)
    return None
