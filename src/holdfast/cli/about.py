"""Commands that say what there is: keys, tasks, methods, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from pydantic import BaseModel

from holdfast.cli.front import Json, say
from holdfast.registry import Registry


def schema() -> None:
    """Print the JSON schema of a study file: every key, its type, its meaning."""
    from holdfast.config import Study

    typer.echo(json.dumps(Study.model_json_schema(by_alias=False), indent=1, ensure_ascii=False))


def tasks(as_json: Json = False) -> None:
    """List the tasks and the keys that each takes in a study file."""
    from holdfast.config import TaskSpec
    from holdfast.tasks import REGISTRY

    _list(REGISTRY, as_json, ["every task", *_lines(_keys(TaskSpec))])


def methods(as_json: Json = False) -> None:
    """List the remedies, the list of an arm that each belongs to, and its settings."""
    from holdfast.methods import REGISTRY

    _list(REGISTRY, as_json, [])


def _list(registry: Registry[Any], as_json: bool, first: Sequence[str]) -> None:
    found: dict[str, dict[str, str]] = {}
    lines = list(first)
    for name in registry.names():
        made = registry.find(name).make
        found[name] = _keys(made.Options)
        lines.append(f"{name} ({made.entry})" if registry.kind == "methods" else name)
        lines += _lines(found[name])
    say(as_json, found, "\n".join(lines))


def _keys(section: type[BaseModel]) -> dict[str, str]:
    """The keys of a section and what they mean; those that have no default are marked."""
    return {
        key: " ".join([*["(required)"] * field.is_required(), *(field.description or "").split()])
        for key, field in section.model_fields.items()
    }


def _lines(keys: Mapping[str, str]) -> list[str]:
    return [f"    {key:<24} {text}" for key, text in keys.items()]


def doctor(as_json: Json = False) -> None:
    """Show versions and devices, what is missing, and the command that installs it."""
    from holdfast import environment

    about = environment.describe()
    missing = [name for name in environment.PACKAGES if about["versions"][name] is None]
    command = environment.install_command("train", *missing) if missing else None
    lines = [f"{name:<14} {found or 'missing'}" for name, found in about["versions"].items()]
    lines += [f"{'device':<14} {device}" for device in about["devices"]]
    if command:
        lines.append(f"\nMissing packages are needed to train and to answer:\n  {command}")
    say(as_json, {**about, "missing": missing, "install": command}, "\n".join(lines))
