"""Writes the weights of a GGUF file out, once, as an ordinary folder of safetensors in a cache.

What is asked, trained and planned is that folder. It bears the digest of the file's whole content,
whatever the file is called, and stays until somebody deletes it; `gguf.json` in it says what
it was made of and what that cost. Two processes do not make it twice, and a killed one, or a full
disk, leaves nothing that could be taken for it.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from holdfast import environment
from holdfast.errors import HoldfastError, MissingDependency, ModelError, Unreachable, printable
from holdfast.memory.model import gguf_folder, hub
from holdfast.models import gguf_file, gguf_head
from holdfast.models.gguf_record import RECORD, Conversion, hashes_of, of
from holdfast.runs import store, temporary

EXACT = {"F32": "float32", "F16": "float16"}
"""What the numbers of a file are written as, by the kind that most of them have, where that is not
bfloat16; norms, which are stored in more, are rounded to it."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FULL = (errno.ENOSPC, errno.EDQUOT)
SPARE = 32 << 20
"""For the tokenizer and the like, in bytes."""
ELSEWHERE = f"make room, or name another folder in ${environment.CACHE}"


def base_of(model: str, revision: str | None = None) -> str:
    """What a study's model is loaded from: of a GGUF file the folder of its weights, else itself.

    Args:
        model: as its user names it; a folder that holds one GGUF file and no model means that file.
        revision: of the hub's repository.

    Raises:
        HoldfastError: see `expanded`; or the folder holds several, or the hub cannot be reached.
    """
    folder = Path(model).expanduser()
    if not gguf_folder.is_named(model):
        held = () if "://" in model or (folder / hub.CONFIG).exists() else folder.glob("*.gguf")
        files = sorted(held)
        if len(files) > 1:
            raise ModelError(
                f"holds {len(files)} GGUF files",
                where=model,
                remedy=f"name one: {model}/{files[0].name}",
            )
        return str(expanded(files[0])) if files else model
    there = gguf_folder.in_repository(model)
    if there is None:
        return str(expanded(folder))
    hub.require(there[0], revision, there[1])
    from huggingface_hub import hf_hub_download

    try:
        return str(expanded(Path(hf_hub_download(*there, revision=revision))))
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise Unreachable(
            f"cannot be fetched: {type(error).__name__} {first}", where=model, remedy="try again"
        ) from error


def expanded(path: Path) -> Path:
    """The folder with a GGUF file's weights, written out where that was not done yet.

    Raises:
        ModelError: the file is no whole language model (`gguf_head.read`), transformers does not
            know its architecture, or the cache cannot be written.
        MissingDependency: torch, transformers or `gguf` is missing.
    """
    head = gguf_head.read(path)
    cache = environment.cache_folder("models")
    with _writable(cache):
        cache.mkdir(parents=True, exist_ok=True)
        digest = digest_of(path, cache)
    folder = cache / gguf_folder.folder_name(digest)
    write_out(head, digest, folder)
    return folder


def write_out(
    head: gguf_file.GGUFFile, digest: str, folder: Path, elsewhere: str = ELSEWHERE
) -> None:
    """Make a folder of a GGUF file's weights, unless it is there and whole.

    Args:
        head: of the file.
        digest: SHA-256 of the file.
        folder: what becomes the model; replaced where it is another one, or damaged.
        elsewhere: what to do where there is no room.

    Raises:
        HoldfastError: see `expanded`.
    """
    from filelock import FileLock

    with _writable(folder.parent, elsewhere):
        if _whole(folder, digest):
            return
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if _whole(folder, digest):  # another process has made it meanwhile
                return
            temporary.clear(folder.parent, deep=False, name=folder.name)
            _check_room(head, folder.parent, elsewhere)
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
    return found is not None and found.sha256 == digest


def digest_of(path: Path, cache: Path) -> str:
    """SHA-256 of a file; kept in the cache for as long as the file is not touched."""
    if (known := gguf_folder.digest_of(path, cache)) is not None:
        return known
    note = gguf_folder.digest_file(path, cache)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    store.write_text(note, digest)
    return digest


def _check_room(head: gguf_file.GGUFFile, cache: Path, elsewhere: str) -> None:
    needed, free = head.numbers * BYTES[dtype_of(head)] + SPARE, shutil.disk_usage(cache).free
    if needed > free:
        raise ModelError(
            f"its weights take {needed / 2**30:.1f} GiB written out, and the disk of {cache} has "
            f"{free / 2**30:.1f} GiB free",
            where=str(head.path),
            remedy=elsewhere,
        )


@contextmanager
def _writable(cache: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
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
            f"the cache of models cannot be written: {said}", where=str(cache), remedy=elsewhere
        ) from error


def _write(head: gguf_file.GGUFFile, digest: str, into: Path) -> None:
    for package, extra in (("torch", "train"), ("transformers", "train"), ("gguf", "gguf")):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"reading a GGUF file needs `{package}`",
                remedy=environment.install_command(extra, package),
            )
    from holdfast.models import gguf_weights

    print(printable(f"Writing out the weights of {head.path.name} (once) ..."), file=sys.stderr)
    started = time.monotonic()
    dtype = gguf_weights.write(head, dtype_of(head), into)
    files = hashes_of(into)
    made = Conversion(
        head.path.name, digest, head.path.stat().st_size, next(iter(head.kinds)),
        head.architecture, dtype, sum((into / name).stat().st_size for name in files),
        round(time.monotonic() - started, 2),
        {name: environment.version(name) for name in ("transformers", "gguf")}, files,
    )  # fmt: skip
    (into / RECORD).write_text(json.dumps(asdict(made), indent=1) + "\n", encoding="utf-8")
