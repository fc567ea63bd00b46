"""Asks before a run folder has code run or keys sent, since the folder may be somebody else's.

A study file that the user wrote and runs is consent. A study that lies in a run folder is not:
what it names is run, and where it sends keys of the environment to is gone to, only if this user
has run the very same before, or said so with ``holdfast run RUN/study.yaml --dry-run
--trust-code``. Either is remembered by a digest (of code: of its content), in
``holdfast/trusted-code`` below ``$XDG_STATE_HOME`` (``~/.local/state``), so that what changed is
asked about again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from holdfast.config.study import Study
from holdfast.errors import FolderError, UsageError
from holdfast.registry import names_file
from holdfast.runs.records import MARKER

CODE = ("*.py", "*.yaml", "*.yml")
"""Files of a folder of lm-eval tasks that can name code or hold it."""
CODE_NAMED = "code that was never run here"
KEYS = "servers that no key was sent to from here"
TRACKING = "trackers that nothing was sent to from here"
"""What consent is asked for, in words."""


def check(study: Study, file: Path) -> None:
    """Refuse code and receivers of keys that nobody here has consented to.

    Args:
        study: of a run folder; every other is its user's own.
        file: where it stands; nothing is asked of one that lies in no run folder.

    Raises:
        UsageError: it names some; says which, and what to do.
    """
    _check(study.model_dump(mode="json", exclude_unset=True), file)


def check_tracking(track: Mapping[str, Mapping[str, object]], file: Path) -> None:
    """Refuse trackers of a run folder's study, or settings of theirs; see `check`.

    Args:
        track: those that are used, by name, each with the settings that are used.
        file: where the study stands.

    Raises:
        UsageError: nobody here has consented to one of them.
    """
    _check({"track": [{name: options} for name, options in track.items()]}, file)


def _check(said: Mapping[str, object], file: Path) -> None:
    if not (file.parent / MARKER).exists():
        return
    known, new = _trusted(), dict[str, list[str]]()
    for kind, name, mark in _named(said):
        if mark not in known:
            new.setdefault(kind, []).append(name)
    if new:
        told = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in new.items())
        remedy = f"read it; if you trust it: holdfast run {file} --dry-run --trust-code"
        if TRACKING in new:
            remedy += "; to track it elsewhere: holdfast track RUN --to NAME key=value, every key"
        raise UsageError(
            f"the study of this run folder names {told}", where=str(file), remedy=remedy
        )


def give(study: Study, must: bool = True) -> None:
    """Remember that the user has this study's code run, and its keys sent.

    Args:
        study: that the user runs.
        must: raise where nothing can be remembered.

    Raises:
        FolderError: the record cannot be written.
    """
    said = study.model_dump(mode="json", exclude_unset=True)
    new = sorted({mark for _, _, mark in _named(said)} - _trusted())
    if not new:
        return
    try:
        _record().parent.mkdir(parents=True, exist_ok=True)
        with _record().open("a", encoding="utf-8") as file:
            file.write("".join(f"{mark}\n" for mark in new))
    except OSError as error:
        if must:
            raise FolderError(
                f"cannot be written: {error.strerror}",
                where=str(_record()),
                remedy="set XDG_STATE_HOME to a folder that can be written",
            ) from error


def _named(value: object, key: str = "") -> Iterator[tuple[str, str, str]]:
    """What consent is needed for, anywhere in a study: its kind, what it is, and its digest."""
    if isinstance(value, Mapping):
        if value.get("trust_remote_code") is True:
            model = f"{value.get('id')}@{value.get('revision')}"
            local = _digest(Path(str(value.get("id"))), model)
            yield CODE_NAMED, f"the code of the model {value.get('id')}", local
        if value.get("key_env") is not None:
            yield _sent(KEYS, f"${value['key_env']} to {value.get('url')}")
        for name, inner in value.items():
            yield from _named(str(name))
            yield from _named(inner, str(name))
        if key == "track":  # one of its entries: where it goes, and by whose account
            for name, options in value.items():
                for setting, one in (options or {}).items():
                    yield _sent(TRACKING, f"{name}.{setting}={json.dumps(one, sort_keys=True)}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, key)
    elif isinstance(value, str):
        if value.startswith(("http://", "https://")) and "#" in value:  # a model on a server: it
            yield _sent(KEYS, value)  # gets the usual key where the address names none
        path = Path(value.rpartition(":")[0]) if names_file(value) else Path(value)
        a_task = key == "task" and value.endswith((".yaml", ".yml"))
        place = path.parent if a_task else path
        if names_file(value) or a_task or key == "include_path":
            try:
                place = place.expanduser()
                there = place.exists()
            except (OSError, ValueError, RuntimeError):  # no home, a NUL, too long: nothing to run
                there = False
            if there:
                yield CODE_NAMED, str(path), _digest(place, "")


def _sent(kind: str, what: str) -> tuple[str, str, str]:
    return kind, what, hashlib.sha256(f"{kind}: {what}".encode("utf-8", "replace")).hexdigest()


def _digest(place: Path, name: str) -> str:
    """Of a file's content, or of all code in a folder."""
    found = hashlib.sha256(name.encode("utf-8", "replace"))
    files = [place]
    if place.is_dir():
        files = sorted(one for kind in CODE for one in place.rglob(kind))
    for file in files:
        if file.is_file():
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _record() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "holdfast" / "trusted-code"


def _trusted() -> set[str]:
    try:
        return set(_record().read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return set()
