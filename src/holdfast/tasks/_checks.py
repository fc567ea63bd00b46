"""Tests of a reply's form that a few lines of code can decide: instructions that can be checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

FENCED = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\Z", re.DOTALL)
IDEOGRAPHS = re.compile(r"[\u3400-\u9fff]")
QUOTES = (('"', '"'), ("“", "”"), ("„", "“"))


def mentions(text: str, words: str) -> bool:
    """Whether a reply has these words, as whole words; case does not count.

    Chinese is not written in words: there it is enough that the signs stand together.
    """
    said, wanted = " ".join(text.casefold().split()), " ".join(words.casefold().split())
    if IDEOGRAPHS.search(wanted):
        return wanted in said
    return re.search(rf"(?<![^\W_]){re.escape(wanted)}(?![^\W_])", said) is not None


def failed(text: str, checks: Mapping[str, object]) -> list[str]:
    """The names of the checks that a reply does not pass; an empty reply passes none.

    Args:
        text: the reply.
        checks: by name (`CHECKS`), what is asked.

    Raises:
        KeyError: no such check.
    """
    said = text.strip()
    return [name for name, wanted in checks.items() if not said or not CHECKS[name](said, wanted)]


def _case(text: str, wanted: object) -> bool:
    letters = [one for one in text if one.isalpha()]
    same = str.islower if wanted == "lower" else str.isupper
    return bool(letters) and all(map(same, letters))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _numbered(text: str, wanted: object) -> bool:
    lines = _lines(text)
    return len(lines) == wanted and all(
        re.match(rf"{number}\.\s+\S", line) for number, line in enumerate(lines, 1)
    )


def _bullets(text: str, wanted: object) -> bool:
    lines = _lines(text)
    return len(lines) == wanted and all(line.startswith("- ") for line in lines)


def _keys(text: str, wanted: object) -> bool:
    fenced = FENCED.match(text)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except ValueError:
        return False
    return isinstance(found, dict) and sorted(found) == sorted(_listed(wanted))


def _parts(text: str, wanted: object) -> bool:
    lines = text.splitlines()
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == "***":
            found.append([])
        else:
            found[-1].append(line.strip())
    whole = all(any(part) for part in found)
    return (
        len(found) == wanted and whole and not any("*" in line for part in found for line in part)
    )


def _listed(wanted: object) -> list[str]:
    assert isinstance(wanted, list)
    return [str(one) for one in wanted]


CHECKS: dict[str, Callable[[str, object], bool]] = {
    "words_most": lambda text, most: len(text.split()) <= int(str(most)),
    "words_least": lambda text, least: len(text.split()) >= int(str(least)),
    "case": _case,
    "bullets": _bullets,
    "numbered": _numbered,
    "json_keys": _keys,
    "contains": lambda text, words: all(mentions(text, one) for one in _listed(words)),
    "excludes": lambda text, signs: not any(one in text for one in _listed(signs)),
    "excludes_words": lambda text, words: not any(mentions(text, one) for one in _listed(words)),
    "starts": lambda text, start: text.casefold().startswith(str(start).casefold()),
    "ends": lambda text, end: text.casefold().endswith(str(end).casefold()),
    "parts": _parts,
    "quoted": lambda text, _: any(text[0] == a and text[-1] == b for a, b in QUOTES),
}
"""Each takes the reply and what is asked of it."""
