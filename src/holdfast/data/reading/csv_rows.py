"""Reads rows of a CSV or TSV: the first line names the columns, every cell is text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.data.reading.files import READ, Row, Shape
from holdfast.data.reading.texts import UNDECODED, lines
from holdfast.errors import DataError, printable

LONGEST, MOST_COLUMNS = 16_000_000, 10_000
"""Characters of a cell, and cells of a row; the library's own limit is too small for a document."""
OTHERS = {";": "';'", "\t": '"\\t"', "|": "'|'"}
"""What separates cells instead of a comma, as a study spells it."""


def rows(path: Path, shape: Shape) -> Iterator[Row]:
    """The rows of a table, from 1; blank lines are passed over.

    Args:
        path: of the file.
        shape: `format` and `delimiter` say what separates cells.

    Raises:
        DataError: no header, or a row that has not its cells; names row and column.
    """
    mark = shape.delimiter or ("\t" if shape.format == "tsv" else ",")
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    text = lines(path, newline="", column=lambda line: _column(path, line, mark))
    reader = csv.reader(text, delimiter=mark, strict=True)
    names: list[str] = []
    number, begun = 0, 1
    try:
        for cells in reader:
            where, begun = f"{path}:{begun}", reader.line_num + 1
            if not any(cell.strip() for cell in cells) and len(cells) < 2:
                continue
            if not names:
                names = _header(cells, mark, where)
                continue
            number += 1
            _check(cells, names, where)
            yield Row(number, where, dict(zip(names, cells, strict=True)))
    except csv.Error as error:
        quote = " (a quote that is opened here is never closed)" * ("end of data" in str(error))
        raise DataError(
            f"is no CSV: {error}{quote}",
            where=f"{path}:{begun}",
            remedy=f'write quotes within a cell twice, "", and the cell in quotes; {READ}',
        ) from error
    if not names:
        raise DataError(
            "is empty: no line names the columns", where=str(path), remedy=f"write a header; {READ}"
        )


def _header(cells: Sequence[str], mark: str, where: str) -> list[str]:
    """The names of the columns; one without a name is called as pandas calls it."""
    if len(cells) > MOST_COLUMNS:
        raise DataError(
            f"has {len(cells):,} columns", where=where, remedy=f"check what separates cells; {READ}"
        )
    if any("\0" in cell for cell in cells):
        raise DataError("holds NUL bytes", where=where, remedy=f"convert it to text; {READ}")
    if len(cells) == 1:
        for other, spelled in OTHERS.items():
            if other != mark and other in cells[0]:
                raise DataError(
                    f"has one column, {printable(cells[0][:60])!r}: its cells seem to be separated "
                    f"by {spelled}",
                    where=where,
                    remedy=f"write the source as {{path: ..., delimiter: {spelled}}}",
                )
    names = [cell.strip() or f"Unnamed: {index}" for index, cell in enumerate(cells)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"names the column {printable(twice[0])} twice",
            where=where,
            remedy="give every column a name of its own",
        )
    return names


def _check(cells: Sequence[str], names: Sequence[str], where: str) -> None:
    if len(cells) < len(names):
        lacks = printable(names[len(cells)])
        raise DataError(
            f"has {len(cells)} cells for {len(names)} columns, so {lacks} has none",
            where=f"{where}: {lacks}",
            remedy="fill the row up, or put cells that hold commas or line ends in quotes",
        )
    if len(cells) > len(names):
        raise DataError(
            f"has {len(cells)} cells for {len(names)} columns",
            where=f"{where}, column {len(names) + 1}",
            remedy="put cells that hold a comma or a line end in quotes",
        )
    for name, cell in zip(names, cells, strict=True):
        if "\0" in cell:
            raise DataError(
                "holds a NUL byte",
                where=f"{where}: {printable(name)}",
                remedy=f"the file is damaged, or no text: convert it; {READ}",
            )


def _column(path: Path, line: str, mark: str) -> str:
    """The column of the first cell of a line that is no text."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            names = next(csv.reader(file, delimiter=mark))
        cells = next(csv.reader([line], delimiter=mark))
    except (csv.Error, OSError, StopIteration):
        return ""
    bad = [index for index, cell in enumerate(cells) if UNDECODED.search(cell)]
    return (
        printable(names[bad[0]])
        if bad and bad[0] < len(names) and "\ufffd" not in names[bad[0]]
        else ""
    )
