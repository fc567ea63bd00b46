"""How is a plug-in found by its name?

Each family (tasks, methods, judges, engines) is a literal dict from name to ``module:attribute``;
nothing is imported until it is asked for, so the front door stays light. Other packages add their
own through entry points in the group ``holdfast.<family>``. What a user has written in a file of
his own is found by the file's path (`from_file`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from holdfast.errors import StudyError


def resolve(
    family: str, known: Mapping[str, str], name: str, where: str = "", hint: str = ""
) -> Any:
    """The object registered as `name`; the remedy for an unknown one ends with `hint`.

    Raises:
        StudyError: no such name; the nearest one is suggested.
    """
    if name in known:
        module, _, attribute = known[name].partition(":")
        return getattr(import_module(module), attribute)
    extra = {point.name: point for point in entry_points(group=f"holdfast.{family}")}
    if name in extra:
        return extra[name].load()
    names = sorted([*known, *extra])
    raise StudyError(
        f"no {family.rstrip('s')} is called {name!r}{nearest(name, names)}",
        where=where,
        remedy=f"known: {', '.join(names)}{hint}",
    )


def names_file(name: str) -> bool:
    """Whether a name is ``path/to/file.py:Class``."""
    return name.rpartition(":")[0].endswith(".py")


def from_file(name: str, members: Iterable[str], where: str = "") -> Any:
    """The class that ``path/to/file.py:Class`` names; the file's code is run.

    Only for what the user wrote into a study: nothing else may bring a path here. The class gets
    ``code``, a hash of its file, so that what it graded is graded again once it was changed.

    Args:
        name: the path, from the working folder, and the class.
        members: what the class must have.
        where: for messages.

    Raises:
        StudyError: no such file or class, the file cannot be run, or a member is missing.
    """
    path, _, attribute = name.rpartition(":")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise StudyError(f"no such file: {path}", where=where, remedy="correct the path")
    code = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    module_name = f"holdfast_file_{file.stem}_{code}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, file)
        if spec is None or spec.loader is None:
            raise StudyError(f"cannot be read as Python: {path}", where=where)
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # pydantic looks a class's annotations up here
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise StudyError(
                f"{path} cannot be run: {type(error).__name__}: {error}",
                where=where,
                remedy=f"`python {path}` shows where",
            ) from error
    found = getattr(sys.modules[module_name], attribute, None)
    if not isinstance(found, type):
        known = [
            key for key, one in vars(sys.modules[module_name]).items() if isinstance(one, type)
        ]
        raise StudyError(
            f"{path} has no class {attribute!r}{nearest(attribute, known)}", where=where,
            remedy="write path/to/file.py:Class",
        )  # fmt: skip
    missing = [one for one in members if not hasattr(found, one)]
    if missing:
        raise StudyError(
            f"{attribute} in {path} lacks {', '.join(missing)}",
            where=where,
            remedy="docs/tasks/your-own.md has a whole task in one file",
        )
    found.code = code  # type: ignore[attr-defined]
    return found


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (did you mean X?)``, or nothing when no name is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
