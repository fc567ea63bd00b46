"""Finds the files of one split in a folder: plain files, one of the hub's, or a saved data set.

Splits are told by names, as on the hub: a word ``train``, ``test`` or ``validation`` in the name
of a file or of its folder, or ``NAME-00000-of-00003``. Where no file names one, all are one split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from holdfast.data.containers import recognised, suffix_kind
from holdfast.data.reading.files import READ
from holdfast.errors import DataError, printable

SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""Which `save_to_disk` writes into the folder of a data set, and of several splits of one."""
ABOUT = {
    "dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "metadata.json",
}  # fmt: skip
"""Files beside the data that hold no rows."""
WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
    "evaluation": "test", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation",
}  # fmt: skip
"""The words that name a split, with the split that they name."""
PART = re.compile(r"(?P<split>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})$")
DEPTH = 3


def files_of(folder: Path, split: str, config: str | None = None) -> tuple[list[Path], list[str]]:
    """The files of one split, in order, and notes on those that are not read.

    Args:
        folder: that exists.
        split: which is asked for.
        config: the subfolder that is meant, where the set has several configurations.

    Raises:
        DataError: no rows there, no such split, files of several kinds, or a missing part.
    """
    if config is not None:
        folder = _entered(folder, config, "configuration")
    if (folder / SAVED_SPLITS).is_file():
        names = _about(folder / SAVED_SPLITS).get("splits")
        return files_of(_entered(folder, _wanted(folder, split, names or ()), "split"), split)
    if (folder / SAVED).is_file():
        return _saved(folder), []
    found = [path for path in _walk(folder) if suffix_kind(path) and path.name not in ABOUT]
    if not found:
        raise DataError(
            "holds no file of rows", where=str(folder), remedy=f"name another folder; {READ}"
        )
    by_split: dict[str, list[Path]] = {}
    for path in found:
        by_split.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    named = [name for name in by_split if name]
    files = by_split[_wanted(folder, split, named)] if named else found
    _check(folder, files)
    aside = by_split.get("", []) if named else []
    names = ", ".join(printable(path.name) for path in aside)
    return files, [f"{folder.name}: not read, for no split is named: {names}"] if names else []


def _walk(folder: Path, depth: int = DEPTH) -> list[Path]:
    """The files below a folder, sorted; what is hidden is passed over."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_file():
            found.append(path)
        elif path.is_dir() and depth > 1:
            found += _walk(path, depth - 1)
    return found


def _split_of(path: Path) -> str:
    """The split that a file's name says, or its folder's; "": none."""
    stem = path.name.split(".")[0]
    if part := PART.match(stem):
        words = re.split(r"[-._ /]+", part["split"])
        return next((WORDS[word] for word in words if word in WORDS), part["split"])
    for text in (stem, *reversed(path.parts[:-1])):
        for word in re.split(r"[-._ 0-9]+", text.lower()):
            if word in WORDS:
                return WORDS[word]
    return ""


def _wanted(folder: Path, split: str, names: Iterable[str]) -> str:
    known = list(names)
    for one in (split, WORDS.get(split, split)):
        if one in known:
            return one
    raise DataError(
        f"has no split {split}; it has {printable(', '.join(known)) or 'none'}",
        where=str(folder),
        remedy=f"say which: {{path: ..., split: {known[0] if known else 'train'}}}",
    )


def _entered(folder: Path, name: str, what: str) -> Path:
    """A folder within a folder, and nowhere else."""
    inner = folder / name
    if len(Path(name).parts) != 1 or name == ".." or not inner.is_dir():
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise DataError(
            f"has no {what} {printable(name)}; its folders: "
            f"{printable(', '.join(there)) or 'none'}",
            where=str(folder),
            remedy=f"name a folder of it as `{'config' if what == 'configuration' else what}`",
        )
    return inner


def _check(folder: Path, files: Sequence[Path]) -> None:
    """Refuse files of several kinds or configurations, and parts that are not all there."""
    kinds: dict[str, Path] = {}
    for path in files:
        kinds.setdefault(recognised(path), path)
    if len(kinds) > 1:
        examples = ", ".join(f"{printable(path.name)} ({kind})" for kind, path in kinds.items())
        raise DataError(
            f"holds files of several kinds: {examples}",
            where=str(folder),
            remedy="name the files one by one: [a.jsonl, b.csv]",
        )
    tops = {path.relative_to(folder).parts[0] for path in files if path.parent != folder}
    tops = {top for top in tops if top != "data" and not _split_of(Path("-") / top)}
    if len(tops) > 1:
        names = sorted(tops)
        raise DataError(
            f"holds the configurations {printable(', '.join(names))}",
            where=str(folder),
            remedy=f"say which: {{path: ..., config: {names[0]}}}",
        )
    parts: dict[tuple[Path, str, int], set[int]] = {}
    for path in files:
        if part := PART.match(path.name.split(".")[0]):
            key = (path.parent, part["split"], int(part["parts"]))
            parts.setdefault(key, set()).add(int(part["part"]))
    for (_, name, total), there in parts.items():
        if lacking := sorted(set(range(total)) - there):
            raise DataError(
                f"lacks part {lacking[0]:05d} of {total} of {printable(name)}",
                where=str(folder),
                remedy="download it again: a part of the rows is missing",
            )


def _saved(folder: Path) -> list[Path]:
    """The files of what `save_to_disk` wrote, in its order."""
    listed = _about(folder / SAVED).get("_data_files")
    names = [
        one["filename"]
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("filename"), str)
    ]
    if not names or any(Path(name).name != name for name in names):
        raise DataError(
            "names no data files of its folder",
            where=str(folder / SAVED),
            remedy="save the data set again with save_to_disk",
        )
    return [folder / name for name in names]


def _about(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            "cannot be read", where=str(path), remedy="save the data set again with save_to_disk"
        ) from error
    return found if isinstance(found, dict) else {}
