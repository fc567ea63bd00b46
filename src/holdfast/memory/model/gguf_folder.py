"""Finds the folder that a GGUF file's weights were written out to; `holdfast.models` makes it.

Needs nothing but the file's digest, which is kept for as long as the file is not touched.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from holdfast import environment

FORMAT = 1
"""Of the folder; raised whenever the same file would be written out otherwise."""
SUFFIX = ".gguf"


def is_named(model: str) -> bool:
    """Whether somebody means a GGUF file: ``FOLDER/FILE.gguf``, ``ORG/REPOSITORY/FILE.gguf``."""
    return model.lower().endswith(SUFFIX) and "://" not in model


def in_repository(model: str) -> tuple[str, str] | None:
    """Repository and file of ``ORG/REPOSITORY/FILE.gguf``; None where a local file is meant."""
    path = Path(model).expanduser()
    parts = model.split("/", 2)
    if model.startswith((".", "/", "~")) or path.exists() or len(parts) < 3:
        return None
    return (f"{parts[0]}/{parts[1]}", parts[2]) if all(parts) else None


def digest_file(path: Path, cache: Path) -> Path:
    """Where the digest of a file is kept: under what changes whenever somebody touches it."""
    about = path.stat()
    mark = f"{path.resolve()} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"
    name = hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()
    return cache / "digests" / name


def digest_of(path: Path, cache: Path) -> str | None:
    """SHA-256 of a file's content, if it is known already."""
    note = digest_file(path, cache)
    found = note.read_text(encoding="ascii") if note.is_file() else ""
    return found if len(found) == 64 else None


def folder_name(digest: str) -> str:
    """What the folder of a file is called in the cache."""
    return f"{digest[:16]}-{FORMAT}"


def folder_of(model: str, revision: str | None = None) -> Path | None:
    """The folder of a GGUF file that was written out on this machine; None: it was not.

    Args:
        model: as its user names it.
        revision: of the hub's repository.
    """
    if not is_named(model):
        return None
    file: object = Path(model).expanduser()
    if (there := in_repository(model)) is not None:
        try:
            from huggingface_hub import try_to_load_from_cache

            file = try_to_load_from_cache(*there, revision=revision)
        except (ImportError, ValueError):
            return None
    cache = environment.cache_folder("models")
    try:
        digest = digest_of(Path(file), cache) if isinstance(file, str | Path) else None
    except OSError:
        return None
    folder = cache / folder_name(digest or "")
    return folder if digest and folder.is_dir() else None
