"""Reads YAML that a stranger may have written: plain values only, of bounded size, no key twice.

PyYAML alone lets the last of two equal keys win, unfolds aliases without end, and raises whatever
a tag or a date stumbles over. Here the text is looked at event by event before anything is built
of it, and every fault is a `StudyError` with its line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from holdfast.errors import StudyError, first_line

KeyPath = tuple[str | int, ...]
Lines = Mapping[KeyPath, int]
"""Line numbers by key path."""

DEEPEST, MOST = 40, 25_000
"""Levels of nesting, and values once all aliases are written out."""
LONGEST = 1_000_000
"""Characters of a text; reading them takes seconds."""
KINDS = {"seq": yaml.SequenceNode, "map": yaml.MappingNode}
"""By tag: what may bear it; every other tag is a scalar's."""
DIGITS = 18
PLAIN = {
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge")
}
OLD_NUMBER = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
"""What YAML 1.1 reads as an octal number, or as one to the base of 60."""
UNPRINTABLE = re.compile(r"[\x00\ud800-\udfff]")
FULL_WIDTH = dict(zip("：，［］｛｝＃－　“”‘’【】、．", ":,[]{}#- \"\"''[],.", strict=True)) | {
    chr(0xFF10 + digit): str(digit) for digit in range(10)
}
"""Signs of Chinese and Japanese keyboards that are letters to YAML, and those that it reads."""
QUOTE = "put quotes around the value if text is meant"


@contextmanager
def full_width_told(text: str) -> Iterator[None]:
    """Say of a study that cannot be used which of its lines have full-width signs, if any do."""
    try:
        yield
    except StudyError as error:
        found = [
            (number, sign)
            for number, line in enumerate(text.splitlines(), 1)
            for sign in FULL_WIDTH
            if sign in line.partition("#")[0]
        ]
        if found:
            number, sign = found[0]
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            error.remedy = (
                f"line {number} has the full-width {sign!r}{more}: write {FULL_WIDTH[sign]!r}, "
                f"with a space behind : and ,; {error.remedy}"
            )
        raise


class _Loader(yaml.SafeLoader):
    """PyYAML's own, without its surprises."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in PLAIN:
            raise _fault(node, f"the tag {node.tag} is not read; only plain values are")
        kind = node.tag.rpartition(":")[2]
        if not isinstance(node, KINDS.get(kind, yaml.ScalarNode)):
            raise _fault(node, f"the tag {node.tag} stands before something else")
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:
            what = "date" if kind == "timestamp" else kind
            raise _fault(node, f"{_short(node.value)} is no {what}; {QUOTE}") from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _fault(
                        key,
                        f"the key {_short(key.value)} is given twice, first in line "
                        f"{seen[key.value]}; give it once",
                    )
                seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value.lstrip("+-")) > DIGITS or OLD_NUMBER.fullmatch(node.value):
            why = "is too long a number"
            if len(node.value.lstrip("+-")) <= DIGITS:
                why = f"could be meant in several ways (YAML 1.1: {_old(node.value)})"
            raise _fault(node, f"{_short(node.value)} {why}; {QUOTE}")
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        if OLD_NUMBER.fullmatch(node.value):
            raise _fault(node, f"{_short(node.value)} could be meant in several ways; {QUOTE}")
        value = super().construct_yaml_float(node)
        if not math.isfinite(value):
            raise _fault(node, f"{_short(node.value)} is no finite number; {QUOTE}")
        return value

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        value = super().construct_yaml_str(node)
        if found := UNPRINTABLE.search(value):
            raise _fault(node, f"a text holds the character {found[0]!r}, which no text may")
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_yaml_str)


def read_yaml(text: str, source: str, remedy: str) -> tuple[object, Lines]:
    """The value of a YAML text, and the line of every key in it.

    Args:
        text: of one document.
        source: the file's name or the setting itself, for messages.
        remedy: of what is no YAML at all.

    Raises:
        StudyError: no YAML; a key given twice; tags, numbers or dates that are none; text with
            characters that no file name or terminal takes; aliases or nesting without end.
    """
    if len(text) > LONGEST:
        raise StudyError(f"has more than {LONGEST:,} characters", where=source, remedy=remedy)
    try:
        _measure(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or first_line(error)
        raise StudyError(
            f"is not valid YAML: {problem}",
            where=f"{source}:{mark.line + 1}" if mark else source,
            remedy=remedy,
        ) from error
    return value, _lines(node)


def _measure(text: str) -> None:
    """Refuse what would grow or sink without end; nothing is built yet.

    Raises:
        YAMLError: too deep, too much, or an alias of what it stands in.
    """
    sizes: dict[str, int] = {}
    parts: list[tuple[str | None, int]] = [(None, 0)]  # anchor and size of what is open
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            parts.append((event.anchor, 1))
            if len(parts) > DEEPEST + 1:
                raise _fault(event, f"is nested more than {DEEPEST} levels deep")
            continue
        anchor, size = None, 0
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = parts.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == one for one, _ in parts):
                raise _fault(event, f"the alias *{event.anchor} stands inside what it names")
            size = sizes.get(str(event.anchor), 1)
        if anchor:
            sizes[anchor] = size
        parts[-1] = (parts[-1][0], parts[-1][1] + size)
        if parts[-1][1] > MOST:
            raise _fault(event, f"holds more than {MOST:,} values once its aliases are written out")


def _fault(place: yaml.Node | yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _old(text: str) -> str:
    return "an octal number" if ":" not in text else "base 60"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}...'"


def _lines(node: yaml.Node | None, path: KeyPath = ()) -> dict[KeyPath, int]:
    found: dict[KeyPath, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            found[inner] = key.start_mark.line + 1
            found |= _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*path, index)] = value.start_mark.line + 1
            found |= _lines(value, (*path, index))
    return found
