"""Opens a text: told by its first bytes, unpacked, decoded, and given line by line.

What is torn, of another encoding or no text at all is refused by line, column and byte.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from holdfast.data.reading.files import READ, pyarrow
from holdfast.errors import DataError, printable

PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
"""By the first bytes: what a file is packed with."""
FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (unpack it, or save it as CSV)",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database (export the table as CSV)",
    b"\x89HDF": "an HDF5 file (save it as Parquet)",
    b"FEA1": "Feather of the first version (write it anew as Parquet)",
    b"Obj\x01": "an Avro file (save it as Parquet)",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet (save it as CSV)",
    b"\x80\x04": "a pickle, which can run code (save it as Parquet)",
    b"\x80\x05": "a pickle, which can run code (save it as Parquet)",
}
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text has, escape sequences apart."""
SAMPLE = 4096
"""Bytes by which a file is recognised."""
MOST_LINE, MOST_BLANK = 16_000_000, 100_000
"""Characters of a line, and empty lines in a row: millions of tokens, which no row has."""
MOST_TIMES, LEAST_UNPACKED = 200, 1 << 20
"""A packed file may unpack to so many times its size, and to so many bytes in any case."""
UNDECODED = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of a byte that is no text."""


def sample(path: Path) -> tuple[bytes, str | None]:
    """The first bytes of a file, unpacked, and what it is packed with."""
    with _faults(path):
        with path.open("rb") as file:
            first = file.read(SAMPLE)
        packed = next((name for magic, name in PACKED.items() if first.startswith(magic)), None)
        if packed:
            with _unpacked(path, packed) as stream:
                first = stream.read(SAMPLE)
    for magic, what in FOREIGN.items():
        if first.startswith(magic):
            raise DataError(f"is {what}", where=str(path), remedy=READ)
    return first, packed


def lines(
    path: Path, newline: str | None = None, column: Callable[[str], str] | None = None
) -> Iterator[str]:
    """The lines of a text, unpacked and decoded; any of the three line ends ends one.

    Args:
        path: of the file.
        newline: as `open` takes it.
        column: names the column in which a line holds what is no text.

    Raises:
        DataError: torn, unreadable, or no UTF-8 (UTF-16 and 32 are read by their mark).
    """
    first, packed = sample(path)
    encoding = next((name for mark, name in BOMS if first.startswith(mark)), "utf-8")
    odd = len(CONTROLS.findall(first)) if encoding.startswith("utf-8") else 0
    if odd > max(8, len(first) // 50) and first.strip(b"\0"):
        raise DataError(
            "is binary" + (", or UTF-16 without a mark" if b"\0" in first else ""),
            where=str(path),
            remedy=f"convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW; {READ}",
        )
    try:
        with _faults(path), _text(_opened(path, packed), encoding, newline) as text:
            yield from _bounded(path, text)
    except UnicodeDecodeError as error:
        raise _undecodable(path, packed, encoding, newline, column) from error


def _bounded(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """The lines, none without end, nor empty ones without end."""
    blank = 0
    for number, line in enumerate(iter(lambda: text.readline(MOST_LINE + 1), ""), start=1):
        blank = blank + 1 if line.isspace() else 0
        if len(line) > MOST_LINE or blank > MOST_BLANK:
            what = "nothing but blank lines" if blank > MOST_BLANK else "a line without end"
            raise DataError(
                f"holds {what} (more than {MOST_BLANK if blank > MOST_BLANK else MOST_LINE:,}"
                f"{'' if blank > MOST_BLANK else ' characters'})",
                where=f"{path}:{number}",
                remedy=f"write one row a line, and cut rows that no model could learn; {READ}",
            )
        yield line


class _Counted(io.RawIOBase):
    """An unpacked stream that stops where no data unpacks to so much."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = max(LEAST_UNPACKED, MOST_TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        part = self._stream.read(len(into))
        self._left -= len(part)
        if self._left < 0:
            raise DataError(
                f"unpacks to more than {MOST_TIMES} times its size: nothing but repetition",
                where=str(self._path),
                remedy="unpack it and look; if it is what you mean, give the unpacked file",
            )
        into[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _undecodable(
    path: Path,
    packed: str | None,
    encoding: str,
    newline: str | None,
    column: Callable[[str], str] | None,
) -> DataError:
    """The error for text of another encoding: names line, column and byte."""
    remedy = f"save it as UTF-8 (iconv -f LATIN1 -t UTF-8 FILE > NEW, if Latin-1 is right); {READ}"
    where, what = str(path), f"is not {encoding.removesuffix('-sig').upper()} text"
    if not encoding.startswith("utf-8"):
        return DataError(what, where=where, remedy=remedy)
    stream = _opened(path, packed)
    with _faults(path), _text(stream, encoding, newline, "surrogateescape") as text:
        for number, line in enumerate(_bounded(path, text), start=1):
            if bad := UNDECODED.search(line):
                found = column(line) if column else ""
                where = f"{path}:{number}" + (f": {found}" if found else "")
                what += f": byte 0x{ord(bad[0]) - 0xDC00:02x} at character {bad.start() + 1}"
                break
    return DataError(what, where=where, remedy=remedy)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an error that names it."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _torn(path, error) from error
    except OSError as error:
        if error.errno is None:  # of an unpacker, not of the system
            raise _torn(path, error) from error
        raise DataError(
            f"cannot be read: {error.strerror}", where=str(path), remedy="mend its permissions"
        ) from error


def _torn(path: Path, error: Exception) -> DataError:
    return DataError(
        f"is torn or damaged: {printable(str(error))}",
        where=str(path),
        remedy="copy or download it again",
    )


def _text(
    stream: IO[bytes], encoding: str, newline: str | None, errors: str = "strict"
) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding, errors, newline)


def _unpacked(path: Path, packed: str | None) -> IO[bytes]:
    match packed:
        case "gzip":
            return cast(IO[bytes], gzip.open(path))
        case "bzip2":
            return bz2.open(path)
        case "xz":
            return lzma.open(path)
        case "zstd":
            arrow = pyarrow(path)
            return cast(IO[bytes], arrow.CompressedInputStream(str(path), "zstd"))
    return path.open("rb")


def _opened(path: Path, packed: str | None) -> IO[bytes]:
    stream = _unpacked(path, packed)
    return stream if packed is None else cast(IO[bytes], io.BufferedReader(_Counted(stream, path)))
