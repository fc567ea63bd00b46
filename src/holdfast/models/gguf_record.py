"""Tells how a model's folder was made of a GGUF file, and what that cost; `gguf.json` in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast.memory.model.gguf_folder import FORMAT
from holdfast.models.files import HASHED, sampled_hash

RECORD = "gguf.json"
FLOATS = ("F32", "F16", "BF16")
"""Kinds of numbers that are no few bits."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a GGUF file became a folder, and what that cost.

    Attributes:
        file: its name.
        sha256: of its content.
        bytes: that it has.
        kind: the kind of number that most of its weights are stored in.
        architecture: as llama.cpp calls it.
        dtype: of the weights that were written.
        bytes_written: of the folder.
        seconds: that it took.
        versions: of the packages that did it.
        files: sampled hash of every file of the folder.
        format: see `gguf_folder.FORMAT`.
    """

    file: str
    sha256: str
    bytes: int
    kind: str
    architecture: str
    dtype: str
    bytes_written: int
    seconds: float
    versions: dict[str, str]
    files: dict[str, str]
    format: int = FORMAT

    @property
    def identity(self) -> dict[str, object]:
        """What makes the weights these weights."""
        return {"gguf": self.sha256[:16], "dtype": self.dtype}

    def __str__(self) -> str:
        """One sentence for whoever reads the figures."""
        return (
            f"{self.file} ({self.architecture}, {self.kind}, {self.bytes:,} bytes, sha256 "
            f"{self.sha256[:16]}): its weights were written out in {self.dtype} once "
            f"({self.bytes_written:,} bytes, {self.seconds:.1f} s); what is trained and measured "
            "are those."
        )


def of(folder: str | Path) -> Conversion | None:
    """How a model's folder was made of a GGUF file; None: it was not, or was changed since."""
    try:
        content = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        found = Conversion(**content)
        whole = found.format == FORMAT and found.files == hashes_of(Path(folder))
    except (OSError, ValueError, TypeError):
        return None
    return found if whole else None


def told(folder: str | Path) -> list[str]:
    """What a reader of a model's figures must know of how its folder was made."""
    return [str(found)] if (found := of(folder)) is not None else []


def recorded(folder: str | Path) -> dict[str, object]:
    """The same for the record of a run, under ``gguf``; empty where it was not made so."""
    found = of(folder)
    if found is None:
        return {}
    return {"gguf": {name: value for name, value in asdict(found).items() if name != "files"}}


def hashes_of(folder: Path) -> dict[str, str]:
    """Sampled hash of every file that makes a folder's model what it is."""
    return {
        one.name: sampled_hash(one).hex()[:16]
        for one in sorted(folder.iterdir())
        if one.suffix in HASHED and one.is_file() and one.name != RECORD
    }
