"""Makes, recognises and holds a run folder as a whole; what is in it is `holdfast.runs.store`'s."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.errors import Damaged, FolderError
from holdfast.runs import records, sealed, store, temporary

FORMAT = 2
"""Of run folders; raised whenever what an older version left can no longer be continued or read."""
MARKER = records.MARKER
WORKERS = "workers"
"""In a run folder: locks and logs of the processes that make its stages."""
WORKER_ENDS_S = 90.0
"""A worker elsewhere notices within a minute that nobody is there any more."""
HOLDER, GUARD = "lock.json", ".lock"
"""In a run folder: which process holds it, and the lock itself, which is touched meanwhile."""
BEAT_S = 5.0
"""How often."""
MEND = (
    f'if this version made the run, write {{"format": {FORMAT}}} into the file; else give the '
    "study another `name` and run it again"
)


def open_run(folder: Path) -> None:
    """Make `folder` a run folder.

    Raises:
        FolderError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        from importlib.metadata import version  # takes longer than all else of this module

        store.write_sealed(folder / MARKER, {"format": FORMAT, "holdfast": version("holdfast")})
    except OSError as error:
        raise FolderError(
            f"cannot be written: {error.strerror}",
            where=str(folder),
            remedy="choose another place with --runs-dir, or mend the permissions",
        ) from error


def check_run(folder: Path, must_exist: bool = False) -> None:
    """Refuse a folder that is something else, or a run whose layout this version does not know.

    Args:
        folder: a run folder, or where one is to be.
        must_exist: also refuse a folder that is not there yet.

    Raises:
        FolderError: naming what it is and what to do.
    """
    marker = folder / MARKER
    if not marker.is_file():
        if must_exist or (folder.exists() and not _is_empty(folder)):
            raise FolderError(
                f"is not a run folder (it has no {MARKER})",
                where=str(folder),
                remedy="name the folder that `holdfast run` or `holdfast demo` printed",
            )
        return
    found = _format_of(marker)
    if found == FORMAT:
        _check_inside(folder)
        return
    if isinstance(found, int) and found < FORMAT:
        raise FolderError(
            f"is of run format {found}, made by an older version of Holdfast (this one reads "
            f"format {FORMAT})",
            where=str(folder),
            remedy="give the study another `name` (of a comparison: --name) and run it again; its "
            "report/ can still be opened as it is",
        )
    raise FolderError(
        f"is of run format {found!r}, which this version of Holdfast does not know (it reads "
        f"format {FORMAT})",
        where=str(folder),
        remedy="open it with the version that made it, or give the study another `name`",
    )


def _is_empty(folder: Path) -> bool:
    """Whether nothing is in it but what a process has left that died when it had just begun."""
    return folder.is_dir() and all(temporary.PART.fullmatch(one.name) for one in folder.iterdir())


def _check_inside(folder: Path) -> None:
    """Refuse what leads out of a run folder, or has no end: it may be somebody else's.

    Raises:
        FolderError: a link that leads elsewhere, a pipe, a device.
    """
    root, waiting = folder.resolve(), [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for one in entries:
                why = ""
                if one.is_symlink():
                    if not Path(os.path.realpath(one.path)).is_relative_to(root):
                        why = "is a link that leads out of the run folder"
                elif one.is_dir(follow_symlinks=False):
                    waiting.append(one.path)
                elif not one.is_file(follow_symlinks=False):
                    why = "is no file, but a pipe, a socket or a device"
                if why:
                    raise FolderError(
                        why,
                        where=one.path,
                        remedy="put what it stands for in its place, or remove it; nothing outside "
                        "of a run folder is read or deleted for it",
                    )


def _format_of(marker: Path) -> object:
    """The format that a run folder's marker names; the first was called a schema."""
    value = sealed.read(marker, MEND)
    return value.get("format", value.get("schema"))


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the run folder alone; the operating system lets go of it even after ``kill -9``.

    What a killed process has left unfinished there is cleared, once its workers have ended.

    Raises:
        FolderError: another run is using it, or a worker of one that has ended.
    """
    from filelock import FileLock, Timeout

    holder = folder / HOLDER
    guard = FileLock(folder / GUARD)
    try:
        guard.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(
            f"another run is using this folder (process {_holder(holder)})",
            where=str(folder),
            remedy="wait for it, stop it, or give this study another `name`",
        ) from error
    try:
        _outlive_workers(folder)
        temporary.clear(folder)
        store.write_json(holder, {"pid": os.getpid()})
        with _beating(folder / GUARD):
            yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()


@contextmanager
def _beating(guard: Path) -> Iterator[None]:
    """Let other machines see that this process lives: they may not ask for its lock."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.is_set():
            with suppress(OSError):
                os.utime(guard)
            ended.wait(BEAT_S)

    threading.Thread(target=beat, name="beat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def last_beat(folder: Path) -> int:
    """What changes every few seconds while a run folder is held; 0 where it never was."""
    with suppress(OSError):
        return (folder / GUARD).stat().st_mtime_ns
    return 0


def _outlive_workers(folder: Path) -> None:
    """Wait until no worker of an earlier run lives: each holds a lock of its own meanwhile.

    Raises:
        FolderError: one does not end.
    """
    from filelock import FileLock, Timeout

    for file in sorted((folder / WORKERS).glob("*.lock")):
        try:
            with FileLock(file, timeout=WORKER_ENDS_S):
                pass
        except Timeout as error:
            raise FolderError(
                f"a worker of an earlier run still writes into this folder ({file.stem}: machine "
                "and process)",
                where=str(folder),
                remedy="it ends by itself when it has noticed that its run is over; else end it",
            ) from error
        file.unlink(missing_ok=True)


def is_held(lock: str) -> bool:
    """Whether a process holds a lock that it took for as long as it lives."""
    from filelock import FileLock, Timeout

    if not lock or not os.path.isfile(lock):
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # the disk does not say
        return False


def _holder(file: Path) -> object:
    try:
        return sealed.read(file, "").get("pid", "?")
    except Damaged:
        return "?"
