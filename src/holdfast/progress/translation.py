"""What is printed, in the language of whoever reads it: sentences are found by their English form.

The source says everything in English. A table has the sentences with `▢` where something is put
in, each with its Chinese; a printed line is looked up there, and what was put in is put into the
Chinese. A test reads the sentences out of the source, so none is left out. A line that is not in
the table (a library's own words, a user's) stays as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from holdfast.progress.language import Language, spoken

HOLE: Final = "▢"
HERE = Path(__file__).parent / "translations"
BETWEEN_SENTENCES: Final = re.compile(r"(?<=[.!?]) (?=[A-Z])")
PARTED: Final = re.compile(rf"{BETWEEN_SENTENCES.pattern}|  ")
"""In what was put in, a sign that more than one sentence, or cell of a table, was taken for it."""
SHORT, FINELY_PARTED = 24, re.compile(rf"{PARTED.pattern}|; |(?<=\w): ")
"""Of so few letters of its own a sentence may be a clause of another."""
LONGEST = 1500
"""Characters of a line that is looked up: what is longer nobody wrote here."""
IN_QUOTES: Final = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
JOINTS: Final = (("; ", "；"), (" and ", "，并且"), (", ", "，"))
"""What stands between clauses, and what joins them in Chinese."""
MOST_JOINTS = 12
"""Of a line that is taken apart at them."""
CLAUSE: Final = re.compile(r"\b[a-z]{2,}(?: [a-z]{2,}){2,}\b")
"""Words in a row that nobody knows: half a sentence, and none that was put into another."""
ADDED: Final = re.compile(r" \(|; |, |$")
"""Where the second of two holes side by side begins: it is said beside the first, or is empty."""
NAMES: Final = re.compile(r"[\w./:@-]+(?:, [\w./:@-]+)*")
LISTED: Final = re.compile(r"[\w./:@-]+(?:, [\w./:@-]+)*(,? and )[\w./:@-]+")
"""Names, the last after "and"."""
PLACED: Final = re.compile(r"(?P<line>line [\d,]+: )?(?P<key>[\w./$\[\]@-]+: |(?<=: ))(?=\S)")
"""The line of a file, or a name, of which the rest of a line speaks."""
QUOTED = tuple("'\"`([{<“:")
"""What stands before the words of somebody else."""


class Said(str):
    """A text that is in the reader's language already: nothing of it is looked up again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with holes.

    Attributes:
        pieces: its English between the holes.
        other: the same in the other language; `▢` or `▢2` stands for what was put in.
    """

    pieces: tuple[str, ...]
    other: str

    @property
    def weight(self) -> int:
        """Characters of its own: of several that fit, the one with most is meant."""
        return sum(map(len, self.pieces))

    def filled(self, text: str) -> list[str] | None:
        """What was put into it, where `text` is this sentence; in linear time, whatever it is."""
        first, *middle, last = self.pieces
        at, end = len(first), len(text) - len(last)
        if at > end or not (text.startswith(first) and text.endswith(last)):
            return None
        put = []
        for place, piece in enumerate(middle, 1):
            if piece:
                found = text.find(piece, at, end)
            elif quoted := IN_QUOTES.match(text, at, end):
                found = quoted.end()
            else:
                following = next(filter(None, middle[place:]), None)
                found = text.find(following, at, end) if following else end
                parted = ADDED.search(text, at, found) if found >= 0 else None
                found = parted.start() if parted else -1
            if found < 0:
                return None
            put.append(text[at:found])
            at = found + len(piece)
        put.append(text[at:end])
        lines = any("\n" in piece for piece in self.pieces)
        return put if lines or not any("\n" in one for one in put) else None


@cache
def table(language: Language) -> tuple[Mapping[str, str], Sequence[Sentence]]:
    """Whole sentences, and those with holes, those with most words of their own first."""
    whole: dict[str, str] = {}
    holed = []
    for path in sorted(HERE.glob(f"{language}*.json")):
        said = json.loads(path.read_text("utf-8"))
        bare = {key[2:]: said[key].lstrip("；，") for key in said if key.startswith(("; ", ", "))}
        for english, other in (bare | said).items():
            if HOLE in english:
                holed.append(Sentence(tuple(english.split(HOLE)), other))
            else:
                whole[english] = other
    return whole, tuple(sorted(holed, key=lambda one: -one.weight))


def told(text: str, language: Language | None = None) -> str:
    """A text in a language, line by line; what is not known stays as it is.

    Args:
        text: in English.
        language: None: that of this process.
    """
    language = language or spoken()
    if language == "en" or isinstance(text, Said) or not text.strip():
        return text
    if (found := table(language)[0].get(text)) is not None:
        return found
    if "\n" in text and (found := _sentence(text, language, plain=True)) is not None:
        return found
    return "\n".join(_line(line, language) for line in text.split("\n"))


def _line(line: str, language: Language) -> str:
    """A line: as a sentence, or as the cells of a table, which stay below each other."""
    from rich.cells import cell_len

    inside = line.strip()
    if not inside or len(inside) > LONGEST:
        return line
    table_row = "  " in inside
    found = _sentence(inside, language, plain=True) if table_row else _known(inside, language)
    if found is not None:
        return line.replace(inside, found, 1)
    cells = re.split("( {2,})", line)
    if len(cells) == 1:
        return line
    out, owed = "", 0
    for cell in cells:
        if cell.isspace():
            kept = max(1, len(cell) - owed)
            out, owed = out + " " * kept, owed - (len(cell) - kept)
        else:
            new = _part(cell, language)
            out, owed = out + new, owed + cell_len(new) - cell_len(cell)
    return out


def _sentence(text: str, language: Language, plain: bool = False) -> str | None:
    """One sentence; with `plain` only if what was put in is no part of a sentence itself."""
    whole, holed = table(language)
    if text in whole:
        return whole[text]
    for one in holed:
        put = one.filled(text)
        parted = PARTED if one.weight >= SHORT else FINELY_PARTED
        if put is None or (plain and any(map(parted.search, put))):
            continue
        made = [_part(each, language) for each in put]
        if not any(map(_swallowed, one.pieces, made)):
            return _with(one.other, made)
    return None


def _swallowed(before: str, put: str) -> bool:
    """Whether half a sentence was taken for what is put in, and would stay as it is."""
    if before.rstrip().endswith(QUOTED) or put.lstrip().startswith(QUOTED):
        return False
    return CLAUSE.search(put) is not None


@lru_cache(4096)
def _known(text: str, language: Language) -> str | None:
    """A sentence, or several; None where nothing of it is known."""
    if (found := _sentence(text, language, plain=True)) is not None:
        return found
    for one in table(language)[1]:
        label, *rest = one.pieces
        if rest == [""] and label.endswith(": ") and text.startswith(label):
            return _with(one.other, [_part(text[len(label) :], language)])
    parts = BETWEEN_SENTENCES.split(text)
    made = [_known(part, language) for part in parts] if len(parts) > 1 else []
    if any(made):
        said = "".join(
            f"{one}" if one else f" {part} " for one, part in zip(made, parts, strict=True)
        )
        return said.strip()
    if (found := _clauses(text, language)) is not None:
        return found
    if text.endswith(".") and (found := _known(text[:-1], language)) is not None:
        return f"{found}。"
    if (place := PLACED.match(text)) and (found := _known(text[place.end() :], language)):
        line = _sentence(place["line"], language) if place["line"] else ""
        return f"{line}{place['key']}{found}"
    return _sentence(text, language)


def _clauses(text: str, language: Language) -> str | None:
    """Clauses that are known, all of them; else None."""
    for between, joint in () if BETWEEN_SENTENCES.search(text) else JOINTS:
        if 0 < text.count(between) <= MOST_JOINTS and (made := _split(text, between, language)):
            return joint.join(made)
    return None


def _split(text: str, between: str, language: Language, first: bool = True) -> list[str] | None:
    """The clauses of a text, as many as there are; what stays whole holds a list of names."""
    at = text.find(between)
    while at >= 0:
        named = between == "; " and NAMES.fullmatch(text[:at])
        head = text[:at] if named else _known(text[:at], language)
        rest = head and _split(text[at + len(between) :], between, language, first=False)
        if head and rest:
            return [head, *rest]
        at = text.find(between, at + 1)
    whole = None if first else _sentence(text, language, plain=True)
    whole = whole if first or whole or between in text else _known(text, language)
    return [whole] if whole else None


def _part(text: str, language: Language) -> str:
    """What was put in: words of ours where they are known."""
    if inner := text.strip() if text != text.strip() else "":
        said = _part(inner, language)
        return said if said.startswith(tuple("（，；：。")) else text.replace(inner, said, 1)
    lower = text[:1].lower() + text[1:]
    found = _clauses(text, language) or _known(text, language)
    if found is None and lower != text:
        found = _known(lower, language)
    if found is None and (names := LISTED.fullmatch(text)):
        return f"{text[: names.start(1)]} 和 {text[names.end(1) :]}"
    return found or text


def _with(other: str, put: Sequence[str]) -> str:
    left = iter(range(len(put)))

    def chosen(hole: re.Match[str]) -> str:
        return put[int(hole[1]) - 1 if hole[1] else next(left)]

    return re.sub(f"{HOLE}([1-9]?)", chosen, other)
