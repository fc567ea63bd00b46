"""What there is to choose from: every task, remedy, judge and recipe in a line, and on a page.

What is told comes from the plug-ins themselves: the purpose and the sources from the docstring of
the file (of the class, where a file holds several), settings from its `Options`. So a plug-in of
another package, or of a file of the user's own, has a page too.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from holdfast.progress import translation
from holdfast.progress.language import wrapped
from holdfast.registry import Registry, names_file

Kind = TypeVar("Kind")
SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi:[^\s,)]+|https?://[^\s,)]+")
LEFT_OUT = "left out"
PACKAGE = "holdfast"
WIDEST, NARROWEST = 100, 40


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a plug-in.

    Attributes:
        default: as YAML has it; "" where the key is required.
        meaning: in words.
    """

    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to choose.

    Attributes:
        name: as a study gives it.
        group: the list of an arm that a remedy belongs to; "" elsewhere.
        purpose: a line.
        about: the paragraphs that follow it.
        source: papers and the like; whose it is where there are none.
        settings: by key.
    """

    name: str
    group: str
    purpose: str
    about: str
    source: str
    settings: Mapping[str, Setting]


def entries(registry: Registry[Kind]) -> list[Entry]:
    """Everything that is registered."""
    return [entry(registry, name) for name in registry.names()]


def entry(registry: Registry[Kind], name: str) -> Entry:
    """One of them; the name may be ``file.py:Class``, whose code is run.

    Raises:
        StudyError: no such name.
    """
    plugin = registry.find(name, f"{PACKAGE} {registry.kind}")
    make = plugin.make
    of_class, of_file = _docs(make)
    alone = sum(_module(other) == make.__module__ for other in registry.known.values()) <= 1
    doc = of_file if alone and of_file and not names_file(name) else of_class or of_file
    purpose, _, about = doc.partition("\n\n")
    purpose = " ".join(purpose.split())
    source = list(
        dict.fromkeys(one.rstrip(".") for one in SOURCE.findall(f"{of_class}\n{of_file}"))
    )
    return Entry(
        name,
        str(getattr(make, "entry", "")),
        purpose,
        about.strip(),
        ", ".join(source) or _whose(make),
        settings(plugin.options),
    )


def _module(target: str) -> str:
    return target.partition(":")[0]


def _docs(make: type) -> tuple[str, str]:
    """The docstrings of a class, its own, and of its file."""
    module = sys.modules.get(make.__module__)
    return inspect.cleandoc(make.__doc__ or ""), inspect.cleandoc(
        getattr(module, "__doc__", "") or ""
    )


def _whose(make: type) -> str:
    package = make.__module__.partition(".")[0]
    if package == PACKAGE:
        return "Holdfast's own"
    return (
        "a file of your own" if package.startswith("holdfast_file_") else f"the package {package}"
    )


def settings(section: type[BaseModel]) -> dict[str, Setting]:
    """The keys of a section, what they are when they are left out, and what they mean."""
    return {
        key: Setting(_default(field), " ".join((field.description or "").split()))
        for key, field in section.model_fields.items()
    }


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return LEFT_OUT
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    return value if isinstance(value, str) and value else json.dumps(value, default=str)


def listed(found: Sequence[Entry], groups: Mapping[str, str], after: str) -> str:
    """A line or two for each.

    Args:
        found: in order.
        groups: headings by `Entry.group`; empty: none.
        after: the last line.
    """
    wide = max(len(one.name) for one in found) + 4
    lines: list[str] = []
    for group in groups or [""]:
        lines += ["", *_wrapped(_said(groups[group]), later=2)] if groups else []
        for one in found:
            if one.group == group or not groups:
                source = [f"[{_said(one.source)}]"] * bool(one.source)
                text = " ".join([_said(one.purpose), *source])
                lines += _wrapped(text, f"  {one.name:<{wide - 2}}", wide)
    return translation.Said("\n".join([*lines, "", *_wrapped(_said(after))]).lstrip("\n"))


def page(one: Entry, usage: str, more: str) -> str:
    """All that is known of one, in the reader's language.

    Args:
        one: the entry.
        usage: a line of YAML.
        more: where to read on.
    """
    lines = _wrapped(f"{one.name}: {_said(one.purpose)}", later=4)
    for paragraph in filter(None, one.about.split("\n\n")):
        drawn = paragraph.startswith(" ")
        lines += ["", *(paragraph.splitlines() if drawn else _wrapped(_said(paragraph)))]
    lines += ["", *_wrapped(_said(f"Source: {one.source}"))]
    lines += [*_wrapped(_said(f"In a study: {usage}"), later=4), ""]
    lines += told(one.settings) or [_said("It has no settings.")]
    return translation.Said("\n".join([*lines, *([""] if more else []), *_wrapped(_said(more))]))


def told(found: Mapping[str, Setting]) -> list[str]:
    """Settings, each with its default and its meaning."""
    lines = []
    for key, setting in found.items():
        default = _said(LEFT_OUT) if setting.default == LEFT_OUT else setting.default
        head = f"  {key} [{default}]" if default else f"  {key} {_said('(required)')}"
        lines += [*_wrapped_at(head, 6), *_wrapped(_said(setting.meaning), " " * 6, 6)]
    return lines


def as_json(found: Sequence[Entry]) -> dict[str, object]:
    """By name; a key without a default is required."""
    return {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in found}


def _said(text: str) -> str:
    """A text as it is looked up: a paragraph is one line."""
    return translation.told(" ".join(text.split()))


def _wrapped(text: str, first: str = "", later: int = 0) -> list[str]:
    return _wrapped_at(first + text, later) if text else []


def _wrapped_at(line: str, later: int) -> list[str]:
    width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size((80, 24)).columns))
    later = later if width - later >= NARROWEST - 8 else 4
    return wrapped(line, width, " " * later)
