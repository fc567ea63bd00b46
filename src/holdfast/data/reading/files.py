"""What a path of the user's names, and the rows that come of it.

Nothing here hangs or leaves a traceback: a pipe, a device and a path that leads nowhere are each
refused with what to do about it.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from holdfast.environment import install_command
from holdfast.errors import RELATIVE, DataError, MissingDependency, printable

READ = (
    "read are JSON Lines, a JSON array, CSV and TSV (also packed with gzip, zstd, bzip2 or xz), "
    "Parquet and Arrow, and folders of them"
)
"""Ends the remedy where the format is the fault."""
NAMES = "other column names are told by columns: {prompt: their name, completion: their name}"


class Row(NamedTuple):
    """One row of a user's data.

    Attributes:
        number: from 1; of JSON Lines the line.
        where: it stands, for messages.
        value: what stands there; not always an object.
    """

    number: int
    where: str
    value: Any


@dataclass(frozen=True, slots=True)
class Shape:
    """How a file is to be read, where it does not say itself; see `SourceSpec`."""

    format: str | None = None
    field: str | None = None
    delimiter: str | None = None


def kind_of(path: Path) -> Literal["file", "folder"]:
    """What a path names.

    Raises:
        DataError: nothing, or what cannot be read: a pipe, a device, another user's.
    """
    shown = printable(str(path))
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name that a file can have"
        raise DataError(
            f"cannot be read: {reason}", where=shown, remedy=f"check the path; {RELATIVE}"
        ) from error
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        raise DataError(
            "is a pipe, a socket or a device, not a file",
            where=shown,
            remedy=f"write the rows into a file first; {READ}",
        )
    return "file"


def _missing(path: Path) -> DataError:
    """The error for a path that leads nowhere, with what may have been meant."""
    text = str(path)
    if re.search(r"\w+:/", text):
        remedy = "web addresses are not read: download the file, or name a set of the hub: "
        return DataError(
            "is an address, not a file", where=printable(text), remedy=f"{remedy}hub: owner/name"
        )
    hints = []
    if path.parent.is_dir():
        names = [one.name for one in path.parent.iterdir()]
        if near := difflib.get_close_matches(path.name, names, n=1, cutoff=0.6):
            hints.append(f"did you mean {printable(near[0])}?")
    elif not path.suffix:
        hints.append(f"a set on the hub is written hub: {'/'.join(path.parts[-2:])}")
    hints.append(f"check the path; {RELATIVE}")
    return DataError(
        "cannot be read: No such file or directory", where=printable(text), remedy="; ".join(hints)
    )


def pyarrow(path: Path) -> Any:
    """The package that reads Parquet, Arrow and zstd.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingDependency(
            "reading this file needs `pyarrow`, which comes with `datasets`",
            where=str(path),
            remedy=f"{install_command('train', 'datasets')}, or give JSON Lines or CSV",
        ) from error
    return pyarrow
