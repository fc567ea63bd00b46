"""Reads a study file: YAML in, a frozen `Study` out, every mistake explained.

A mistake becomes one `StudyError` that names the file, the line, the key and the nearest known key;
`key=value` overrides are applied first and are named as such.

Places on disk are taken from the folder of the file that names them, those of overrides from the
working folder (`config.places`); a `Study` that was loaded holds absolute paths only.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from holdfast.config import consent
from holdfast.config.mistakes import explained, line_of, place_of
from holdfast.config.places import FREE, anchored
from holdfast.config.programs import program_of
from holdfast.config.study import Study
from holdfast.config.training import own_name
from holdfast.config.yaml_text import DEEPEST, KeyPath, Lines, full_width_told, read_yaml
from holdfast.errors import StudyError, located
from holdfast.registry import nearest

Model = TypeVar("Model", bound=BaseModel)
MOST_BYTES = 500_000
"""Of a study file; the longest of ours has 4,000."""
FIRST = "check the indentation and the colons around this line"

NAMED = ("arms", "tasks", "ship.retain", "meters.stop")
"""Sections whose keys a study chooses itself; an override that says `null` leaves one out."""


def load(
    study: str | Path | Mapping[str, object],
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> Study:
    """Read a study.

    Args:
        study: the YAML file, or the mapping that such a file would hold. Relative paths in a file
            are taken from its folder, those in a mapping from the working folder.
        overrides: ``train.learning_rate=1e-4`` and the like, which win over the study; values are
            YAML, and relative paths in them are taken from the working folder.
        trust_code: run what the study of a run folder names, now and later (`config.consent`).

    Raises:
        StudyError: missing file, broken YAML, unknown key, wrong type, bad override.
        UsageError: the study of a run folder names code that was never run here.
    """
    if isinstance(study, Mapping):
        return build(study, overrides, "study")
    file, text = _text(Path(study))
    with full_width_told(text):
        return _read(file, text, overrides, trust_code)


def _read(file: Path, text: str, overrides: Sequence[str], trust_code: bool) -> Study:
    data, lines = read_yaml(text, str(file), FIRST)
    if not isinstance(data, dict):
        raise StudyError(
            "is empty or not a mapping", where=str(file), remedy="see `holdfast init study.yaml`"
        )
    if program := program_of(data):
        raise StudyError(
            f"is a file of {program}", where=str(file),
            remedy=f"`holdfast import {file} study.yaml` makes a study of it",
        )  # fmt: skip
    found = build(data, overrides, str(file), lines, file.absolute().parent)
    if trust_code:
        consent.give(found)
    consent.check(found, file)
    return found


def _text(path: Path) -> tuple[Path, str]:
    remedy = "check the path, or make a study with `holdfast init study.yaml`"
    try:
        file = path.expanduser()
        if file.exists() and not file.is_file():
            raise StudyError("is no file", where=str(path), remedy=remedy)
        with file.open("rb") as stream:
            found = stream.read(MOST_BYTES + 1)
        if len(found) > MOST_BYTES:
            raise StudyError(
                f"has more than {MOST_BYTES:,} bytes: that is no study", where=str(path),
                remedy="data belongs into files of its own, which a task names",
            )  # fmt: skip
        return file, found.decode("utf-8-sig")
    except UnicodeError as error:
        raise StudyError(
            "cannot be read: not UTF-8 text", where=str(path), remedy=remedy
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StudyError(f"cannot be read: {reason}", where=str(path), remedy=remedy) from error


def said(overrides: Sequence[str]) -> dict[str, object]:
    """The sections that overrides alone describe, for what needs no whole study.

    Raises:
        StudyError: a bad override.
    """
    found: dict[str, object] = {}
    for override in overrides:
        _override(found, override)
    _check_keys(found, "the command line", {})
    return found


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
    with located(source):
        changed = anchored(copy.deepcopy(dict(data)), folder or Path.cwd())
    assert isinstance(changed, dict)
    for override in overrides:
        _override(changed, override)
    _check_keys(changed, source, lines or {})
    _check_tasks(data.get("tasks"), overrides)
    return parse(Study, changed, source, lines)


def _check_tasks(tasks: object, overrides: Sequence[str]) -> None:
    """Refuse a setting of a task that the study does not have, and does not become by its kind.

    Raises:
        StudyError: with the tasks that there are.
    """
    if not isinstance(tasks, Mapping) or not tasks:
        return
    words = {override: [part.strip() for part in override.split(".")] for override in overrides}
    made = {one[1] for one in words.values() if len(one) > 2 and one[2].startswith("kind")}
    for override, (section, *rest) in words.items():
        name = rest[0].partition("=")[0].strip() if rest else ""
        if section == "tasks" and len(rest) > 1 and name not in tasks and name not in made:
            raise StudyError(
                f"no task is called {_shown(name)!r}{nearest(name, map(str, tasks))}",
                where=_shown(override),
                remedy=f"this study has {', '.join(map(str, tasks))}; to add one, give its kind: "
                f"tasks.{_shown(name)}.kind=...",
            )


def _check_keys(data: object, source: str, lines: Lines) -> None:
    """Refuse keys that are no text: YAML reads `1:`, `on:` and `2024-01-01:` as something else.

    Raises:
        StudyError: naming the first.
    """
    todo: list[tuple[KeyPath, object]] = [((), data)]
    while todo:
        path, one = todo.pop()
        if isinstance(one, Mapping):
            for key, inner in one.items():
                if not isinstance(key, str):
                    number = line_of(lines, (*path, str(key)))
                    place = ".".join(_shown(part) for part in (*path, str(key)))
                    raise StudyError(
                        f"{place}: keys are text, and {_shown(str(key))} is none to YAML",
                        where=f"{source}:{number}" if number else source,
                        remedy="put quotes around it",
                    )
                todo.append(((*path, key), inner))
        elif isinstance(one, list | tuple):
            todo += [((*path, index), inner) for index, inner in enumerate(one)]


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
            path = place_of(data, problem)
            number = line_of(known_lines, at + path)
            key = ".".join(_shown(part) for part in at + path)
            problems.append((number, f"{key or 'study'}: {explained(model, path, problem)}"))
        if len(problems) == 1 and problems[0][0]:
            where = f"{source}:{problems[0][0]}"
            text = problems[0][1]
        else:
            text = "\n  ".join(f"line {n}: {t}" if n else t for n, t in problems)
        remedy = "correct it; `holdfast schema` lists every key"
        raise StudyError(text, where=where, remedy=remedy) from error


def _shown(part: str | int) -> str:
    text = str(part)
    return text if len(text) <= 60 else text[:57] + "..."


def _override(data: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, last = (part.strip() for part in key.split("."))
    if not equals or not all((*parents, last)) or len(parents) > DEEPEST:
        raise StudyError(
            "is not an override", where=_shown(override) or "an empty setting",
            remedy="write key=value, e.g. train.epochs=1",
        )  # fmt: skip
    value, _ = read_yaml(text, _shown(override), "quote it: the value is read as YAML")
    current = data
    for number, parent in enumerate(parents, 1):
        inner = current.get(parent)
        if inner is None:
            inner = current[parent] = {}
        elif current is data and parent == "model" and isinstance(inner, str):
            inner = current[parent] = {"id": inner}  # a bare name is short for this
        if not isinstance(inner, dict):
            raise StudyError(
                f"{_shown(parent)} is not a section of the study", where=_shown(override),
                remedy=f"give {'.'.join(parents[:number])} as a whole, or see `holdfast schema`",
            )  # fmt: skip
        current = inner
    _forget(data, parents, last)
    of_a_server = last == "model" and "url" in current
    if not of_a_server and not {*parents, last} & set(FREE):
        with located(_shown(override)):
            value = anchored(value, Path.cwd(), last)
    if value is None and ".".join(parents) in NAMED:
        _drop(current, parents, last, override)
    else:
        current[last] = value


def _drop(entries: dict[str, object], parents: Sequence[str], name: str, override: str) -> None:
    """Leave out what a study has under a name of its own: `arms.sft=null`."""
    if name not in entries:
        raise StudyError(
            f"there is no {'.'.join(parents)}.{_shown(name)} to leave out"
            f"{nearest(name, map(str, entries))}",
            where=_shown(override),
            remedy=f"this study has {', '.join(map(str, entries)) or 'none'}",
        )
    del entries[name]


def _forget(data: Mapping[str, object], parents: Sequence[str], last: str) -> None:
    """Drop what the study says of a setting of `train` under any of its names: overrides win."""
    root = 1 if parents[:1] == ["train"] else 3 if parents[:1] == ["arms"] else 0
    if not root or len(parents) < root or parents[root - 1] != "train":
        return
    train: object = data
    for parent in parents[:root]:
        assert isinstance(train, Mapping)
        train = train[parent]
    assert isinstance(train, MutableMapping)
    wanted = own_name(".".join((*parents[root:], last)))
    for section, prefix in ((train, ""), (train.get("lora"), "lora.")):
        if not isinstance(section, MutableMapping):
            continue
        for name in list(section):
            own = own_name(f"{prefix}{name}")
            if name != "lora" and (own == wanted or own.startswith(f"{wanted}.")):
                del section[name]
