"""Reads the head of a GGUF file, and refuses one that is torn or damaged.

Needs neither torch nor the package `gguf`: metadata and the table of tensors stand at the front of
the file, and all that they promise is compared with the bytes that are there. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from holdfast.errors import RELATIVE
from holdfast.memory.model.hub import near_folder
from holdfast.models.gguf_file import GGUFFile, checked, placed, refused
from holdfast.models.json_files import AGAIN, LFS, PULL

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, LIST = 8, 9
MOST_KEYS, MOST_TENSORS, MOST_STRINGS, MOST_DIMENSIONS = 100_000, 1_000_000, 4_000_000, 4


def read(path: Path) -> GGUFFile:
    """The head of a GGUF file that holds a whole language model.

    Raises:
        ModelError: it is not there, torn, split, big-endian, of an unknown version or kind of
            number, no language model, or without a tokenizer.
    """
    try:
        return checked(_Head(path).read())
    except OSError as error:
        raise refused(path, f"cannot be read: {error.strerror or error}", "check it") from error


class _Head:
    """A place in a file that moves forward while its head is read."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        if not path.is_file():
            near = near_folder(path)
            raise refused(
                path, "no such file" + (f"; did you mean {near}?" if near else ""),
                f"check the path of the GGUF file; {RELATIVE}",
            )  # fmt: skip
        self._size = path.stat().st_size

    def read(self) -> GGUFFile:
        if not self._size:
            raise refused(self._path, "is empty", AGAIN)
        with (
            self._path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as self._bytes,
        ):
            keys, tensors = self._counts()
            fields = {self._text(): self._value(self._number("I")) for _ in range(keys)}
            if len(fields) < keys:
                raise refused(self._path, "names a field of its metadata twice", AGAIN)
            table = [self._entry() for _ in range(tensors)]
            return GGUFFile(
                self._path, fields, placed(self._path, self._at, self._size, table, fields)
            )

    def _counts(self) -> tuple[int, int]:
        start = self._bytes[: len(LFS)]
        if start[:4] != MAGIC:
            lfs = start == LFS
            said = "is a git-lfs pointer" if lfs else "is no GGUF file (it begins otherwise)"
            raise refused(self._path, said, PULL if lfs else AGAIN)
        self._at = 4
        version = self._number("I")
        if version and not version & 0xFFFF:
            raise refused(
                self._path, "is big-endian, which transformers cannot read",
                "take the little-endian file, or convert it: `gguf-convert-endian FILE little`",
            )  # fmt: skip
        if version not in VERSIONS:
            raise refused(
                self._path, f"is GGUF of version {version}; versions 2 and 3 can be read",
                "convert the model again with a recent llama.cpp",
            )  # fmt: skip
        tensors, keys = self._number("Q"), self._number("Q")
        if keys > MOST_KEYS or tensors > MOST_TENSORS:
            raise refused(self._path, f"claims {keys} fields and {tensors} tensors", AGAIN)
        return keys, tensors

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > self._size:
            raise refused(self._path, "is torn: it ends in the middle of its head", AGAIN)
        return self._bytes[start : self._at]

    def _number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]
        return value

    def _text(self) -> str:
        try:
            return self._take(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise refused(self._path, "holds a name that is no UTF-8", AGAIN) from error

    def _value(self, kind: int) -> object:
        if kind == STRING:
            return self._take(self._number("Q")).decode("utf-8", "replace")
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind != LIST:
            raise refused(self._path, f"holds a field of an unknown kind ({kind})", AGAIN)
        inner, count = self._number("I"), self._number("Q")
        if inner in SCALARS:
            self._take(count * struct.calcsize(f"<{SCALARS[inner]}"))
        elif inner == STRING and count <= MOST_STRINGS:
            for _ in range(count):
                self._take(self._number("Q"))
        else:
            raise refused(self._path, f"holds a list that cannot be: {count} of {inner}", AGAIN)
        return range(count)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._text(), self._number("I")
        if dimensions > MOST_DIMENSIONS:
            raise refused(self._path, f"{name} has {dimensions} dimensions", AGAIN)
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return name, shape, self._number("I"), self._number("Q")
