"""Reads rows of JSON: one object a line, or an array.

What JSON allows and nobody means is refused by its row and key: a key that stands twice, numbers
of thousands of digits, nesting without end, halves of characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from holdfast.data.cells import SURROGATE
from holdfast.data.reading.files import READ, Row, Shape
from holdfast.data.reading.texts import UNDECODED, lines
from holdfast.errors import DataError, printable

DEEPEST = 100
"""Lists and objects within each other; what is deeper is no row of ours."""
BLANKS = re.compile(r"[ \t\r\n]*")
WORD = re.compile(r'"((?:[^"\\]|\\.)*)(?:"(\s*:)?|\\?\Z)', re.DOTALL)
"""A text in quotes, and whether a colon makes it a key; one that is not closed goes to the end."""
TURNS = ("messages", "conversations", "conversation", "prompt", "completion", "history", "tools")
"""Keys of a single row whose value may be a list of objects."""
A_LINE = "every line of a jsonl file is one JSON object"


class _Twice(ValueError):
    """A key that stands twice in one object."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)
QUICK = json.JSONDecoder()


def rows(path: Path, shape: Shape) -> Iterator[Row]:
    """The rows of a JSON file; blank lines are passed over.

    Args:
        path: of the file.
        shape: `field` names the key under which the rows stand; `jsonl` is never an array.

    Raises:
        DataError: it is not JSON, or not rows; names row and column.
    """
    text = lines(path, column=_column)
    before: list[str] = []
    for line in text:
        before.append(line)
        if line.strip():
            break
    first = before[-1].strip() if before else ""
    array = shape.format != "jsonl" and (first.startswith("[") or first == "{")
    if array or shape.field is not None:
        return _document(path, "".join(chain(before, text)), shape)
    return _lines(path, chain(before, text))


def _lines(path: Path, text: Iterator[str]) -> Iterator[Row]:
    held: Row | None = None
    file = str(path)
    for number, line in enumerate(text, start=1):
        bare = line.startswith("{")
        if not bare and not line.strip():
            continue
        where = f"{file}:{number}"
        value, end = _value(line, 0 if bare else _after_blanks(line), where)
        if (rest := line[end:]) != "\n" and rest.strip():
            raise DataError(
                f"not valid JSON: Extra data at column {end + 1}", where=where, remedy=_mend(line)
            )
        if held is not None:
            yield held
        held = Row(number, where, value)
    if held is not None:
        if held.number == 1 and ".json" in path.suffixes and isinstance(held.value, dict):
            _refuse_whole(held.value, path, " beside rows")
        yield held


def _document(path: Path, text: str, shape: Shape) -> Iterator[Row]:
    """The rows of an array, or of the list under the key that `field` names."""
    start = _after_blanks(text)
    if shape.field is None and text[start : start + 1] == "[":
        yield from _array(path, text, start)
        return
    whole, end = _value(text, start, str(path))
    if rest := text[end:].strip():
        raise DataError(
            f"holds more than one JSON value: after the first comes {printable(rest[:20])!r}",
            where=str(path),
            remedy=f"write one object a line: jq -c . FILE > NEW.jsonl; {READ}",
        )
    if shape.field is None:
        _refuse_whole(whole, path, "")
    found = whole
    for key in (shape.field or "").split("."):
        if not isinstance(found, dict) or key not in found:
            has = ", ".join(map(str, found)) if isinstance(found, dict) else "none"
            raise DataError(
                f"has no key {key} (its keys: {printable(has)})",
                where=str(path),
                remedy="`field` names the key under which the list of rows stands",
            )
        found = found[key]
    if not isinstance(found, list):
        raise DataError(
            f"holds no list under {shape.field}", where=str(path), remedy="`field` names a list"
        )
    for number, value in enumerate(found, start=1):
        yield Row(number, f"{path}, row {number}", value)


def _array(path: Path, text: str, start: int) -> Iterator[Row]:
    at, number = _after_blanks(text, start + 1), 0
    done = text[at : at + 1] == "]"
    while not done:
        number += 1
        where = f"{path}, row {number}"
        value, end = _value(text, at, where)
        yield Row(number, where, value)
        end = _after_blanks(text, end)
        done = text[end : end + 1] == "]"
        if not done and text[end : end + 1] != ",":
            ends = "the file ends" if end == len(text) else f"{printable(text[end])!r} stands"
            raise DataError(
                f"not valid JSON: {ends} where `,` or `]` should be",
                where=where,
                remedy=f"mend the array, or write one object a line (jsonl); {READ}",
            )
        at = _after_blanks(text, end + 1)
    if rest := text[at + (number == 0) :].strip():
        raise DataError(
            f"goes on after its array: {printable(rest[:20])!r}",
            where=str(path),
            remedy=f"write one array, or one object a line (jsonl); {READ}",
        )


