"""Whole texts, each a document: out of text files, folders of them, and the `text` of rows.

A file whose name ends in one of `SUFFIXES` is one document (or several, where a separator is
given); so is every such file of a folder, however deep, unless the folder holds files of rows too.
Of rows of all other kinds, the column `text` is read. Documents of nothing but blanks are left out
and counted; all others are kept as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from holdfast.data.cells import Cells, kind, text
from holdfast.data.containers import PACKED, suffix_kind
from holdfast.data.reading.files import kind_of
from holdfast.data.reading.texts import lines
from holdfast.data.sources import Source, Usage
from holdfast.errors import DataError, StudyError, printable, printable_json
from holdfast.types import FieldUse

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".tex")
"""Of files that are texts as a whole."""
COLUMN = "text"
LINE_END = r"(?:\r\n|\r(?!\n)|(?<!\r)\n)"


@dataclass(frozen=True, slots=True)
class Document:
    """One text."""

    name: str  # of its file below the folder, or the id of its row; unique within its source
    text: str  # as it stands; never blank


Found = tuple[list[Document], list[FieldUse]]
"""Documents, and what became of the columns that they stood in."""


def read(source: Source, split: str, separator: str | None) -> Found:
    """All documents of one source.

    Args:
        source: of the study; its `notes` get what a reader must know.
        split: which the names of rows without an id begin with.
        separator: where a text file is divided into documents, which do not hold it; line breaks
            in it stand for those of the file.

    Raises:
        DataError: see `containers.rows`; a row without text, or two of one id.
    """
    files = _text_files(source)
    found, fields = _of_rows(source, split) if files is None else (_of_files(files, separator), [])
    if separator is not None and (files is None or len(found) == len(files)):
        source.notes.append(f"{source.label}: {_undivided(separator, files is None)}")
    kept = [one for one in found if one.text and not one.text.isspace()]
    if gone := len(found) - len(kept):
        source.notes.append(f"{source.label}: {gone} empty documents are left out")
    return kept, fields


def _text_files(source: Source) -> list[tuple[str, Path]] | None:
    """The names and paths of a source's text files; None: it has rows."""
    spec = source.spec
    if spec.path is None:
        return None
    path = Path(spec.path).expanduser()
    if kind_of(path) == "file":
        alone = spec.format == "text" or (spec.format is None and is_text(path))
        found = [(printable(path.name), path)] if alone else None
    else:
        every = list(_walk(path)) if spec.format in (None, "text") else []
        texts = [one for one in every if is_text(one)]
        rows = any(suffix_kind(one) for one in every)
        if spec.format == "text" and not texts:
            ends = f"text files end in {', '.join(SUFFIXES)}"
            raise DataError("holds no text file", where=str(path), remedy=ends)
        mixed = rows and spec.format is None
        if texts and mixed:
            names = ", ".join(printable(one.name) for one in texts[:4])
            source.notes.append(
                f"{source.label}: {len(texts)} text files are not read, since the folder holds "
                f"files of rows ({names}); `format: text` reads them instead"
            )
        named = [(printable(str(one.relative_to(path))), one) for one in texts]
        found = named if texts and not mixed else None
    if found is not None and (spec.config or spec.split or spec.field or source.columns):
        raise StudyError(
            "holds texts as a whole, which have no split, configuration, field or columns",
            where=str(path),
            remedy="leave those out, and name the folder or file that is meant as `path`",
        )
    return found


def is_text(path: Path) -> bool:
    """Whether a file's name, that of its packing taken off, says that it is a text as a whole."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name.endswith(SUFFIXES)


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in the order of the names; what is hidden is passed over."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        elif path.is_file():
            yield path


def _of_files(files: list[tuple[str, Path]], separator: str | None) -> list[Document]:
    found: list[Document] = []
    for name, path in files:
        whole = "".join(lines(path, newline=""))
        text(whole, str(path))  # no NUL, no half characters
        parts = [whole] if separator is None else _between(separator).split(whole)
        names = [name] if len(parts) == 1 else [f"{name}#{n}" for n in range(1, len(parts) + 1)]
        found += map(Document, names, parts)
    return found


def _between(separator: str) -> re.Pattern[str]:
    """A separator, however the lines of a file end; no half of a line end is taken for one."""
    return re.compile(LINE_END.join(map(re.escape, re.split(r"\r\n|\r|\n", separator))))


def _undivided(separator: str, rows: bool) -> str:
    """Why a separator has divided nothing."""
    if rows:
        return "`separator` is not used, since each row is a document; it divides text files"
    said = f"`separator` {printable_json(separator)} occurs in no file, so each is one document"
    if "\\" not in separator:
        return said
    return f"{said} (a line break is written in double quotes)"


def _of_rows(source: Source, split: str) -> Found:
    found, usage, places = list[Document](), Usage(source), dict[str, str]()
    with closing(source.rows()) as rows:
        for number, where, row in rows:
            if not isinstance(row, dict) or COLUMN not in row:
                has = f"its columns: {printable(', '.join(map(str, row)))}" if row else "nothing"
                raise DataError(
                    f"has no `{COLUMN}` ({has if isinstance(row, dict) else kind(row)})",
                    where=where,
                    remedy=f"name the column that holds the text: columns: {{{COLUMN}: NAME}}; "
                    "questions with answers are read by `kind: jsonl`",
                )
            cells = Cells(row, where)
            said = cells.text(COLUMN)
            own = cells.take("id")
            name = str(own) if isinstance(own, str | int) and own != "" else f"{split}-{number}"
            if name in places:
                raise DataError(
                    f"has the id {name!r}, as {places[name]} has: two items of one id",
                    where=where,
                    remedy="make ids unique, or leave `id` out: rows are numbered then",
                )
            places[name] = where
            usage.count(frozenset(cells.used & cells.there.keys()), frozenset(cells.left()))
            found.append(Document(name, said))
    return found, usage.fields()
