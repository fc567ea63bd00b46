"""Says what pydantic found wrong in a study, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from pydantic import BaseModel

from holdfast.config.names import ELSEWHERE, FOREIGN, own_names
from holdfast.config.training import TrainSpec
from holdfast.config.yaml_text import KeyPath, Lines
from holdfast.registry import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ABSENT = object()


def known_keys(model: type[BaseModel]) -> list[str]:
    """Every key a section takes, aliases and other programs' names included."""
    return [*own_names(model), *(ELSEWHERE if model is TrainSpec else ())]


def unknown(key: str, section: type[BaseModel] | None) -> str:
    """What to say of a key that a section does not have."""
    elsewhere = {*own_names(TrainSpec), *ELSEWHERE}
    if section is TrainSpec and key in FOREIGN:
        return f"unknown key: {FOREIGN[key]}"
    near = nearest(key[:60], known_keys(section)) if section else ""
    if section is not None and section.__name__ in ("Study", "ModelSpec") and not near:
        if key in FOREIGN:
            return f"unknown key: {FOREIGN[key]}"
        if key in elsewhere:
            return "unknown key: it belongs under `train:`"
    return f"unknown key{near}"


def place_of(data: object, error: ErrorDetails) -> KeyPath:
    """The keys that lead to what is wrong, as the user wrote them.

    Pydantic adds the branch of a union (``str``, ``tuple[str, ...]``) to its own path, so only
    what is there in the data is kept, and the key that is missing.
    """
    path: list[str | int] = []
    current = data
    for part in error["loc"]:
        inner = _inside(current, part)
        if inner is ABSENT and _is_type_tag(part):
            continue
        current = inner
        path.append(part)
    return tuple(path)


def _inside(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part, ABSENT)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return ABSENT


def explained(model: type[BaseModel], path: KeyPath, error: ErrorDetails) -> str:
    """One complaint in words, without the key that it is about."""
    match error["type"]:
        case "extra_forbidden":
            return unknown(str(path[-1]), section_at(model, path[:-1])) if path else "unknown key"
        case "missing":
            return "is required"
        case "value_error":
            return str(error["ctx"]["error"])
        case _:
            given = error["input"]
            if isinstance(given, date):
                return f"{_plainly(error)}, not the date {given}: put quotes around it"
            shown = repr(given) if not isinstance(given, str) else repr(given[:80])
            shown = shown if len(shown) < 60 else shown[:57] + "..."
            return f"{_plainly(error)}, not {shown}"


def _plainly(error: ErrorDetails) -> str:
    """What was expected, without the words of the library that checks it."""
    match error["type"]:
        case "string_pattern_mismatch":
            return (
                "should be letters, digits, dots, dashes and underscores, beginning with a "
                "letter or digit"
            )
        case "too_short":
            return f"should have at least {error['ctx']['min_length']} entries"
        case "invalid_key":
            return "keys are text: put quotes around it"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "should be a mapping of keys"
        case _:
            message = str(error["msg"])
            return message[:1].lower() + message[1:]


def section_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The class of the section that a path leads to; None: it is no section."""
    current: object = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            current = field.annotation if field else None
        else:  # dict[str, Section]: the key is the user's own name
            current = next(
                (
                    argument
                    for argument in getattr(current, "__args__", ())
                    if isinstance(argument, type) and issubclass(argument, BaseModel)
                ),
                None,
            )
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _is_type_tag(part: str | int) -> bool:
    """Pydantic adds the union's branch to the path (``str``, ``tuple[str, ...]``)."""
    return isinstance(part, str) and (part in {"str", "bool", "int", "float"} or "[" in part)


def line_of(lines: Lines, path: KeyPath) -> int | None:
    """The line of a key, or of the innermost section around it that has one."""
    while path:
        found = lines.get(path) or lines.get(tuple(map(str, path)))
        if found:
            return found
        path = path[:-1]
    return None
