"""What is said in the languages that can be read: patterns of declining and of giving.

One file per language stands in `tables/`: `words` to know it by (`identify`), and patterns to read
it with (`declining`, `evidence`). In the patterns `<b>` is an edge of a word, `<few>` up to three
words, `<gap>` the rest of a sentence and `<verb>` what a reply may decline to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

READ: Final = ("en", "zh", "fr", "de", "es", "pt", "it", "ru", "ja", "ko", "hi", "ar")
"""The languages whose replies can be read, as locales begin."""

ROMANCE: Final = ("fr", "es", "pt", "it")
"""Languages whose verbs begin a word: "ricordare" holds "dare" and declines nothing."""
ARABIC: Final = str.maketrans("أإآٱىةؤئ", "اااايهوي")
MARKS: Final = re.compile("[\u0640\u064b-\u065f\u0670\u093c]")


@cache
def data(name: str) -> dict[str, object]:
    """Read a table; once, as a constant."""
    found = files("holdfast.judges.refusal").joinpath("tables", f"{name}.json")
    read: dict[str, object] = json.loads(found.read_text(encoding="utf-8"))
    return read


def names() -> str:
    """Return the languages that can be read, in words: "English, Chinese, ... and Arabic"."""
    some = [str(data(code)["name"]) for code in READ]
    return f"{', '.join(some[:-1])} and {some[-1]}"


def reads(locale: str) -> bool:
    """Whether a locale ("fr_FR", "zh-Hant", "pt") is of a language that can be read."""
    return re.split(r"[^a-z]", locale.strip().lower(), maxsplit=1)[0] in READ


def fold(text: str, code: str) -> str:
    """Even out spellings within one language: Arabic and Hindi marks, ё, traditional Chinese."""
    if code == "ar":
        return MARKS.sub("", text).translate(ARABIC).replace("،", ",")
    if code == "hi":
        return MARKS.sub("", text).replace("ँ", "ं").replace("य़", "य")
    if code == "zh":
        return text.translate(_simplified())
    return text.replace("ё", "е") if code == "ru" else text


@cache
def _simplified() -> Mapping[int, str]:
    pairs = str(data("traditional")["pairs"]).split()
    return {ord(pair[0]): pair[1] for pair in pairs}


@cache
def pattern(code: str, key: str) -> re.Pattern[str]:
    """Return one pattern of a language; it never matches where the language has none."""
    written = str(data(code).get(key) or "(?!)")
    return re.compile(_expand(fold(written, code), code))


@cache
def declines(code: str) -> tuple[tuple[float, re.Pattern[str]], ...]:
    """Return how a first person declines in a language: weight and pattern."""
    rows = data(code).get("declines", [])
    assert isinstance(rows, list)
    return tuple((float(w), re.compile(_expand(fold(str(p), code), code))) for w, p in rows)


def _expand(written: str, code: str) -> str:
    verb = f"(?:{fold(str(data(code).get('verb', '')), code)})"
    verb = rf"\b{verb}" if code in ROMANCE else verb
    for mark, meant in (
        ("<verb>", verb),
        ("<gap>", r"[^.!?。।؟\n]{0,70}?"),
        ("<few>", r" ?(?:[^\s.!?]{1,20} ){0,3}?"),
        ("<b>", r"\b"),
    ):
        written = written.replace(mark, meant)
    return written
