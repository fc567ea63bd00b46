"""Reads a study file: YAML in, a frozen `Study` out, every mistake explained.

A mistake becomes one `StudyError` that names the file, the line, the key and the nearest known key;
`key=value` overrides are applied first and are named as such.

Places on disk are taken from the folder of the file that names them, those of overrides from the
working folder; a `Study` that was loaded holds absolute paths only. What names a place is told by
its key (`PLACES`, ``*_path``), or by its form (``file.py:Class``), since the options of a plug-in
are read later by the plug-in itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml
from pydantic import AliasChoices, BaseModel, ValidationError

from holdfast.config.model import LAB
from holdfast.config.study import Study
from holdfast.errors import StudyError
from holdfast.registry import in_folder, names_file, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[str | int, ...]
Lines = Mapping[KeyPath, int]
"""Line numbers by key path."""

PLACES = ("path", "cache")
"""Options that always name a file or folder; so do those that end in ``_path``."""
MODELS = ("model", "id", "teacher")
"""Options that name a hub id, or a folder: where they begin with ``.``, ``/`` or ``~``, or where
there is a folder of that name."""
FREE = ("columns", "extra", "overrides", "sampling", "template_kwargs")
"""Mappings whose keys are somebody else's."""


def load(study: str | Path | Mapping[str, object], overrides: Sequence[str] = ()) -> Study:
    """Read a study.

    Args:
        study: the YAML file, or the mapping that such a file would hold. Relative paths in a file
            are taken from its folder, those in a mapping from the working folder.
        overrides: ``train.learning_rate=1e-4`` and the like, which win over the study; values are
            YAML, and relative paths in them are taken from the working folder.

    Raises:
        StudyError: missing file, broken YAML, unknown key, wrong type, bad override.
    """
    if isinstance(study, Mapping):
        return build(study, overrides, "study")
    file = Path(study).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise StudyError(
            f"cannot be read: {reason}",
            where=str(file),
            remedy="check the path, or make a study with `holdfast init study.yaml`",
        ) from error
    try:
        data = yaml.safe_load(text)
        lines = _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error)
        raise StudyError(
            f"is not valid YAML: {problem}",
            where=where,
            remedy="check the indentation and the colons around this line",
        ) from error
    if not isinstance(data, dict):
        raise StudyError(
            "is empty or not a mapping", where=str(file), remedy="see `holdfast init study.yaml`"
        )
    return build(data, overrides, str(file), lines, file.absolute().parent)


def build(
    data: Mapping[str, object],
    overrides: Sequence[str],
    source: str,
    lines: Lines | None = None,
    folder: Path | None = None,
) -> Study:
    """The study that a mapping describes; the mapping stays as it is.

    Args:
        data: what YAML gave.
        overrides: as for `load`.
        source: the file's name, for messages.
        lines: line number per key path, where known.
        folder: from which relative paths in `data` are taken; None: the working folder.

    Raises:
        StudyError: unknown key, wrong type, bad override.
    """
    changed = anchored(copy.deepcopy(dict(data)), folder or Path.cwd())
    assert isinstance(changed, dict)
    for override in overrides:
        _override(changed, override)
    return parse(Study, changed, source, lines)


def anchored(value: object, folder: Path, key: str = "") -> object:
    """The same with absolute paths.

    Args:
        value: a part of a study as YAML gives it.
        folder: from which relative paths are taken.
        key: under which the value stands.
    """
    if isinstance(value, dict):
        remote = "url" in value  # then `model` is the server's name for it
        return {
            anchored(name, folder): inner
            if name in FREE or (remote and name == "model")
            else anchored(inner, folder, name if isinstance(name, str) else "")
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [anchored(inner, folder, key) for inner in value]
    if isinstance(value, str | Path) and str(value):
        return _anchored(str(value), folder, key)
    return value


def _anchored(text: str, folder: Path, key: str) -> str:
    if names_file(text):
        return in_folder(text, folder)
    place = folder / Path(text).expanduser()
    a_model = key in MODELS and text != LAB
    a_template = key == "chat_template" and "{" not in text
    a_task_file = key == "task" and text.endswith((".yaml", ".yml"))
    if (
        ((key in PLACES or key.endswith("_path")) and "://" not in text)
        or a_task_file
        or a_template
        or (a_model and (text.startswith((".", "/", "~")) or place.is_dir()))
    ):
        return str(place)
    return text


def parse(
    model: type[Model],
    data: object,
    source: str,
    lines: Lines | None = None,
    at: KeyPath = (),
) -> Model:
    """Validate `data`; every complaint of pydantic becomes a line that a person can act on.

    Args:
        model: the section's class.
        data: what YAML gave.
        source: the file's name, for the message.
        lines: line number per key path, where known.
        at: the path of this section inside the file.

    Raises:
        StudyError: unknown key, wrong type, impossible value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        known_lines = lines or {}
        where, problems = source, []
        for problem in error.errors():
            path = tuple(part for part in problem["loc"] if not _is_type_tag(part))
            number = _line_of(known_lines, at + path)
            key = ".".join(str(part) for part in at + path)
            problems.append((number, f"{key or 'study'}: {_explain(model, path, problem)}"))
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


def _explain(model: type[BaseModel], path: KeyPath, error: ErrorDetails) -> str:
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
        case "model_type" | "dict_type" | "model_attributes_type":
            return "should be a mapping of keys"
        case _:
            message = str(error["msg"])
            return message[:1].lower() + message[1:]


def _section(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
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
    return isinstance(part, str) and (part in {"str", "bool", "int"} or "[" in part)


def _line_of(lines: Lines, path: KeyPath) -> int | None:
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _lines(node: yaml.Node | None, path: KeyPath = ()) -> dict[KeyPath, int]:
    found: dict[KeyPath, int] = {}
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


def _override(data: dict[str, object], override: str) -> None:
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
    of_a_server = last == "model" and "url" in current
    if not of_a_server and not {*parents, last} & set(FREE):
        value = anchored(value, Path.cwd(), last)
    current[last] = value
