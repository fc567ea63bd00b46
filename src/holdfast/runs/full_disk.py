"""Says in words that a disk is full, however the library that noticed it tells of it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import HoldfastError

NEARLY_NOTHING_BYTES = 1 << 20
FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")
"""How libraries that are not written in Python tell of a full disk."""


@contextmanager
def explained_disk(place: Path) -> Iterator[None]:
    """Say in words when the disk that holds `place` is full, however a library tells of it.

    Raises:
        HoldfastError: it is.
    """
    try:
        yield
    except Exception as error:  # torch, tokenizers and safetensors have their own for this
        if isinstance(error, HoldfastError) or not _disk_full(error, place):
            raise
        raise HoldfastError(
            "the disk is full; everything finished is kept",
            where=str(place),
            remedy="make room and run the same command again: it continues from here",
        ) from error


def _disk_full(error: Exception, place: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(words in str(error) for words in FULL):
        return True
    if not isinstance(error, OSError | RuntimeError):
        return False
    there = next(one for one in (place, *place.absolute().parents) if one.exists())
    return shutil.disk_usage(there).free < NEARLY_NOTHING_BYTES
