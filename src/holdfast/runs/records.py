"""The record of a finished stage: what was done, and size and digest of every file that came of it.

Names and sizes are compared whenever a run is continued or shipped, digests when a file is read
(`check_file`, which every reader of `holdfast.runs.store` passes) or weights are loaded
(`check_folder`). Folders that were made before records had digests are read unchecked.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.errors import Damaged
from holdfast.runs import sealed

RECORD = "record.json"
CLAIM = "claim.json"
"""Beside what is not finished yet: for which stage it is made."""
MARKER = "run.json"
"""In the run folder itself."""
REWARDS = "rewards.jsonl"
"""In a training's folder: what the answers of each step earned, and how their groups fell out."""
CHECKPOINT = "checkpoint-"
"""How folders begin that may be deleted as a whole, to save room."""
DEEPEST = 12
"""Folders in folders that a stage may have; links can make them endless."""
SHOWN = 5
"""Differences that an error names."""
NEEDED: Mapping[str, tuple[type, ...]] = {
    "fingerprint": (str,), "identity": (dict,), "needs": (dict,), "started": (str,),
    "seconds": (int, float), "summary": (dict,),
}  # fmt: skip
Files = Mapping[str, tuple[int, str]]
"""Size in bytes and SHA-256 by name below the stage's folder."""


def read(folder: Path, needed: Iterable[str] = NEEDED) -> dict[str, Any] | None:
    """The record of a finished stage, or None.

    Args:
        folder: of the stage.
        needed: what must be in it.

    Raises:
        Damaged: it is torn, or was changed.
    """
    path = folder / RECORD
    if not os.path.lexists(path):
        return None
    state = os.lstat(path)
    found = dict(_parsed(path, state.st_size, state.st_mtime_ns, state.st_ino))
    wrong = [
        name for name in needed
        if not isinstance(found.get(name), NEEDED[name]) or isinstance(found[name], bool)
    ]  # fmt: skip
    if wrong or not _are_files(found.get("files", {})):
        what = ", ".join(wrong) or "files"
        raise Damaged(f"is no record of a stage: {what}", where=str(path), remedy=again(folder))
    return found


@functools.lru_cache(maxsize=4096)
def _parsed(path: Path, size: int, changed_ns: int, inode: int) -> dict[str, Any]:
    """What is in a record, once per process and state of the file."""
    return sealed.read(path, again(path.parent))


def _are_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, list) and len(one) == 2
        and isinstance(one[0], int) and isinstance(one[1], str)
        for one in value.values()
    )  # fmt: skip


def finished(folder: Path, needed: Iterable[str] = NEEDED) -> dict[str, Any]:
    """The record of a stage that must be finished.

    Args:
        folder: of the stage.
        needed: what must be in it.

    Raises:
        Damaged: it is not, or its record is torn.
    """
    found = read(folder, needed)
    if found is None:
        raise Damaged("is not finished", where=str(folder), remedy="run the study to its end")
    return found


def summary(folder: Path) -> Summary:
    """What a finished stage says of itself; see `finished`."""
    return Summary(finished(folder, ("summary",))["summary"], folder)


class Summary(dict[str, Any]):
    """Values by name; one that is not there is an error with a remedy."""

    def __init__(self, values: Mapping[str, Any], folder: Path) -> None:
        """Take the values of a stage's record."""
        super().__init__(values)
        self._folder = folder

    def __missing__(self, name: str) -> Any:
        """Refuse.

        Raises:
            Damaged: always.
        """
        where = str(self._folder / RECORD)
        raise Damaged(f"says nothing of {name!r}", where=where, remedy=again(self._folder))


def again(folder: Path) -> str:
    """The remedy that makes a stage again."""
    parts = [folder.name]
    for above in list(folder.parents)[:DEEPEST]:
        if (above / MARKER).is_file() or not above.name:
            break
        parts.append(above.name)
    return f"run again with --rebuild '{'/'.join(reversed(parts))}'"


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and digest of every file below a folder, for its record."""
    return {
        name: (path.stat().st_size, sealed.digest_of_file(path))
        for name, path in sorted(_found(folder).items())
    }


def _found(folder: Path) -> dict[str, Path]:
    return dict(_walk(folder, "", DEEPEST))


def _walk(folder: Path, before: str, depth: int) -> Iterator[tuple[str, Path]]:
    """Everything but what is hidden (a system's own, or unfinished) and what the record is for."""
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(".") or (not before and entry.name in (RECORD, CLAIM)):
            continue
        if entry.is_dir() and depth:
            yield from _walk(Path(entry.path), f"{before}{entry.name}/", depth - 1)
        else:
            yield before + entry.name, Path(entry.path)


def differences(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """What of a stage's files is missing, added, or of another size, one line each.

    A checkpoint that was deleted as a whole is missed when it is asked for, not here.
    """
    if "files" not in record:
        return []
    files: Files = record["files"]
    there = _found(folder)
    lines = [f"{name} is not of this stage" for name in sorted(there.keys() - files.keys())]
    for name, (size, _) in files.items():
        top = name.partition("/")[0]
        if name not in there:
            if not (top.startswith(CHECKPOINT) and not (folder / top).exists()):
                lines.append(f"{name} is missing")
        elif not there[name].is_file():
            lines.append(f"{name} is no file")
        elif (now := there[name].stat().st_size) != size:
            lines.append(f"{name} has {now} bytes instead of {size}")
    return lines


def check_file(path: Path) -> None:
    """Refuse a file of a finished stage that is not as it was when the stage was finished.

    Args:
        path: any file; of one that no stage has made nothing is known.

    Raises:
        Damaged: naming what differs and what makes the stage again.
    """
    place = Path(os.path.abspath(path))
    if (folder := stage_of(place)) is not None:
        _check(folder, finished(folder), place.relative_to(folder).as_posix())


def stage_of(path: Path) -> Path | None:
    """The folder of the finished stage that holds a path; None outside of runs."""
    found = None
    for folder in list(path.parents)[:DEEPEST]:
        if (folder / MARKER).is_file():
            return found
        if found is None and os.path.lexists(folder / RECORD):
            found = folder
    return None


def check_folder(folder: Path) -> None:
    """`check_file` of all files of a folder in a finished stage, such as a checkpoint's weights."""
    place = Path(os.path.abspath(folder))
    stage = stage_of(place / RECORD)
    if stage is None:
        return
    record = finished(stage)
    if lines := differences(stage, record):
        raise Damaged("; ".join(lines[:SHOWN]), where=str(stage), remedy=again(stage))
    for _, path in _walk(place, "", DEEPEST):
        _check(stage, record, path.relative_to(stage).as_posix())


def _check(folder: Path, record: Mapping[str, Any], name: str) -> None:
    if "files" not in record or name == RECORD:
        return
    known = record["files"].get(name)
    path = folder / name
    if known is None:
        wrong = "is not of this stage"
    elif not path.is_file():
        wrong = "is missing"
    elif (size := path.stat().st_size) != known[0]:
        wrong = f"has {size} bytes instead of {known[0]}"
    elif sealed.digest_of_file(path) != known[1]:
        wrong = "was changed after it was written: its digest is another"
    else:
        return
    raise Damaged(wrong, where=str(path), remedy=again(folder))
