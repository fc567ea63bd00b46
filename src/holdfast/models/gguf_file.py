"""What stands at the front of a GGUF file, and whether that is a whole language model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import ModelError
from holdfast.models.json_files import AGAIN

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
KNOWN = sorted(name for name, _, _ in BLOCKS.values())
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
MERGE = "merge its parts first: `llama-gguf-split --merge FIRST-PART WHOLE.gguf`"
INSTEAD = "name the model in safetensors that the file was made from"
WHOLE_MODEL = "give the GGUF file of the language model itself"
OTHERS = {"adapter": "an adapter (LoRA)", "mmproj": "a projector for pictures (mmproj)",
          "imatrix": "an importance matrix", "vocab": "a vocabulary alone"}  # fmt: skip
"""What else GGUF files hold, by their `general.type`."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the table: its shape, how its numbers are stored, and where its bytes lie."""

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

    @property
    def numbers(self) -> int:
        """All that it stores, as parameters of a model."""
        return sum(math.prod(one.shape) for one in self.tensors.values())


def checked(file: GGUFFile) -> GGUFFile:
    """Refuse what is no whole language model."""
    path, fields = file.path, file.fields
    if fields.get("split.count", 0) not in (0, 1) or SPLIT.search(path.name):
        raise refused(path, "is one part of a model that was split", MERGE)
    kind, architecture = fields.get("general.type", "model"), fields.get("general.architecture")
    other = "mmproj" if architecture == "clip" else "" if kind == "model" else str(kind)
    if other or any(name.endswith((".lora_a", ".lora_b")) for name in file.tensors):
        what = OTHERS.get(other or "adapter", f"of the type {other!r}")
        raise refused(path, f"is {what}, and no model", WHOLE_MODEL)
    if not isinstance(architecture, str) or not architecture:
        raise refused(path, "does not say of which architecture it is", AGAIN)
    if not file.tensors:
        raise refused(path, "holds no weights", WHOLE_MODEL)
    if not fields.get("tokenizer.ggml.tokens") or not fields.get("tokenizer.ggml.model"):
        raise refused(
            path, "has no tokenizer inside",
            "take a file with one, or the model in safetensors with its tokenizer",
        )  # fmt: skip
    return file


def refused(path: Path, said: str, remedy: str) -> ModelError:
    """What is raised of a GGUF file."""
    return ModelError(said, where=str(path), remedy=remedy)


def placed(
    path: Path,
    at: int,
    size_of_file: int,
    table: Sequence[tuple[str, tuple[int, ...], int, int]],
    fields: Mapping[str, object],
) -> dict[str, Tensor]:
    """The tensors of a table (name, shape, kind, offset), each inside of the file and alone there.

    Args:
        path: the file.
        at: where its head ends.
        size_of_file: in bytes.
        table: as the head has it.
        fields: its metadata.
    """
    align = fields.get("general.alignment", 32)
    if type(align) is not int or align < 1 or align & (align - 1):
        raise refused(path, f"its alignment is {align}, no power of two", AGAIN)
    begin, found = -(-at // align) * align, dict[str, Tensor]()
    for name, shape, number, offset in table:
        if number not in BLOCKS:
            raise refused(
                path, f"{name} is stored in a kind of numbers ({number}) that cannot be "
                "written out",
                f"take a file of another quantisation ({', '.join(KNOWN)}), or the model in "
                "safetensors",
            )  # fmt: skip
        kind, numbers, size = BLOCKS[number]
        if not shape or 0 in shape or shape[0] % numbers or name in found or offset % align:
            raise refused(path, f"its table of tensors is damaged at {name!r}", AGAIN)
        start = begin + offset
        end = start + math.prod(shape) // numbers * size
        if end > size_of_file:
            raise refused(
                path, f"is not whole: {name} needs {end:,} bytes of it, and it has "
                f"{size_of_file:,}", AGAIN,
            )  # fmt: skip
        found[name] = Tensor(shape, kind, start, end)
    last = 0
    for name, one in sorted(found.items(), key=lambda item: item[1].start):
        if one.start < last:
            raise refused(path, f"its tensors overlap at {name!r}", AGAIN)
        last = one.end
    return found
