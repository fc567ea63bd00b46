"""Which language a reply is in, by script and frequent words.

The words to know a language by stand in its file in `tables/`; `unread.json` there holds frequent
words of others, so that Dutch is not taken for German. A short text may be in any language; then
the prompt tells.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Final

from holdfast.judges.refusal.languages import ARABIC, MARKS, READ, data, fold

SEEN_CHARS: Final = 800
MAX_UNREAD: Final = 1 / 3
"""So much of a reply may be in a language that cannot be read."""

_SCRIPTS: Final[Mapping[str, re.Pattern[str]]] = {
    "latin": re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]"),
    "han": re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]"),
    "kana": re.compile(r"[\u3040-\u30fa\u30fd-\u30ff]"),
    "hangul": re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "arabic": re.compile(r"[\u0620-\u064a\u0671-\u06d3]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
}
_SCRIPT_OF: Final = {
    "zh": "han", "ja": "kana", "ko": "hangul", "ru": "cyrillic", "ar": "arabic", "hi": "devanagari",
}  # fmt: skip
_SEGMENT: Final = re.compile(r"[.!?。!?।؟\n]+")
_WORD: Final = re.compile(r"[^\W\d_][^\s.,;:!?\"'(){}\[\]/<>=*\\|،؛؟।。、_+-]*")
_CANTONESE: Final = re.compile("[唔嘅咗喺冇哋佢啲嚟]")
_CODE: Final = re.compile(r"[{}\[\]()<>=;\\|/_$#&+*^%-]")


@cache
def _letters() -> Mapping[str, re.Pattern[str]]:
    return {code: re.compile(str(one)) for code, one in data("letters").items()}


@cache
def _owners() -> Mapping[str, tuple[str, ...]]:
    """The languages that each frequent word belongs to."""
    found: dict[str, list[str]] = defaultdict(list)
    lists = {code: str(data(code)["words"]) for code in READ} | data("unread")
    for code, words in lists.items():
        for word in set(fold(str(words), code).split()):
            found[word].append(code)
    return {word: tuple(codes) for word, codes in found.items()}


def letters_by_language(text: str) -> Counter[str]:
    """Count the letters of a text by language; "" where nothing tells, "?" an unknown script.

    Of a long text its start and its end are looked at.
    """
    if len(text) > SEEN_CHARS * 3 // 2:
        text = text[:SEEN_CHARS] + "\n" + text[-SEEN_CHARS // 3 :]
    found: Counter[str] = Counter()
    kana = len(_SCRIPTS["kana"].findall(text))
    japanese = kana * 12 >= len(_SCRIPTS["han"].findall(text)) and kana > 0
    for segment in _SEGMENT.split(text):
        if letters := sum(map(str.isalpha, segment)):
            code = _by_script(segment, letters, japanese)
            found[code] += letters * (2 if code in ("zh", "ja", "ko", "yue") else 1)
    return found


def _by_script(segment: str, letters: int, japanese: bool) -> str:
    """The language of a segment with some letters: a code, "" or "?"."""
    if segment.isascii():
        return _by_words(segment, ())
    scripts = {name: len(one.findall(segment)) for name, one in _SCRIPTS.items()}
    east = scripts["han"] + scripts["kana"] + scripts["hangul"]
    if 3 * east >= letters:
        if 2 * scripts["hangul"] > east:
            return "ko"
        cantonese = len(_CANTONESE.findall(segment)) * 15 > scripts["han"]
        return "ja" if japanese else "yue" if cantonese else "zh"
    if 2 * max(scripts.values()) < letters:
        return "?"
    lower = segment.lower()
    marks = [code for code, one in _letters().items() for _ in one.findall(lower)]
    return _by_words(MARKS.sub("", lower.replace("ё", "е")).translate(ARABIC), marks)


def _by_words(segment: str, marks: Sequence[str]) -> str:
    """The language of a segment by its frequent words and `marks`, its telling letters, or ""."""
    words = _WORD.findall(segment.lower())
    owners = _owners()
    hits: dict[str, int] = dict(Counter(marks))
    credit: dict[str, int] = {code: 8 * n for code, n in hits.items()}
    for word in words:
        if some := owners.get(word):
            worth = 12 // len(some)
            for code in some:
                hits[code] = hits.get(code, 0) + 1
                credit[code] = credit.get(code, 0) + worth
    best = max(credit, key=lambda code: credit[code], default="")
    second = max((worth for code, worth in credit.items() if code != best), default=0)
    enough = best and hits[best] >= 0.15 * len(words)
    return best if enough and credit[best] >= 1.15 * second else ""


def identify(text: str, prompt: str = "") -> str:
    """Return the language of a reply: a code of `READ`, or "" where it is none of them.

    Args:
        text: the reply as it was written, code and thinking left out.
        prompt: the question; it decides for names, numbers and "No.".
    """
    heard = letters_by_language(text)
    read = Counter({code: heard[code] for code in READ if heard[code]})
    unread = sum(heard.values()) - read.total() - heard[""]
    if unread > MAX_UNREAD * (unread + read.total()):
        return ""
    asked = _asked_in(prompt)
    if read:
        main = read.most_common(1)[0][0]
        sure = main == asked or heard[""] <= 4 * read[main] or _looks_listed(text)
        return "ja" if (main, asked) == ("zh", "ja") else main if sure else ""
    letters = [char for char in text if char.isalpha()]
    script = _SCRIPTS[_SCRIPT_OF.get(asked, "latin")]
    foreign = sum(not script.match(char) and ord(char) > 127 for char in letters)
    short = len(text.split()) <= 3 or (asked in _SCRIPT_OF and foreign == 0)
    if foreign * 4 < len(letters) and (short or _looks_listed(text)):
        return asked
    return "" if letters else asked or "en"


@lru_cache(maxsize=4096)
def _asked_in(prompt: str) -> str:
    """The language of the prompt; English where there is none, or nothing but a name."""
    heard = letters_by_language(prompt[:1000])
    known = max((code for code in heard if code), key=lambda code: heard[code], default="")
    if known:
        return known if known in READ else ""
    return "en" if len(prompt.split()) <= 4 else ""


def _looks_listed(text: str) -> bool:
    """Whether it is names, a list or code rather than sentences of some language."""
    words = text.split()
    named = sum(word[:1].isupper() or word[:1].isdigit() for word in words)
    marked = len(_CODE.findall(text)) + text.count(",") + text.count("\n")
    return 2 * named > len(words) or 6 * marked > len(words) * 2 or 12 * marked > len(text)
