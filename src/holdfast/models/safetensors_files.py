"""Reads what safetensors files say they hold, and finds those that are torn or full of NaN.

Only headers are read, unless values are asked for. Needs no torch: whether a number is finite is
told from the bits of its exponent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import ModelError
from holdfast.models.json_files import AGAIN, LFS, PULL, read_object

SUFFIX = ".safetensors"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_HEADER_BYTES = 100_000_000
"""As the library itself has it."""
MOST_SIZE = 1 << 50
"""Of a dimension or a place in a file; beyond, torch cannot count."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
EXPONENT = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000),
            "F64": ("<u8", 0x7FF0000000000000)}  # fmt: skip
"""How the number is stored, and the bits that are all set in NaN and infinity, and only there."""
SCANNED_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies.

    Attributes:
        file: that holds it.
        dtype: as safetensors calls it: ``BF16``.
        shape: its sizes.
        start: first byte in the file.
        end: the byte after its last.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file by name; their values are not read.

    Raises:
        ModelError: it is torn, a git-lfs pointer, or no safetensors file.
    """
    where = str(path)
    try:
        if not path.is_file():
            raise ModelError("is no regular file", where=where, remedy=AGAIN)
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(max(8, len(LFS)))
            if first.startswith(LFS):
                raise ModelError("is a git-lfs pointer, not weights", where=where, remedy=PULL)
            length = int.from_bytes(first[:8], "little")
            if len(first) < 8 or length > min(size - 8, MOST_HEADER_BYTES):
                raise ModelError(
                    f"is torn, or no safetensors file: its header would be longer than its "
                    f"{size:,} bytes",
                    where=where,
                    remedy=AGAIN,
                )
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=where, remedy=AGAIN) from error
    try:
        said = json.loads(text)
        assert isinstance(said, dict)
    except (ValueError, RecursionError, AssertionError) as error:
        raise ModelError("its header is no JSON object", where=where, remedy=AGAIN) from error
    found = {
        name: _stored(path, name, value, 8 + length)
        for name, value in said.items()
        if name != "__metadata__"
    }
    _check_whole(path, found, 8 + length, size)
    return found


def _stored(path: Path, name: str, value: object, begin: int) -> Stored:
    try:
        assert isinstance(value, dict)
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        assert all(type(one) is int and 0 <= one < MOST_SIZE for one in (*shape, start, end))
        wanted = math.prod(shape) * BITS[dtype]
        assert wanted == 8 * (end - start)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"its header contradicts itself about {name[:100]}", where=str(path), remedy=AGAIN
        ) from error
    return Stored(path, dtype, tuple(shape), begin + start, begin + end)


def _check_whole(path: Path, found: Mapping[str, Stored], begin: int, size: int) -> None:
    end = begin
    for name, one in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if one.start != end:
            raise ModelError(
                f"its header has a gap or an overlap before {name[:100]}",
                where=str(path),
                remedy=AGAIN,
            )
        end = one.end
    if end != size:
        raise ModelError(
            f"is torn: it has {size:,} bytes, its header speaks of {end:,}",
            where=str(path),
            remedy=AGAIN,
        )


def model_files(folder: Path) -> list[Path]:
    """The files that a whole model is loaded from: the one, or those that its index names.

    Raises:
        ModelError: there are none, or the index names what is no safetensors file beside it.
    """
    index = folder / INDEX
    named = shards_of(index) if index.is_symlink() or index.exists() else {}
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not named:
        raise ModelError(
            f"has no weights: neither {SINGLE} nor {INDEX}",
            where=str(folder),
            remedy="save the model with `model.save_pretrained(folder)`, or download it again",
        )
    files = [folder / name for name in sorted(set(named.values()))]
    for file in files:
        if not file.is_file():
            raise ModelError(
                f"{file.name} is not there, and {INDEX} names it",
                where=str(folder),
                remedy="download the missing file: `hf download` fetches what is not there yet",
            )
    return files


def shards_of(index: Path) -> dict[str, str]:
    """Tensor to file, as an index has it.

    Raises:
        ModelError: it cannot be read, or an entry is no plain name of a safetensors file.
    """
    said = read_object(index).get("weight_map")
    if not isinstance(said, dict) or not said:
        raise ModelError("holds no weight_map", where=str(index), remedy=AGAIN)
    for tensor, name in said.items():
        plain = isinstance(name, str) and not any(one in name for one in "/\\\0")
        if not plain or name.startswith(".") or not name.endswith(SUFFIX):
            raise ModelError(
                f"names {str(name)[:100]!r} for {tensor[:100]}: every entry must be the plain name "
                "of a safetensors file in the same folder",
                where=str(index),
                remedy="convert the model once: `AutoModelForCausalLM.from_pretrained(folder)"
                ".save_pretrained(folder)` writes safetensors and a new index",
            )
    return said


def tensors_of(folder: Path) -> dict[str, Stored]:
    """All tensors that a whole model is loaded from, by name.

    Raises:
        ModelError: see `model_files` and `read_header`; or the index names a tensor that its file
            does not hold.
    """
    files = model_files(folder)
    found: dict[str, Stored] = {}
    for file in files:
        found |= read_header(file)
    if files[0].name != SINGLE:
        for tensor, name in shards_of(folder / INDEX).items():
            if tensor not in found:
                raise ModelError(
                    f"names {tensor[:100]}, which {name} does not hold",
                    where=str(folder / INDEX),
                    remedy=AGAIN,
                )
    if not found:
        raise ModelError("its weights hold no tensor", where=str(folder), remedy=AGAIN)
    return found


def size_of(tensors: Mapping[str, Stored]) -> int:
    """Bytes that the values take."""
    return sum(one.end - one.start for one in tensors.values())


def not_finite(tensors: Mapping[str, Stored]) -> str | None:
    """The first tensor that holds NaN or infinity; reads all values, a few megabytes at a time.

    Args:
        tensors: by name; those of integers and of eight bits and fewer are passed over.
    """
    import numpy as np

    for file in dict.fromkeys(one.file for one in tensors.values()):
        with file.open("rb") as opened:
            for name, one in tensors.items():
                if one.file == file and one.dtype in EXPONENT:
                    kind, mask = EXPONENT[one.dtype]
                    for part in _parts(opened, one):
                        bits = np.frombuffer(part, dtype=kind)
                        if ((bits & bits.dtype.type(mask)) == mask).any():
                            return name
    return None


def _parts(opened: Any, one: Stored) -> Iterator[bytes]:
    opened.seek(one.start)
    left = one.end - one.start
    while left > 0:
        part = opened.read(min(left, SCANNED_BYTES))
        if not part:
            return
        left -= len(part)
        yield part


def check_finite(tensors: Mapping[str, Stored], where: str, what: str = "its weights") -> None:
    """Refuse NaN and infinity in what a file holds.

    Raises:
        ModelError: naming the tensor.
    """
    name = not_finite(tensors)
    if name is not None:
        raise broken_numbers(name, where, what)


def broken_numbers(name: str, where: str, what: str = "its weights") -> ModelError:
    """The error for weights that are NaN or infinite; such a model answers nonsense."""
    return ModelError(
        f"{what} hold NaN or infinity, first in {name}",
        where=where,
        remedy="take a checkpoint from before the training diverged (lower train.learning_rate, or "
        "train in bfloat16 or float32 instead of float16), or fetch the files again",
    )
