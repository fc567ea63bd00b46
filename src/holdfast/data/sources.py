"""Reads the sources that a study names: columns renamed, shares drawn, every column accounted for.

Shares are of the whole that results. A source with neither `share` nor `count` is taken whole, one
with `count` gives so many rows; beside them, sources with a share are drawn until each makes up its
share of everything. Where every source has a share, they add up to 1, and the whole is as large as
it can be without taking a row twice. Rows are drawn by seed and keep their order.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from holdfast.config.data import SourceSpec
from holdfast.data import containers, folders, hub
from holdfast.data.reading.arrow_rows import table_rows
from holdfast.data.reading.files import NAMES, Row, Shape, kind_of
from holdfast.errors import DataError, StudyError, printable
from holdfast.registry import nearest
from holdfast.types import FieldUse, SourceUse

IGNORED = "ignored"


@dataclass(frozen=True)
class Source:
    """One source, open for reading.

    Attributes:
        spec: what the study says.
        split: what its rows are for.
        label: what it is called in tables: its last two names, of a set its split as well.
        name: its last name.
        columns: by the known name, the file's own.
        notes: what a reader must know; filled while it is read.
    """

    spec: SourceSpec
    split: str
    label: str
    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rows(self) -> Generator[Row, None, None]:
        """All rows, their columns renamed; several files are numbered through.

        Raises:
            DataError: see `containers.rows`; or a row without a column that the study names.
        """
        for row in self._read():
            yield row if not self.columns else row._replace(value=self._renamed(row))

    def _read(self) -> Iterator[Row]:
        spec = self.spec
        if spec.hub is not None:
            table = hub.table(spec.hub, spec.config, spec.split or self.split, spec.revision)
            for number, value in enumerate(table_rows(table), start=1):
                yield Row(number, f"{spec.hub}, row {number}", value)
            return
        path = Path(spec.path or "").expanduser()
        shape = Shape(spec.format, spec.field, spec.delimiter)
        if kind_of(path) == "file":
            if spec.config or spec.split:
                raise StudyError(
                    "is a file, which has neither splits nor configurations",
                    where=str(path),
                    remedy="leave `split` and `config` out, or name its folder",
                )
            yield from containers.rows(path, shape)
            return
        files, notes = folders.files_of(path, spec.split or self.split, spec.config)
        self.notes.extend(notes)
        numbers = count(1)
        for file in files:
            for row in containers.rows(file, shape):
                yield row._replace(number=next(numbers)) if len(files) > 1 else row

    def _renamed(self, row: Row) -> Any:
        if not isinstance(row.value, dict):
            return row.value
        rest = _without(row.value, self.columns.values())
        return rest | {known: _found(row, known, theirs) for known, theirs in self.columns.items()}


def opened(
    specs: Sequence[SourceSpec], split: str, columns: Mapping[str, str] | None = None
) -> list[Source]:
    """The sources of a list.

    Args:
        specs: as the study has them.
        split: what the rows are for.
        columns: of all sources; a source's own win.
    """
    found: list[Source] = []
    for spec in specs:
        parts = Path(spec.path).parts[-2:] if spec.path else (spec.hub or "").split("/")
        label = printable("/".join(part.strip("/") for part in parts))
        if spec.config:
            label += f" ({spec.config})"
        if spec.hub or os.path.isdir(os.path.expanduser(spec.path or "")):
            label += f", split {printable(spec.split or split)}"
        name, again = printable(parts[-1]), 2
        while any(one.name == name for one in found):
            name, again = f"{printable(parts[-1])}#{again}", again + 1
        found.append(Source(spec, split, label, name, {**(columns or {}), **spec.columns}))
    return found


def _found(row: Row, known: str, theirs: str) -> Any:
    """The value of a column; a dotted name leads into objects and lists."""
    if theirs in row.value:
        return row.value[theirs]
    value: Any = row.value
    for key in theirs.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            has = list(map(str, value)) if isinstance(value, dict) else []
            raise DataError(
                f"has no column {printable(theirs)} to read as {printable(known)}"
                f"{nearest(key, has)} (it has: {printable(', '.join(has)) or 'nothing there'})",
                where=f"{row.where}: {printable(theirs)}",
                remedy=f"correct `columns`; {NAMES}",
            )
    return value


def _without(row: Mapping[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """A row without some columns; what is left of an object keeps its dotted name."""
    rest = dict(row)
    for name in taken:
        head, dot, inner = name.partition(".")
        if name in rest:
            del rest[name]
        elif dot and isinstance(value := rest.get(head), dict | list):
            del rest[head]
            parts = value if isinstance(value, dict) else dict(enumerate(value))
            left = _without({str(key): one for key, one in parts.items()}, [inner])
            rest |= {f"{head}.{key}": one for key, one in left.items()}
    return rest


class Usage:
    """Counts what became of the columns of one source."""

    def __init__(self, source: Source) -> None:
        """Count nothing yet."""
        self._source = source
        self._rows: Counter[tuple[frozenset[str], frozenset[str]]] = Counter()

    def count(self, used: frozenset[str], ignored: frozenset[str]) -> None:
        """Count one row, both by known names."""
        self._rows[used, ignored] += 1

    def fields(self) -> list[FieldUse]:
        """One entry for each column and use.

        Raises:
            DataError: a column that the study renames is not one that is read.
        """
        columns = self._source.columns
        counts: Counter[tuple[str, str]] = Counter()
        for (used, ignored), rows in self._rows.items():
            counts.update({(key, key): rows for key in used})
            counts.update({(key, IGNORED): rows for key in ignored})
        for known, theirs in columns.items():
            uses = {use for key, use in counts if key == known}
            if uses == {IGNORED}:
                raise DataError(
                    f"columns: {printable(known)} is no column that is read in these rows, so "
                    f"{printable(theirs)} would be ignored",
                    where=self._source.label,
                    remedy=f"correct the name, or leave it out; {NAMES}",
                )
        return [
            FieldUse(self._source.label, printable(columns.get(key, key)), use, rows)
            for (key, use), rows in sorted(counts.items())
        ]


def notices(fields: Iterable[FieldUse], sources: Iterable[SourceUse]) -> list[str]:
    """What whoever reads the figures must know of the data: a sentence for each ignored column."""
    ignored = [
        f"{one.source}: column `{one.column}` is ignored ({one.rows} rows)"
        for one in fields
        if one.use == IGNORED
    ]
    return list(dict.fromkeys([*ignored, *(note for one in sources for note in one.notes)]))


def drawn(sources: Sequence[Source], rows: Sequence[int], seed: int) -> list[list[int]]:
    """Which rows of each source are taken, in order.

    Args:
        sources: of one list.
        rows: that each has.
        seed: of the drawing.

    Raises:
        DataError: a source has fewer rows than its share or count asks for; says what would do.
        StudyError: shares that cannot be.
    """
    numbers = [
        _number(source, there, wanted)
        for source, there, wanted in zip(sources, rows, _wanted(sources, rows), strict=True)
    ]
    return [
        sorted(random.Random(f"{seed}:{position}").sample(range(there), number))
        for position, (there, number) in enumerate(zip(rows, numbers, strict=True))
    ]


def _number(source: Source, there: int, wanted: int) -> int:
    if not there:
        raise DataError(
            "holds nothing to take: no rows, or only empty ones",
            where=source.label,
            remedy="name another file, or leave the source out",
        )
    if wanted < 1:
        raise DataError(
            f"a share of {source.spec.share:g} comes to no row at all",
            where=source.label,
            remedy="raise `share`, or leave the source out",
        )
    if wanted > there:
        share = source.spec.share
        why = f"a share of {share:g} is {wanted} rows" if share else f"`count` asks for {wanted}"
        raise DataError(
            f"has {there} rows, and {why}; none is taken twice",
            where=source.label,
            remedy="lower it, or lower what the other sources give (`count`)",
        )
    return wanted


def _wanted(sources: Sequence[Source], rows: Sequence[int]) -> list[int]:
    """How many rows each source gives, whether it has them or not."""
    shares = [source.spec.share or 0.0 for source in sources]
    fixed = [
        0 if source.spec.share else source.spec.count or there
        for source, there in zip(sources, rows, strict=True)
    ]
    total = sum(shares)
    if not total:
        return fixed
    open_share = 1 - total
    if sum(fixed) and open_share < 1e-9:
        raise StudyError(
            f"the shares add up to {total:g}, which leaves nothing for the sources without one",
            where=", ".join(source.label for source in sources),
            remedy="lower the shares, or give every source one",
        )
    if not sum(fixed) and abs(open_share) > 1e-6:
        raise StudyError(
            f"every source has a share, and they add up to {total:g}, not 1",
            where=", ".join(source.label for source in sources),
            remedy="make them add up to 1, or leave one out: it is then taken whole",
        )
    if sum(fixed):
        whole = sum(fixed) / open_share
        return [
            round(share * whole) if share else number
            for share, number in zip(shares, fixed, strict=True)
        ]
    whole = min(there / share for share, there in zip(shares, rows, strict=True))
    return [min(there, round(share * whole)) for share, there in zip(shares, rows, strict=True)]
