"""Rows of files as dataclasses again; one of another shape is refused by file and line."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from holdfast.errors import DataError
from holdfast.types import Example, Message

Row = TypeVar("Row")
"""A dataclass, such as `Example`, `Reply`, `Verdict` and `Reading`."""


def as_row(row: type[Row], value: object, path: Path | str, number: int = 0) -> Row:
    """One row of the shape of a dataclass.

    Args:
        row: the dataclass.
        value: what came of JSON; keys that are no fields are left out.
        path: of the file, for messages.
        number: of its line; 0: none is named.

    Raises:
        DataError: it is of another shape.
    """
    if not isinstance(value, dict):
        raise _misshapen(row, "is no object", path, number)
    make: Callable[..., Row] = row
    kept: dict[str, Any] = {}
    for name, kinds, needed in _shape(make):
        if name in value:
            found = kept[name] = value[name]
            if kinds and type(found) not in kinds:
                raise _misshapen(row, f"{name} cannot be {type(found).__name__}", path, number)
        elif needed:
            raise _misshapen(row, f"has no {name!r}", path, number)
    if row is Example:
        where = f"{path}:{number}"
        kept["messages"] = tuple(as_row(Message, one, where) for one in kept["messages"])
        kept["tools"] = tuple(kept.get("tools", ()))
    return make(**kept)


def _misshapen(row: type, what: str, path: Path | str, number: int) -> DataError:
    return DataError(
        f"{what}, so it is no {row.__name__}",
        where=f"{path}:{number}" if number else str(path),
        remedy="the file was not written by Holdfast, or was changed since; make it again",
    )


JSON_KINDS: Mapping[object, tuple[type, ...]] = {
    str: (str,), int: (int,), float: (float, int, bool), bool: (bool,), type(None): (type(None),),
    Mapping: (dict,), dict: (dict,), tuple: (list,),
}  # fmt: skip
"""How a value of a type comes back from JSON."""


@functools.cache
def _shape(row: Callable[..., object]) -> tuple[tuple[str, frozenset[type], bool], ...]:
    """Name of each field, as what it can come back from JSON, and whether it must be there."""
    made: Any = row
    hints = get_type_hints(made)
    return tuple(
        (
            one.name,
            frozenset(_kinds(hints[one.name])),
            one.default is MISSING and one.default_factory is MISSING,
        )
        for one in fields(made)
        if one.init
    )


def _kinds(hint: Any) -> Iterator[type]:
    origin = get_origin(hint) or hint
    if origin is Literal:
        yield from {type(one) for one in get_args(hint)}
    elif origin in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _kinds(one)
    else:
        yield from JSON_KINDS.get(origin, ())