def _refuse_whole(value: Any, path: Path, beside: str) -> None:
    """Refuse an object that holds the rows instead of being one."""
    lists = [
        key
        for key, inner in value.items()
        if isinstance(inner, list) and inner and isinstance(inner[0], dict) and key not in TURNS
    ]
    if lists:
        raise DataError(
            f"is one object, and the rows stand under its key {printable(lists[0])}",
            where=str(path),
            remedy=f"write it as a source with that key: {{path: ..., field: {lists[0]}}}",
        )
    if beside:
        return
    whole = all(isinstance(inner, list | dict) for inner in value.values())
    raise DataError(
        f"is one object, not rows (its keys: {printable(', '.join(map(str, value)))})",
        where=str(path),
        remedy="write a list of rows instead of columns (pandas: df.to_json(FILE, "
        "orient='records', lines=True))"
        if whole and value
        else f"write one object a line: jq -c . FILE > NEW.jsonl; {READ}",
    )


def _after_blanks(text: str, at: int = 0) -> int:
    found = BLANKS.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int, where: str) -> tuple[Any, int]:
    """One JSON value and where it ends."""
    if at == 0 and (flat := _flat(text)) is not None:
        return flat
    try:
        value, end = DECODER.raw_decode(text, at)
    except _Twice as error:
        raise DataError(
            f"has the key {printable(str(error))} twice in one object",
            where=where,
            remedy="keep one of them",
        ) from error
    except json.JSONDecodeError as error:
        raise _broken(text, error, where) from error
    except RecursionError as error:
        raise _deep(where) from error
    except ValueError as error:  # the limit of int()
        key = _huge(text, at)
        raise DataError(
            "holds a number of more than 4,300 digits",
            where=f"{where}: {key}" if key else where,
            remedy="write it as text, in quotes",
        ) from error
    part = text[at:end] if at or end < len(text) else text
    if part.count("[") + part.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise _deep(where)
    halves = "\\ud" in part or "\\uD" in part
    if halves and (key := _path(value, lambda one: bool(SURROGATE.search(one)))) is not None:
        raise DataError(
            "holds half of a surrogate pair, which is no text",
            where=f"{where}: {key}" if key else where,
            remedy="mend the \\\\u escape there",
        )
    return value, end


def _flat(text: str) -> tuple[Any, int] | None:
    """An object of texts and numbers, in which nothing can be wrong; None: look closer."""
    if "\\ud" in text or "\\uD" in text or "[" in text:
        return None
    try:
        value, end = QUICK.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    # A key more than there are values may be one that stands twice, or in an object inside.
    return (value, end) if type(value) is dict and text.count('":') == len(value) else None


def _broken(text: str, error: json.JSONDecodeError, where: str) -> DataError:
    """The error for what is no JSON; where a document goes wrong is told by its line."""
    place = f"column {error.colno}"
    if error.lineno > 1 or not where.rpartition(":")[2].isdigit():
        place = f"line {error.lineno}, {place}"
    if "\0" in text[error.pos : error.pos + 2]:
        return DataError(
            f"holds NUL bytes where text should be, at {place}",
            where=where,
            remedy="the file was not written to its end, or is no text: copy it again",
        )
    return DataError(f"not valid JSON: {error.msg} at {place}", where=where, remedy=_mend(text))


def _mend(text: str) -> str:
    start = text.lstrip()[:2]
    if start == "{'":
        return f"write double quotes (json.dumps(row), not str(row)): {A_LINE}; {READ}"
    if start[:1] not in ("{", "["):
        return f"{A_LINE}; {READ}, told by content and name, or by `format`"
    if not text.endswith("\n") and not text.rstrip().endswith(("}", "]")):
        return f"the file breaks off here: copy it again, or delete this last line; {A_LINE}"
    return f"{A_LINE}; mend it, or make it so: jq -c . FILE > NEW.jsonl; {READ}"


def _deep(where: str) -> DataError:
    return DataError(
        f"is nested more than {DEEPEST} deep", where=where, remedy=f"flatten it; {A_LINE}"
    )


def _huge(text: str, at: int) -> str | None:
    """The key of the first number that has too many digits."""
    decoder = json.JSONDecoder(parse_int=lambda digits: "\ud800" if len(digits) > 4300 else 0)
    value, _ = decoder.raw_decode(text, at)
    return _path(value, lambda one: one == "\ud800")


def _depth(value: object) -> int:
    deepest, todo = 0, [(value, 1)]
    while todo:
        one, depth = todo.pop()
        if isinstance(one, Mapping):
            todo += [(inner, depth + 1) for inner in one.values()]
        elif isinstance(one, list):
            todo += [(inner, depth + 1) for inner in one]
        else:
            continue
        deepest = max(deepest, depth)
    return deepest


def _path(value: object, meant: Callable[[str], bool]) -> str | None:
    """The keys that lead to the first text that is meant, a key or a value; None: there is none."""
    if isinstance(value, str):
        return "" if meant(value) else None
    pairs: Iterator[tuple[object, object]] = iter(())
    if isinstance(value, dict):
        if any(meant(key) for key in value):
            return ""
        pairs = iter(value.items())
    elif isinstance(value, list):
        pairs = iter(enumerate(value))
    for key, inner in pairs:
        if (found := _path(inner, meant)) is not None:
            return f"{key}.{found}" if found else str(key)
    return None


def _column(line: str) -> str:
    """The key whose value holds the first byte of a line that is no text."""
    bad = UNDECODED.search(line)
    words = WORD.findall(line, 0, bad.start()) if bad else []
    return next((printable(word) for word, colon in reversed(words) if colon), "")
