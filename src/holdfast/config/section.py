"""The base of every section of a study file, and the one rule for names that become folders."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

STRICT = ConfigDict(
    frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True,
    allow_inf_nan=False,
)  # fmt: skip
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
LONGEST_NAME = 100
"""Letters of a name that becomes a folder; file systems take 255 bytes."""
LONGEST_MADE = 2 * LONGEST_NAME
"""The same of a name that is put together: an arm's and the values of its sweep."""
DEVICES = re.compile(r"(con|nul|prn|aux|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""What no file can be called on Windows."""


class Section(BaseModel):
    """The base of every section: frozen, unknown keys refused, `true` is no number."""

    model_config = STRICT

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: object, info: ValidationInfo) -> object:
        if _holds_bool(value) and _takes_numbers(cls, info.field_name or ""):
            raise ValueError(f"should be a number, not {str(value).lower()}")
        return value


def _holds_bool(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(isinstance(one, bool) for one in value.values())
    if isinstance(value, list | tuple):
        return any(isinstance(one, bool) for one in value)
    return isinstance(value, bool)


@lru_cache(maxsize=1024)
def _takes_numbers(section: type[BaseModel], field: str) -> bool:
    """Whether a field takes numbers and no true or false."""
    kinds, todo = set(), [section.model_fields[field].annotation]
    while todo:
        one: Any = todo.pop()
        kinds.add(one)
        todo += get_args(one)
    return bool(kinds & {int, float}) and not kinds & {bool, object, Any, True, False}


def unusable(name: str, longest: int = LONGEST_NAME) -> str:
    """Why a name cannot be that of a folder, whatever it is of; "" where it can.

    Args:
        name: of an arm, a task, a study, a model of a comparison.
        longest: letters that it may have.
    """
    if not re.fullmatch(NAME.removesuffix("$"), name):
        return "letters, digits, dot, dash only"
    if len(name) > longest:
        return f"{longest} letters at most, not {len(name)}"
    if name.casefold().endswith((".tmp", ".")):
        return "ends like a folder that is being worked in"
    if DEVICES.fullmatch(name):
        return "is the name of a device on Windows, so that nobody there could open it"
    return ""


def twins(names: Iterable[str]) -> list[str]:
    """The first names that are one folder where file systems do not tell A from a; [] if none."""
    seen: dict[str, list[str]] = {}
    for name in names:
        seen.setdefault(name.casefold(), []).append(name)
    return next((same for same in seen.values() if len(same) > 1), [])


def made_usable(text: str, longest: int = LONGEST_NAME) -> str:
    """A name that the rule takes, made of whatever a path, a hub id or a server says."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"
    if len(name) > longest:
        mark = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
        name = f"{name[: longest - 9].rstrip('-._')}-{mark}"
    if DEVICES.fullmatch(name):
        name = f"model-{name}"[:longest].rstrip("-._")
    return re.sub(r"\.(tmp)$", r"-\1", name, flags=re.IGNORECASE)
