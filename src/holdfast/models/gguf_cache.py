"""Writes the weights of a GGUF file out, once, as an ordinary folder of safetensors in a cache.

What is asked, trained and planned is that folder. It bears the digest of the file's whole content,
whatever the file is called, and stays until somebody deletes it; `gguf.json` in it says what
it was made of and what that cost. Two processes do not make it twice, and a killed one, or a full
disk, leaves nothing that could be taken for it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from holdfast import environment
from holdfast.errors import HoldfastError, ModelError, printable
from holdfast.models import gguf_file
from holdfast.models.files import HASHED, sampled_hash
from holdfast.runs import temporary

RECORD = "gguf.json"
FORMAT = 1
"""Of the folder; raised whenever the same file would be written out otherwise."""
EXACT = {"F32": "float32", "F16": "float16"}
"""What the numbers of a file are written as, by the kind that most of them have, where that is not
bfloat16; norms, which are stored in more, are rounded to it."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FULL = (errno.ENOSPC, errno.EDQUOT)
SPARE = 32 << 20
"""For the tokenizer and the like, in bytes."""
ELSEWHERE = f"make room, or name another folder in ${environment.CACHE}"


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
        format: see `FORMAT`.
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
    """How a model's folder was made of a GGUF file; None: it was not."""
    try:
        content = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
        found = Conversion(**content)
    except (OSError, ValueError, TypeError):
        return None
    return found if found.format == FORMAT else None


def expanded(path: Path) -> Path:
    """The folder with a GGUF file's weights, written out where that was not done yet.

    Raises:
        ModelError: the file is no whole language model (`gguf_file.read`), transformers does not
            know its architecture, or the cache cannot be written.
        MissingDependency: torch, transformers or `gguf` is missing.
    """
    head = gguf_file.read(path)
    cache = environment.cache_folder("models")
    with _writable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        digest = _digest(path, cache)
    folder = cache / f"{digest[:16]}-{FORMAT}"
    write_out(head, digest, folder)
    return folder


def write_out(head: gguf_file.GGUFFile, digest: str, folder: Path) -> None:
    """Make a folder of a GGUF file's weights, unless it is there and whole.

    Args:
        head: of the file.
        digest: SHA-256 of the file.
        folder: what becomes the model; replaced where it is another one, or damaged.

    Raises:
        HoldfastError: see `expanded`.
    """
    from filelock import FileLock

    with _writable(folder.parent):
        if _whole(folder, digest):
            return
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if _whole(folder, digest):  # another process has made it meanwhile
                return
            temporary.clear(folder.parent, deep=False, name=folder.name)
            _check_room(head, folder.parent)
            part = temporary.beside(folder)
            try:
                _write(head, digest, part)
                if folder.exists():
                    temporary.remove_tree(folder)
                os.replace(part, folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)


def dtype_of(head: gguf_file.GGUFFile) -> str:
    """What a file's weights are written out in."""
    return EXACT.get(next(iter(head.kinds)), "bfloat16")


def _whole(folder: Path, digest: str) -> bool:
    found = of(folder)
    return found is not None and found.sha256 == digest and found.files == _hashes(folder)


def _hashes(folder: Path) -> dict[str, str]:
    return {
        one.name: sampled_hash(one).hex()[:16]
        for one in sorted(folder.iterdir())
        if one.suffix in HASHED and one.is_file() and one.name != RECORD
    }


def _digest(path: Path, cache: Path) -> str:
    """SHA-256 of a file; kept in the cache for as long as the file is not touched."""
    about = path.stat()
    mark = f"{path.resolve()} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
    note = cache / "digests" / hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()
    if note.is_file() and len(found := note.read_text(encoding="ascii")) == 64:
        return found
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.parent.mkdir(exist_ok=True)
    part = temporary.beside(note)
    part.write_text(digest, encoding="ascii")
    os.replace(part, note)
    return digest


def _check_room(head: gguf_file.GGUFFile, cache: Path) -> None:
    numbers = sum(math.prod(one.shape) for one in head.tensors.values())
    needed, free = numbers * BYTES[dtype_of(head)] + SPARE, shutil.disk_usage(cache).free
    if needed > free:
        raise ModelError(
            f"its weights take {needed / 2**30:.1f} GiB written out, and the cache's disk has "
            f"{free / 2**30:.1f} GiB free",
            where=str(head.path),
            remedy=ELSEWHERE,
        )


@contextmanager
def _writable(cache: Path) -> Iterator[None]:
    """Say of a cache that cannot be written, or whose disk is full, what to do."""
    try:
        yield
    except HoldfastError:
        raise
    except Exception as error:  # safetensors has a class of its own for what the system said
        full = "No space left" in str(error) or getattr(error, "errno", None) in FULL
        if not full and not isinstance(error, OSError):
            raise
        said = "its disk is full" if full else getattr(error, "strerror", None) or str(error)
        raise ModelError(
            f"the cache of models cannot be written: {said}", where=str(cache), remedy=ELSEWHERE
        ) from error


def _write(head: gguf_file.GGUFFile, digest: str, into: Path) -> None:
    from holdfast.models import gguf_weights

    print(printable(f"Writing out the weights of {head.path.name} (once) ..."), file=sys.stderr)
    started = time.monotonic()
    dtype = gguf_weights.write(head, dtype_of(head), into)
    files = _hashes(into)
    made = Conversion(
        head.path.name, digest, head.path.stat().st_size, next(iter(head.kinds)),
        head.architecture, dtype, sum((into / name).stat().st_size for name in files),
        round(time.monotonic() - started, 2),
        {name: environment.version(name) for name in ("transformers", "gguf")}, files,
    )  # fmt: skip
    (into / RECORD).write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
