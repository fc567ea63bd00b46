"""Reads the cells of one row: text where text is meant, JSON where JSON is meant, or a reason.

Nothing is turned into text by Python's own way of printing it: a list, an object, true or NaN in
the place of a text is refused with the column's name. Half a surrogate pair and NUL are refused as
well; all other characters are kept as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from holdfast.errors import DataError

MEDIA = frozenset(["image", "images", "audio", "audios", "video", "videos"])
"""Columns, and fields of turns, whose content no text model sees."""
LARGEST = 10**18
"""Of a whole number that is an answer; a longer one was cut by whoever wrote it as a number."""
DIGITS = 15
"""Of a fraction: so many survive being kept as a floating-point number."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which is no text."""


def absent(value: object) -> bool:
    """Whether a cell holds nothing: null, or the NaN that pandas writes in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def blank(value: object) -> bool:
    """Whether a cell holds nothing, or nothing but spaces."""
    if isinstance(value, str):
        return not value or value.isspace()
    return absent(value)


def shown(name: object) -> str:
    """A column's name as a message may show it: short, and without control characters."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 40 else f"{text[:39]}…"


def kind(value: object) -> str:
    """What a cell holds, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return "NaN (an empty cell of pandas)"
        case int() | float():
            huge = isinstance(value, int) and abs(value) >= LARGEST
            return "a huge number" if huge else f"the number {value}"
        case str():
            return f"the text {shown(value)!r}"
        case Mapping():
            keys = ", ".join(shown(key) for key in list(value)[:4])
            return f"an object (its keys: {keys})" if keys else "an empty object"
        case Sequence():
            return f"a list of {len(value)}"
    return f"a value of the type {type(value).__name__}"


def text(value: object, where: str) -> str:
    """A cell as text.

    Raises:
        DataError: it is not text, or text that cannot be written down.
    """
    if not isinstance(value, str):
        listed = isinstance(value, list | tuple | Mapping)
        raise DataError(
            f"is {kind(value)} where text is meant",
            where=where,
            remedy="write one text, as the model is to see it"
            if listed
            else 'write it as text, in quotes: "4"; what is missing: leave it out, or write null',
        )
    if "\0" in value:
        raise DataError(
            "holds a NUL character, which no text has",
            where=where,
            remedy="the file was cut or mixed with binary data: write the row again",
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                "holds half of a surrogate pair, which is no text",
                where=where,
                remedy="write the character whole, or take the half out",
            ) from error
    return value


def answer(value: object, where: str) -> str:
    """An answer as text; a number whose decimal form is beyond doubt counts as its text.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST:
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        written = repr(value)
        if "e" not in written and sum(map(str.isdigit, written)) <= DIGITS:
            return written
    if isinstance(value, float) and value.is_integer():
        raise DataError(
            f"is the number {value:g} with a decimal point: is {value:.0f} or {value:.1f} meant?",
            where=where,
            remedy='write the answer as text, in quotes: "4" (pandas makes 4.0 of 4 where the '
            "column has gaps)",
        )
    if isinstance(value, list | tuple):
        raise DataError(
            f"is {kind(value)} where one answer is meant",
            where=where,
            remedy="write the one text that is to be learned or compared with; of several right "
            "answers choose one, or use `grader: regex` with (one|other) in its pattern",
        )
    return text(value, where)


def parsed(value: object, where: str) -> object:
    """A cell that may hold JSON as a text.

    Raises:
        DataError: it is text, but no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_no_number, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"is {kind(value)}, which is no JSON ({shown(reason)})",
            where=where,
            remedy="write the list itself, or the list as JSON: with json.dumps, not with str()",
        ) from error


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's keys and values.

    Raises:
        ValueError: a key is there twice, so that one value would be lost.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)!r} is there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


class Cells:
    """The cells of one row by their columns, and which columns were used.

    Attributes:
        row: the row.
        where: file and line, for messages.
        there: the cells that hold more than spaces.
        used: the columns that were read.
    """

    __slots__ = ("row", "there", "used", "where")

    def __init__(self, row: Mapping[str, Any], where: str) -> None:
        """Take a row of which nothing is used yet."""
        self.row, self.where = row, where
        self.there = {name: value for name, value in row.items() if not blank(value)}
        self.used: set[str] = set()

    def at(self, name: str) -> str:
        """Where a cell is, for messages."""
        return f"{self.where}: {name}"

    def has_any(self, names: Iterable[str]) -> bool:
        """Whether the row has one of these columns, empty or not."""
        return not self.row.keys().isdisjoint(names)

    def take(self, name: str) -> Any:
        """A cell as it is, which is thereby used; None where it holds nothing."""
        if name in self.row:
            self.used.add(name)
        return self.there.get(name)

    def left(self) -> set[str]:
        """Columns that hold something and were not read, as a message may show them."""
        if len(self.used) == len(self.row):
            return set()
        return {
            shown(name)
            for name, value in self.there.items()
            if name not in self.used and value not in ([], {})
        }

    def text(self, name: str) -> str:
        """A cell as text, which is thereby used; "" where it holds nothing.

        Raises:
            DataError: it holds something else.
        """
        value = self.take(name)
        return "" if value is None else text(value, self.at(name))

    def one_of(self, names: Sequence[str]) -> tuple[str, str]:
        """The text that stands in one of several columns of the same meaning, and that column.

        Raises:
            DataError: two hold different texts.
        """
        found = {name: said for name in names if (said := self.text(name))}
        if len(set(found.values())) > 1:
            first, second = list(found)[:2]
            raise DataError(
                f"differs from `{first}`, which means the same",
                where=self.at(second),
                remedy="keep one of the two columns",
            )
        return next(((name, said) for name, said in found.items()), ("", ""))
