"""Asks before code runs that a run folder names, since the folder may be somebody else's.

A study file that the user wrote and runs is consent. A study that lies in a run folder is not:
what it names is run only if this user has run the very same code before, or said so with
``holdfast run RUN/study.yaml --dry-run --trust-code``. Either is remembered by the code's digest,
in ``holdfast/trusted-code`` below ``$XDG_STATE_HOME`` (``~/.local/state``), so that code which
changed is asked about again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from holdfast.config.study import Study
from holdfast.errors import FolderError, UsageError
from holdfast.registry import names_file
from holdfast.runs.records import MARKER

CODE = ("*.py", "*.yaml", "*.yml")
"""Files of a folder of lm-eval tasks that can name code or hold it."""


def check(study: Study, file: Path) -> None:
    """Refuse code that nobody here has consented to.

    Args:
        study: of a run folder; every other is its user's own.
        file: where it stands; nothing is asked of one that lies in no run folder.

    Raises:
        UsageError: it names such code; says which, and what to do.
    """
    if not (file.parent / MARKER).exists():
        return
    known = _trusted()
    new = [name for name, mark in code_of(study).items() if mark not in known]
    if new:
        raise UsageError(
            "the study of this run folder names code that was never run here: " + ", ".join(new),
            where=str(file),
            remedy=f"read it; if you trust it: holdfast run {file} --dry-run --trust-code",
        )


def give(study: Study, must: bool = True) -> None:
    """Remember that the user has this study's code run.

    Args:
        study: that the user runs.
        must: raise where nothing can be remembered.

    Raises:
        FolderError: the record cannot be written.
    """
    new = sorted(set(code_of(study).values()) - _trusted())
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


def code_of(study: Study) -> dict[str, str]:
    """Code that a study has run besides Holdfast's own: what it is, and its digest."""
    return dict(_named(study.model_dump(mode="json", exclude_unset=True)))


def _named(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if value.get("trust_remote_code") is True:
            model = f"{value.get('id')}@{value.get('revision')}"
            local = _digest(Path(str(value.get("id"))), model)
            yield f"the code of the model {value.get('id')}", local
        for name, inner in value.items():
            yield from _named(str(name))
            yield from _named(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, key)
    elif isinstance(value, str):
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
                yield str(path), _digest(place, "")


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
