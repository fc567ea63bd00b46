"""Names of what is not finished yet, and the clearing of what a killed process left of it.

``.NAME.PID-TOKEN.part`` lies beside NAME and is renamed to it when it is whole. Once the process is
gone nobody will finish it, and the next one that holds the folder clears it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

PART = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d{1,9})-[0-9a-f]{8}\.part", re.DOTALL)
KEPT_LETTERS = 120
"""Of a long name; the token makes it unique anyway."""


def beside(path: Path) -> Path:
    """A new name in the folder of `path` for what will become it."""
    return path.with_name(f".{path.name[:KEPT_LETTERS]}.{os.getpid()}-{secrets.token_hex(4)}.part")


def settle(folder: Path) -> None:
    """Make the disk keep the names in a folder; where that is not possible, it does in time."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder so that it is there as a whole or not at all, whenever this is killed."""
    gone = beside(folder)
    os.replace(folder, gone)
    if gone.is_symlink() or not gone.is_dir():
        gone.unlink()
    else:
        shutil.rmtree(gone)


def clear(folder: Path, deep: bool = True, name: str | None = None) -> None:
    """Remove what processes that are gone have left unfinished.

    Args:
        folder: where; of a run folder only by whoever holds its lock.
        deep: in all folders below, too.
        name: only of this file or folder; None: of any.
    """
    for entry in list(os.scandir(folder)):
        found = PART.fullmatch(entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        if found is not None and (name is None or found["name"] == name[:KEPT_LETTERS]):
            if _lives(int(found["pid"])):
                continue
            if is_folder:
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink(missing_ok=True)
        elif is_folder and deep:
            clear(Path(entry.path))


def _lives(pid: int) -> bool:
    """Whether another process is at work; a number that is our own was somebody else's before."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
