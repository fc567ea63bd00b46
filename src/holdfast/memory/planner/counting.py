"""Counts a model by its own class, and by its fields only where they are known to tell its size.

The class is built on the meta device in a process of its own, without weights. What it says is
what a plan uses; a family that transformers does not know, and one whose fields do not tell its
size where the class cannot be asked, is refused: no size is guessed.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.environment import install_command
from holdfast.errors import ModelError
from holdfast.memory.model.catalogue import Found
from holdfast.memory.model.names import OWN_CODE, is_known, require_family
from holdfast.memory.model.reading import is_counted, of_class
from holdfast.memory.model.shape import Shape, from_config
from holdfast.memory.planner.ways import Reason
from holdfast.memory.trace.counts import class_parts

DIFFERS = 0.001
"""From which difference on it is told that the fields say something else."""


def shape_by_class(
    found: Found, revision: str | None, trust: bool, cache: Path | None = None, ask: bool = True
) -> Shape:
    """The shape of a model with the parameters that its own class has; see `counted`."""
    return counted(found, revision, trust, cache, ask)[0]


def counted(
    found: Found, revision: str | None, trust: bool, cache: Path | None = None, ask: bool = True
) -> tuple[Shape, Reason | None]:
    """The shape of a model with the parameters that its own class has, and what to say of that.

    Args:
        found: its config.json.
        revision: of the hub's repository.
        trust: run the Python code that the model brings, where transformers has none for it.
        cache: folder of earlier counts; None: the usual one.
        ask: also ask the class of a family that is counted by its fields, to compare.

    Raises:
        ModelError: transformers does not know its family, and its own code may not be run or
            cannot be built; or its fields do not tell its size, and its class cannot be asked.
    """
    config = found.config
    kind = str(config.get("model_type") or "")
    if found.listed:
        return _by_fields(found), None
    own = trust and bool(config.get("auto_map")) and not is_known(kind)
    if not own:
        require_family(kind, config, found.name)
        if kind in OWN_CODE or (is_counted(found) and not ask):
            return _by_fields(found), None
    told = class_parts(found, revision, own, cache)
    if reason := told.get("reason"):
        return _unasked(found, kind, own, str(reason))
    try:
        shape = None if own else _by_fields(found)
    except ModelError:  # its fields are called otherwise
        shape = None
    if shape is None:
        return of_class(found, told), Reason("counted_code" if own else "counted_class", {})
    off = shape.parameters / int(str(told["total"])) - 1
    if is_counted(found) and off == 0:
        return shape, None
    said = Reason("counted_off", {"off": f"{100 * off:+.1f}"}) if abs(off) > DIFFERS else None
    return of_class(found, told), said


def _by_fields(found: Found) -> Shape:
    return from_config(found.config, found.name, found.source, found.parts, found.note)


def _unasked(found: Found, kind: str, own: bool, reason: str) -> tuple[Shape, Reason | None]:
    """The shape by the fields where they tell it, which is said.

    Raises:
        ModelError: they do not.
    """
    if own:
        raise ModelError(
            f"transformers does not know its kind, {kind[:60]!r}, and its own code cannot be "
            f"built here: {reason}",
            where=found.name,
            remedy="download it first (its code is read from the hub's cache), install what its "
            "code imports, or for a first idea plan a model of the catalogue that is as large",
        )
    missing = reason.endswith("not installed")
    if is_counted(found):
        return _by_fields(found), None if missing else Reason("counted_fields", {"why": reason})
    if missing:
        raise ModelError(
            f"the fields of its config.json do not tell the size of a {kind[:60]}, and its class "
            f"cannot be asked: {reason}",
            where=found.name,
            remedy=f"{install_command('train', 'transformers')}, or for a first idea plan a model "
            "of the catalogue that is as large",
        )
    raise ModelError(
        f"the fields of its config.json do not tell the size of a {kind[:60]}, and transformers "
        f"cannot build its class: {reason}",
        where=found.name,
        remedy="correct what is named in its config.json, install what is missing, try again where "
        "it took too long, or for a first idea plan a model of the catalogue that is as large",
    )
