"""How is a plug-in found by its name?

Each family (tasks, methods, judges, engines) is a literal dict from name to ``module:attribute``;
nothing is imported until it is asked for, so the front door stays light. Other packages add their
own through entry points in the group ``holdfast.<family>``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from holdfast.errors import StudyError


def resolve(family: str, known: Mapping[str, str], name: str, where: str = "") -> Any:
    """The object registered as `name`.

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
        remedy=f"known: {', '.join(names)}",
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (did you mean X?)``, or nothing when no name is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
