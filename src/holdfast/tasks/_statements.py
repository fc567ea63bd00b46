"""Takes a text apart into what it states, and reads the number that a statement comes to.

Questions, offers ("Let me know if you want 3 more"), checks and notes state nothing, and a number
that only counts lines is none.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from holdfast.tasks._numbers import Number, numbers
from holdfast.tasks._wording import CHECK, DIRECT, HENCE, OFFER, UNKNOWN

_HEAD: Final = re.compile(
    r"[ \t>|]{0,8}(?:\#{1,6}[ \t]+)?[\x03 \t]{0,4}(?:[-+*•·‣▪][ \t]+|(?:\(?\d{1,3}[.)、．]"
    r"|[①-⑳])(?=[\x03\x04 \t]+\S|[^\W\d])"
    r"|(?:step|part|phase|stage|schritt|étape|paso|passo|шаг"
    r"|第)[ \t]?\d{1,3}[ \t]?步?[\x04 \t]{0,3}(?:[:：.)、]|[-–][ \t])){1,3}",
    re.IGNORECASE,
)  # fmt: skip
END: Final = re.compile(
    r"(?<![ (]Rs\.)(?<![ (]vs\.)(?<![ (]No\.)(?<![ (]ca\.)(?<!Mr\.)(?<!Mrs\.)(?<!Dr\.)(?<!approx\.)"
    r"(?<!e\.g\.)(?<!i\.e\.)(?:(?<=[.!?;])[\x04\"'”)\]]{0,2}(?=\s)|(?<=[。！？；।؟])[\x04”」』]?)"
)
_DIGIT: Final = re.compile(r"\d")
LONGEST: Final = 1000
"""Letters at the end of a sentence that are looked at."""
_RELATION: Final = re.compile(r"(?<![<>!])=+>?|≈|⇒|→|->")
_TAIL: Final = re.compile(
    r",?\s(?:because|since|given that|assuming|considering)\b|,\s(?:which|as|where|i\.e\.|that is"
    r"|if|when|after|before|compared|including|out of|leaving out)\b|，(?:因为|因為|其中|即)",
    re.IGNORECASE,
)
_CLAUSE: Final = re.compile(
    r"[,;，；]\s|\b(?:so|then|and|thus|therefore|hence|or)\b", re.IGNORECASE
)
_EITHER: Final = re.compile(
    r"%?(?:\s[a-z]{1,12})?[\x04$,]{0,2}\s?(?:\b(?:or|oder|ou|o|или)\b|或者?|または|또는)(?:\s(?:maybe"
    r"|perhaps|rather))?[\s\x03$€£]{0,3}-?",
    re.IGNORECASE,
)
_TO: Final = re.compile(
    r"%?(?:\s[a-z]{1,12})?\s?(?:\b(?:and|to)\b|至|到|和)\s?[$€£]?", re.IGNORECASE
)
_CENTS: Final = re.compile(r"\s(?:US )?dollars?,? (?:and )?\Z", re.IGNORECASE)
_NOT: Final = re.compile(
    r"\b(?:not|nicht|no|pas)\s(?:just |only )?[$€£]?\d[\d.,]{0,20}(?=\D)", re.IGNORECASE
)
_BOLD: Final = re.compile(r"\x03([^\x03\x04]{0,300})\x04(?!\s?[:：])")


def statements(text: str) -> list[str]:
    """What a text states, in order; checks too, where nothing else has a number."""
    every: list[str] = []
    said: list[str] = []
    checking = False
    for line in text.split("\n"):
        head = _HEAD.match(line)
        line = line[head.end() :] if head else line
        if not line.strip():
            continue
        checking = checking and not HENCE.match(line)
        for sentence in END.split(line):
            bare = sentence.strip()[-LONGEST:]
            if not bare.strip(" \x03\x04*_#|-"):
                continue
            every.append(bare)
            if bare.rstrip("\x04\"'”)*_ ").endswith(("?", "？", "؟")) or OFFER.match(bare):
                continue
            if checked := CHECK.match(bare):
                checking = checking or not re.search(r"\w", bare[checked.end() :])
            elif not checking:
                said.append(bare)
    if any(_DIGIT.search(one) or UNKNOWN.search(one) for one in said):
        return said
    checks = [one for one in every if CHECK.match(one) and not one.endswith("?")]
    alone = [one for one in every if re.fullmatch(r"\W{0,9}[\d.,]{1,40}\W{0,9}", one)]
    return said + (alone or checks)


def last_number(text: str) -> Decimal | None:
    """The last number of the last statement that has one; None where that is none, or unknown."""
    for one in reversed(statements(text)):
        if UNKNOWN.search(one):
            return None
        if numbers(one):
            return value_of(one)
    return None


def value_of(statement: str, first: bool = False) -> Decimal | None:
    """What a statement comes to: after its last ``=``, in bold, or its last number.

    Args:
        statement: one that holds a number.
        first: it follows a final mark, where the number that stands there at once counts.
    """
    statement = _NOT.sub("", statement)
    found = numbers(statement)
    equals = [match.end() for match in _RELATION.finditer(statement)]
    if equals and found:
        return _after_equals(statement, found, equals)
    outside = _outside(statement)
    found = numbers(outside) or found
    statement = outside if numbers(outside) else statement
    if not found:
        return None
    if first and DIRECT.fullmatch(statement[: found[0].start]):
        return _first(statement, found)
    if not first and (bold := [one for one in _BOLD.findall(statement) if numbers(one)]):
        return value_of(bold[-1].replace("\x03", ""), first) if bold[-1] != statement else None
    tail = _TAIL.search(statement, found[0].end)
    found = [one for one in found if tail is None or one.start < tail.start()]
    return _last(statement, found)


def _after_equals(statement: str, found: list[Number], equals: list[int]) -> Decimal | None:
    stop = len(statement)
    for start in reversed([0, *equals]):
        part = [one for one in found if start <= one.start < stop]
        good = [one for one in part if one.value is not None and not one.weak]
        stop = start
        if not good:
            continue
        last = part[-1]
        if last.value is not None and _CLAUSE.search(statement, good[0].end, last.start):
            tail = _TAIL.search(statement, good[0].end)
            return good[0].value if tail and tail.start() < last.start else last.value
        return good[0].value
    return None


def _outside(statement: str) -> str:
    """The statement without what stands in brackets."""
    return re.sub(r"[(（][^()（）]{0,300}[)）]", " ", statement)


def _first(statement: str, found: list[Number]) -> Decimal | None:
    strong = [one for one in found if not one.weak] or found
    one = strong[0]
    if len(strong) > 1 and (other := strong[1]).value != one.value:
        between = statement[one.end : other.start]
        if _EITHER.fullmatch(between) or re.fullmatch(r"\s?(?:to|至|到)\s?[$€£]?", between):
            return None
        cents = _CENTS.fullmatch(between) and statement[other.end :].lstrip()[:4] == "cent"
        if cents and one.value is not None and other.value is not None:
            return one.value + other.value / 100
    return one.value


def _last(statement: str, found: list[Number]) -> Decimal | None:
    strong = [one for one in found if not one.weak] or found
    one = strong[-1]
    if len(strong) > 1 and (other := strong[-2]).value != one.value:
        between = statement[other.end : one.start]
        ahead = statement[max(0, other.start - 12) : other.start].lower()
        if _EITHER.fullmatch(between) or ("between" in ahead and _TO.fullmatch(between)):
            return None
    return one.value
