"""Reads the head of a GGUF file, and refuses one that is not a whole language model.

Needs neither torch nor the package `gguf`: metadata and the table of tensors stand at the front of
the file, and all that they promise is compared with the bytes that are there. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import RELATIVE, ModelError
from holdfast.memory.model.hub import near_folder
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
BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip
"""Types of tensors that can be written out: what they are called, numbers and bytes of a block."""
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
MERGE = "merge its parts first: `llama-gguf-split --merge FIRST-PART WHOLE.gguf`"
WHOLE_MODEL = "give the GGUF file of the language model itself"
OTHERS = {"adapter": "an adapter (LoRA)", "mmproj": "a projector for pictures (mmproj)",
          "imatrix": "an importance matrix", "vocab": "a vocabulary alone"}  # fmt: skip
"""What else GGUF files hold, by their `general.type`."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the table: numbers along each axis, its kind's name, and where its bytes lie."""

    shape: tuple[int, ...]
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The head of a GGUF file.

    Attributes:
        path: the file.
        fields: its metadata; of lists only the length.
        tensors: by their names in the file.
    """

    path: Path
    fields: Mapping[str, object]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        """Of the model, as llama.cpp calls it."""
        return str(self.fields.get("general.architecture"))

    @property
    def kinds(self) -> dict[str, int]:
        """Numbers that are stored in each kind, the most frequent first."""
        found: dict[str, int] = {}
        for one in self.tensors.values():
            found[one.kind] = found.get(one.kind, 0) + math.prod(one.shape)
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def read(path: Path) -> GGUFFile:
    """The head of a GGUF file that holds a whole language model.

    Raises:
        ModelError: it is not there, torn, split, big-endian, of an unknown version or kind of
            number, no language model, or without a tokenizer.
    """
    try:
        return _checked(_Head(path).read())
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror or error}", "check it") from error


class _Head:
    """A place in a file that moves forward while its head is read."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        if not path.is_file():
            near = near_folder(path)
            raise _refused(
                path, "no such file" + (f"; did you mean {near}?" if near else ""),
                f"check the path of the GGUF file; {RELATIVE}",
            )  # fmt: skip
        self._size = path.stat().st_size

    def read(self) -> GGUFFile:
        if not self._size:
            raise _refused(self._path, "is empty", AGAIN)
        with (
            self._path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as self._bytes,
        ):
            keys, tensors = self._counts()
            fields = {self._text(): self._value(self._number("I")) for _ in range(keys)}
            if len(fields) < keys:
                raise _refused(self._path, "names a field of its metadata twice", AGAIN)
            table = [self._entry() for _ in range(tensors)]
            return GGUFFile(self._path, fields, self._placed(table, fields))

    def _counts(self) -> tuple[int, int]:
        start = self._bytes[: len(LFS)]
        if start[:4] != MAGIC:
            lfs = start == LFS
            said = "is a git-lfs pointer" if lfs else "is no GGUF file (it begins otherwise)"
            raise _refused(self._path, said, PULL if lfs else AGAIN)
        self._at = 4
        version = self._number("I")
        if version and not version & 0xFFFF:
            raise _refused(
                self._path, "is big-endian, which transformers cannot read",
                "take the little-endian file, or convert it: `gguf-convert-endian FILE little`",
            )  # fmt: skip
        if version not in VERSIONS:
            raise _refused(
                self._path, f"is GGUF of version {version}; versions 2 and 3 can be read",
                "convert the model again with a recent llama.cpp",
            )  # fmt: skip
        tensors, keys = self._number("Q"), self._number("Q")
        if keys > MOST_KEYS or tensors > MOST_TENSORS:
            raise _refused(self._path, f"claims {keys} fields and {tensors} tensors", AGAIN)
        return keys, tensors

    def _take(self, count: int) -> bytes:
        start, self._at = self._at, self._at + count
        if self._at > self._size:
            raise _refused(self._path, "is torn: it ends in the middle of its head", AGAIN)
        return self._bytes[start : self._at]

    def _number(self, code: str) -> int:
        value: int = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]
        return value

    def _text(self) -> str:
        try:
            return self._take(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _refused(self._path, "holds a name that is no UTF-8", AGAIN) from error

    def _value(self, kind: int) -> object:
        if kind == STRING:
            return self._take(self._number("Q")).decode("utf-8", "replace")
        if kind in SCALARS:
            return self._number(SCALARS[kind])
        if kind != LIST:
            raise _refused(self._path, f"holds a field of an unknown kind ({kind})", AGAIN)
        inner, count = self._number("I"), self._number("Q")
        if inner in SCALARS:
            self._take(count * struct.calcsize(f"<{SCALARS[inner]}"))
        elif inner == STRING and count <= MOST_STRINGS:
            for _ in range(count):
                self._take(self._number("Q"))
        else:
            raise _refused(self._path, f"holds a list that cannot be: {count} of {inner}", AGAIN)
        return range(count)

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._text(), self._number("I")
        if dimensions > MOST_DIMENSIONS:
            raise _refused(self._path, f"{name} has {dimensions} dimensions", AGAIN)
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return name, shape, self._number("I"), self._number("Q")

    def _placed(
        self, table: list[tuple[str, tuple[int, ...], int, int]], fields: Mapping[str, object]
    ) -> dict[str, Tensor]:
        align = fields.get("general.alignment", 32)
        if type(align) is not int or align < 1 or align & (align - 1):
            raise _refused(self._path, f"its alignment is {align}, no power of two", AGAIN)
        begin, found = -(-self._at // align) * align, dict[str, Tensor]()
        for name, shape, number, offset in table:
            if number not in BLOCKS:
                raise _refused(
                    self._path, f"{name} is stored in a kind of numbers ({number}) that cannot be "
                    "written out",
                    f"take a file of another quantisation ({', '.join(KNOWN)}), or the model in "
                    "safetensors",
                )  # fmt: skip
            kind, numbers, size = BLOCKS[number]
            if not shape or 0 in shape or shape[0] % numbers or name in found or offset % align:
                raise _refused(self._path, f"its table of tensors is damaged at {name!r}", AGAIN)
            start = begin + offset
            end = start + math.prod(shape) // numbers * size
            if end > self._size:
                raise _refused(
                    self._path, f"is not whole: {name} needs {end:,} bytes of it, and it has "
                    f"{self._size:,}", AGAIN,
                )  # fmt: skip
            found[name] = Tensor(shape, kind, start, end)
        last = 0
        for name, one in sorted(found.items(), key=lambda item: item[1].start):
            if one.start < last:
                raise _refused(self._path, f"its tensors overlap at {name!r}", AGAIN)
            last = one.end
        return found


KNOWN = sorted(name for name, _, _ in BLOCKS.values())


def _checked(file: GGUFFile) -> GGUFFile:
    """Refuse what is no whole language model."""
    path, fields = file.path, file.fields
    if fields.get("split.count", 0) not in (0, 1) or SPLIT.search(path.name):
        raise _refused(path, "is one part of a model that was split", MERGE)
    kind, architecture = fields.get("general.type", "model"), fields.get("general.architecture")
    other = "mmproj" if architecture == "clip" else "" if kind == "model" else str(kind)
    if other or any(name.endswith((".lora_a", ".lora_b")) for name in file.tensors):
        what = OTHERS.get(other or "adapter", f"of the type {other!r}")
        raise _refused(path, f"is {what}, and no model", WHOLE_MODEL)
    if not isinstance(architecture, str) or not architecture:
        raise _refused(path, "does not say of which architecture it is", AGAIN)
    if not file.tensors:
        raise _refused(path, "holds no weights", WHOLE_MODEL)
    if not fields.get("tokenizer.ggml.tokens") or not fields.get("tokenizer.ggml.model"):
        raise _refused(
            path, "has no tokenizer inside",
            "take a file with one, or the model in safetensors with its tokenizer",
        )  # fmt: skip
    return file


def _refused(path: Path, said: str, remedy: str) -> ModelError:
    return ModelError(said, where=str(path), remedy=remedy)
