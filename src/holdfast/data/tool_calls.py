"""Reads tool calls and the tools themselves as chat templates of transformers expect them.

Both are ``{"type": "function", "function": {"name": ...}}``, a call's arguments an object; files
write the function alone, or either as the JSON of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.data.cells import absent, blank, kind, parsed, shown, text
from holdfast.errors import DataError

TOOLS = 'write [{"type": "function", "function": {"name": "...", "parameters": {...}}}]'


def calls(value: object, where: str) -> list[dict[str, Any]]:
    """Tool calls as chat templates read them: ``{"type", "function": {"name", "arguments"}}``.

    Args:
        value: a call, a list of them, or their JSON; a call may be the function alone, and its
            arguments an object or the JSON of one.
        where: for messages.

    Raises:
        DataError: it is something else.
    """
    value = parsed(value, where)
    some = [value] if isinstance(value, Mapping) else value
    if not isinstance(some, list | tuple) or not some:
        raise DataError(
            f"is {kind(value)}, not a tool call",
            where=where,
            remedy='write {"name": "...", "arguments": {...}}, or a list of such objects',
        )
    return [_call(one, where) for one in some]


def _call(value: object, where: str) -> dict[str, Any]:
    value = parsed(value, where)
    whole: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    named = whole.get("function", whole)
    if not isinstance(named, Mapping) or blank(named.get("name")):
        raise DataError(
            f"holds {kind(value)}, which names no function to call",
            where=where,
            remedy='write {"name": "...", "arguments": {...}}',
        )
    given = named.get("arguments", named.get("parameters"))
    arguments = {} if blank(given) else parsed(given, f"{where}: arguments")
    if not isinstance(arguments, Mapping):
        raise DataError(
            f"calls {shown(named['name'])} with {kind(arguments)} as its arguments",
            where=where,
            remedy='write them by name: "arguments": {"city": "..."}',
        )
    function = {"name": text(named["name"], where), "arguments": dict(arguments)}
    beside = ("id",) if named is whole else [one for one in whole if one != "function"]
    kept = {key: whole[key] for key in beside if not absent(whole.get(key))}
    return {**kept, "type": "function", "function": function}


def schemas(value: object, where: str) -> tuple[dict[str, Any], ...]:
    """The functions that a model may call: ``{"type": "function", "function": {"name", ...}}``.

    Args:
        value: a list of such objects or of the functions alone, or its JSON.
        where: for messages.

    Raises:
        DataError: it is something else.
    """
    value = parsed(value, where)
    some = [value] if isinstance(value, Mapping) and value else value
    if not isinstance(some, list | tuple):
        raise DataError(f"is {kind(value)}, not a list of tools", where=where, remedy=TOOLS)
    return tuple(_schema(one, f"{where}: tool {number}") for number, one in enumerate(some, 1))


def _schema(value: object, where: str) -> dict[str, Any]:
    value = parsed(value, where)
    whole: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    named = whole.get("function", whole)
    if not isinstance(named, Mapping) or not isinstance(named.get("name"), str):
        raise DataError(f"is {kind(value)}, which names no function", where=where, remedy=TOOLS)
    if named is not whole:
        return dict(whole)
    function = {key: part for key, part in whole.items() if key != "type"}
    return {"type": "function", "function": function}
