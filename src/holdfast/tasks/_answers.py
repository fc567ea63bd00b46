r"""Reads the number that a reply gives as its answer, as a careful reader would.

The last final mark decides: ``####``, ``\boxed{}``, "the answer is", "Final answer:". A label
alone (``A:``, ``Answer:``, ``Solution:``) is one where nothing but an answer follows it, not at the
head of a worked answer. Without a mark it is the last number of the last statement. What follows a
next turn is not the model's answer. A reply that says that there is no answer, or two, has none.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from holdfast.engines.turns import own_turn
from holdfast.tasks._numbers import in_words, numbers, tidy
from holdfast.tasks._statements import END, last_number, statements, value_of
from holdfast.tasks._wording import CORRECTED, HOW, MARK, NEXT, NOTHING, SECTION, SUPPOSED, UNKNOWN

_BRACE: Final = re.compile(r"\\f?boxed\s{0,3}\{|\\?[{}]")
_CODE: Final = re.compile(
    r"```[ \t]*(?:py|js|java|c\+\+|cpp|sql|bash|sh\b|c\n|r\n)[\s\S]*?(?:```|\Z)"
)
_SPACES: Final = re.compile(r"([^\w\n]{0,6})(\d{1,3}(?: \d{3}){1,4})(?![\d.,/])")
_BARE: Final = re.compile(
    r"[\W_]*(?:(?:x|about|approximately|USD|Rs)[\s.=]*)?[-+\u2212–$€£¥₹\s]*[\d.,/ ]*\d[%\W]*"
    r"(?:[^\W\d]+[\s\x04]*){0,2}[\W_]*"
)

LONGEST: Final = 16_000
"""Letters at the end of a reply that are looked at."""
MARKS: Final = 200
"""The last so many marks are looked at."""
WORDS: Final = 40
"""A longer reply is no number in words."""


def tolerant(reply: str) -> Decimal | None:
    """The number that the reply gives as its answer; None where it gives none, or several."""
    text = _plain(own_turn(reply)[-LONGEST:])
    marks = list(MARK.finditer(text))
    if marks and (other := NEXT.search(text, marks[0].end())) and marks[-1].start() > other.end():
        marks = [one for one in marks if one.start() < other.start()]
        text = text[: other.start()]
    stop = len(text)
    for mark in reversed(marks[-MARKS:]):
        found = _after(mark, text, stop)
        if found is not None:
            corrected = CORRECTED.search(text, mark.end())
            later = text[corrected.start() :] if corrected else ""
            if numbers(later):
                return last_number(later)
            return None if found == "none" else Decimal(found)
        stop = mark.start()
    if len(text) < WORDS and not re.search(r"\d", text) and text.count(" ") < 3:
        return in_words(text)
    if spaced := _SPACES.fullmatch(text.strip()):
        text = spaced[2].replace(" ", "")
    return last_number(text.replace("####", ""))


def _plain(text: str) -> str:
    r"""The text with ``\boxed{}`` and bold as single letters around, and without code."""
    pieces, at, opened = [], 0, list[bool]()
    for match in _BRACE.finditer(text):
        if len(match[0]) > 2 or match[0] == "{":
            opened.append(len(match[0]) > 2)
            mark = "\x01"
        elif match[0] == "}" and opened:
            mark = "\x02"
        else:
            continue
        if opened[-1]:
            pieces += [text[at : match.start()], mark]
            at = match.end()
        if mark == "\x02":
            opened.pop()
    text = tidy("".join([*pieces, text[at:]]))
    text = re.sub(r"\*\*(?=\S)([^*\n]{1,300}?)\*\*", "\x03\\1\x04", text)
    outside = _CODE.sub("\n", text)
    text = outside if re.search(r"\d", outside) else text
    return text.replace("```", "\n").replace("`", "").replace("__", "")


def _after(mark: re.Match[str], text: str, stop: int) -> Decimal | str | None:
    """The number after a mark, `none` where it says that there is none; None: it is no mark."""
    rest = text[mark.end() : stop]
    match mark.lastgroup:
        case "hash":
            return _hashed(rest)
        case "box":
            inside = re.split(r"[\x02\n]", rest, maxsplit=1)[0]
            return _stated(inside) if inside.strip() else None
        case "tag":
            inside = rest.partition("</answer>")[0]
            return _stated(inside.strip()) if "\n" not in inside.strip() else last_number(inside)
        case "label":
            return _labelled(rest)
    if mark["said"] and SUPPOSED.search(text, max(0, mark.start() - 40), mark.start()):
        return None
    for one in _first_lines(rest):
        if numbers(one):
            return None if HOW.match(one) and "=" not in one else _stated(one)
        if (found := _stated(one)) is not None:
            return found
        if len(one.split()) > 6:
            return None
    return None


def _stated(text: str) -> Decimal | str | None:
    """The number in the sentence after a mark."""
    if spaced := _SPACES.match(text):
        text = spaced[1] + spaced[2].replace(" ", "") + text[spaced.end() :]
    if numbers(text):
        found = value_of(text, first=True)
        return "none" if found is None else found
    if (spelt := in_words(text)) is not None:
        return spelt
    return "none" if UNKNOWN.search(text) or NOTHING.match(text) else None


def _first_lines(text: str) -> list[str]:
    """The first sentence of each of the next three lines."""
    lines = [one for one in text[:2000].split("\n") if re.search(r"\w", one)]
    return [END.split(one.strip())[0] for one in lines[:3]]


def _hashed(rest: str) -> Decimal | str | None:
    """After ``####``: its line, or the next; a heading is no mark."""
    line, _, below = rest.lstrip(" \t:*#\x03").partition("\n")
    bare = line.strip(" \t:*_#\x03\x04")
    if not bare:
        first = next(iter(_first_lines(below)), "")
        return _stated(first) if first else None
    follows = bool(re.search(r"\w", below))
    headed = re.match(
        r"(?:step|part|case|phase|method|第)\s?\d|\(?\d{1,2}[.)]\s+[^\W\d]", bare, re.I
    )
    if follows and (headed or not numbers(bare)) and not NOTHING.match(bare):
        return None
    found = _stated(END.split(bare)[0])
    return "none" if found is None else found


def _labelled(rest: str) -> Decimal | str | None:
    """After a mere label: its answer, where nothing is worked out behind it."""
    said = statements(rest)
    if not said:
        return None
    first, counted = said[0], [one for one in said if numbers(one)]
    if not counted:
        return _stated(first)
    if len(counted) == 1:
        return _stated(counted[0])
    found = _stated(first) if numbers(first) else None
    if found is None:
        return None
    behind = rest[rest.find(first) + len(first) :]
    apart = re.match(r"[\s\x04*_)]*?\n[ \t]*\n", behind) or SECTION.match(behind)
    settled = SECTION.match(behind) or last_number(rest) == found
    return found if settled or (apart and _BARE.fullmatch(first)) else None
