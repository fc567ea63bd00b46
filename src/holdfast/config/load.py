"""How does a study file become a `Study`, and how is a mistake in it explained?

YAML in, frozen model out. A mistake becomes one `StudyError` that names the file, the line, the key
and the nearest known key; `key=value` overrides from the command line are applied first and are
named as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import AliasChoices, BaseModel, ValidationError

from holdfast.config import Study
from holdfast.errors import StudyError
from holdfast.registry import nearest

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: the YAML file.
        overrides: ``train.learning_rate=1e-4`` and the like; values are YAML.

    Raises:
        StudyError: missing file, broken YAML, unknown key, wrong type, bad override.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise StudyError(
            f"cannot be read: {reason}",
            where=str(path),
            remedy="check the path, or make a study with `holdfast init study.yaml`",
        ) from error
    try:
        data = yaml.safe_load(text)
        lines = _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise StudyError(
            f"is not valid YAML: {problem}",
            where=where,
            remedy="check the indentation and the colons around this line",
        ) from error
    if not isinstance(data, dict):
        raise StudyError(
            "is empty or not a mapping", where=str(path), remedy="see `holdfast init study.yaml`"
        )
    return build(data, overrides, str(path), lines)


def build(
    data: dict[str, Any],
    overrides: Sequence[str],
    source: str,
    lines: Mapping[tuple[Any, ...], int] | None = None,
) -> Study:
    """The study that a mapping describes.

    Args:
        data: what YAML gave; the overrides are written into it.
        overrides: as for `load`.
        source: the file's name, for messages.
        lines: line number per key path, where known.

    Raises:
        StudyError: unknown key, wrong type, bad override.
    """
    for override in overrides:
        _override(data, override)
    return parse(Study, data, source, lines)


def parse(
    model: type[Model],
    data: Any,
    source: str,
    lines: Mapping[tuple[Any, ...], int] | None = None,
    at: tuple[Any, ...] = (),
) -> Model:
    """Validate `data`; every complaint of pydantic becomes a line that a person can act on.

    Args:
        model: the section's class.
        data: what YAML gave.
        source: the file's name, for the message.
        lines: line number per key path, where known.
        at: the path of this section inside the file.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        known_lines = lines or {}
        where, problems = source, []
        for one in error.errors():
            path = tuple(part for part in one["loc"] if not _is_type_tag(part))
            number = _line_of(known_lines, at + path)
            key = ".".join(str(part) for part in at + path)
            problems.append((number, f"{key or 'study'}: {_explain(model, path, one)}"))
        if len(problems) == 1 and problems[0][0]:
            where = f"{source}:{problems[0][0]}"
            text = problems[0][1]
        else:
            text = "\n  ".join(f"line {n}: {t}" if n else t for n, t in problems)
        remedy = "correct it; `holdfast schema` lists every key"
        raise StudyError(text, where=where, remedy=remedy) from error


def known_keys(model: type[BaseModel]) -> list[str]:
    """Every key a section takes, aliases included."""
    return [name for names in _aliases(model) for name in names]


def _aliases(model: type[BaseModel]) -> list[list[str]]:
    """For each field the names it answers to, its own first."""
    groups = []
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else ()
        groups.append(list(dict.fromkeys([name, *map(str, choices)])))
    return groups


def _explain(model: type[BaseModel], path: tuple[Any, ...], error: Any) -> str:
    match error["type"]:
        case "extra_forbidden":
            section = _section(model, path[:-1])
            return f"unknown key{nearest(str(path[-1]), known_keys(section)) if section else ''}"
        case "missing":
            return "is required"
        case "value_error":
            return str(error["ctx"]["error"])
        case _:
            shown = repr(error["input"])
            shown = shown if len(shown) < 60 else shown[:57] + "..."
            return f"{_plainly(error)}, not {shown}"


def _plainly(error: Any) -> str:
    """What was expected, without the words of the library that checks it."""
    match error["type"]:
        case "string_pattern_mismatch":
            return (
                "should be letters, digits, dots, dashes and underscores, beginning with a "
                "letter or digit"
            )
        case "too_short":
            return f"should have at least {error['ctx']['min_length']} entries"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "should be a mapping of keys"
        case _:
            message = str(error["msg"])
            return message[:1].lower() + message[1:]


def _section(model: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel] | None:
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = {k: f.annotation for k, f in current.model_fields.items()}.get(part)
        else:  # dict[str, Section]: the key is the user's own name
            current = next(
                (
                    a
                    for a in getattr(current, "__args__", ())
                    if isinstance(a, type) and issubclass(a, BaseModel)
                ),
                None,
            )
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _is_type_tag(part: Any) -> bool:
    """Pydantic adds the union's branch to the path (``str``, ``tuple[str, ...]``)."""
    return isinstance(part, str) and (part in {"str", "bool", "int"} or "[" in part)


def _line_of(lines: Mapping[tuple[Any, ...], int], path: tuple[Any, ...]) -> int | None:
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _lines(node: yaml.Node | None, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], int]:
    found: dict[tuple[Any, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, key.value)
            found[inner] = key.start_mark.line + 1
            found |= _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*path, index)] = value.start_mark.line + 1
            found |= _lines(value, (*path, index))
    return found


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise StudyError(
            "is not an override", where=override, remedy="write key=value, e.g. train.epochs=1"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StudyError("the value is not YAML", where=override, remedy="quote it") from error
    *parents, last = key.strip().split(".")
    current = data
    for parent in parents:
        inner = current.get(parent)
        if inner is None:
            inner = current[parent] = {}
        if not isinstance(inner, dict):
            raise StudyError(f"{parent} is not a section of the study", where=override)
        current = inner
    section = _section(Study, tuple(parents))
    for names in _aliases(section) if section else ():
        if last in names:  # the override wins over the file, whichever name each of them uses
            for name in names:
                current.pop(name, None)
    current[last] = value
