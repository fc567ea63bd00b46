r"""Finds the numbers of a text, as people and models write them.

``$1,000.00``, ``1.008,00``, ``72%``, ``-5``, ``3/4``, ``7½``, ``\frac{3}{4}``, ``1.2 \times 10^3``,
``७२``. A date, a time, a range, a score (``3:2``), a sum that is not worked out and a mistyped
number are none; "4th" is one where nothing better is there. "million" is a unit, as it is in
GSM8K's own answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

_WIDE: Final = str.maketrans(
    "０１２３４５６７８９．％＄￥－＋＝／＃＊（）［］｛｝⁄٫٬", "0123456789.%$¥-+=/#*()[]{}/.,"
)
_PARTS: Final = dict(zip("½⅓⅔¼¾⅛", ("1/2", "1/3", "2/3", "1/4", "3/4", "1/8"), strict=True))
_LATEX: Final = (
    (re.compile(r"(?<=\d)(?:\{,\}|\\,|\\text\{,\}|，)(?=\d{3})"), ","),
    (re.compile(r"\\[dtc]?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}"), r" \1/\2"),
    (re.compile(r"\\[dtc]?frac\s?(\d)\s?(\d)"), r" \1/\2"),
    (re.compile(r"\\(?:text|math|operatorname|mbox)[a-z]{0,4}\s?\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])"), "×"),
    (re.compile(r"\\div(?![a-zA-Z])"), "÷"),
    (re.compile(r"\\(?:approx|simeq|cong|doteq)(?![a-zA-Z])|[≅≃]"), "≈"),
    (re.compile(r"\\[,;:! ]|\\(?:left|right)(?![a-zA-Z])|\\[()\[\]]|\^\s?\{?\\circ\}?"), " "),
    (re.compile(r"\\([$%#&_{}])"), r"\1"),
    (re.compile(r"<<[^<>\n]{0,200}>>"), ""),
    (re.compile(r"</?(?:b|strong|i|em|u|p|br|span|div)\b[^<>\n]{0,80}>"), ""),
    (
        re.compile(r"(?<=[$€£¥₹])\d{1,3}(?: \d{3})+(?!\d|[.,/]\d)"),
        lambda one: one[0].replace(" ", ""),
    ),
    (re.compile(r"(?<=\d)(?=[½⅓⅔¼¾⅛])"), " "),
)
_TOLD: Final = re.compile(r"\\|[<½⅓⅔¼¾⅛，≅≃{]|[$€£¥₹]\d{1,3} \d")

_RUN: Final = re.compile(r"(?<!\d)(?:\d+(?:[.,:/'’\u00a0\u2009\u202f]\d+)*|(?<![\d.])\.\d+)")
_FORMS: Final = (
    (re.compile(r"\d*\.?\d+"), ""),
    (re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}"), ","),
    (re.compile(r"\d{1,3}(?:['’\u00a0\u2009\u202f]\d{3})+(?:[.,]\d+)?"), "'’\u00a0\u2009\u202f"),
    (re.compile(r"\d{1,3}(?:\.\d{3})+,\d{1,2}|\d{1,3}(?:\.\d{3}){2,}"), "."),
    (re.compile(r"\d+,\d{1,2}"), ""),
    (re.compile(r"\d{1,2}(?=:00$):00"), ":"),
)
"""How whole and decimal numbers are written, with what is only there to be read more easily."""
_MONEY: Final = r"(?:[$€£¥₹₩₽฿₺₫]|\b(?:USD|US|EUR|GBP|INR|CNY|RMB|CHF|CAD|AUD|RM|Rs)\.?\$?)"
_BEFORE: Final = re.compile(
    rf"(?P<sign>[-+\u2212–])?(?P<gap>\s?)(?:(?P<money>{_MONEY})\s?(?P<inner>[-+\u2212]\s?)?)?\Z"
)
_LINK: Final = re.compile(
    rf"%?\s?(?:\\?[-+*/×÷·xX\u2212–—~～^]|\*\*)\s?(?:[({{]|{_MONEY}\s?|[-+\u2212])?"
)
_MIXED: Final = re.compile(r"[ \u00a0-]")
_POWER: Final = re.compile(
    r"(?:\s?[x×*·]\s?10\s?(?:\^|\*\*)\s?\{?|[eE])([-+\u2212]?\d{1,3})(?!\w)\}?"
)
_SPACED: Final = re.compile(r"(?:\A|[=:：({\[#≈>|\x01])\s*\Z")
"""What a minus may stand apart from its number behind."""
_TIMES: Final = re.compile(r"\d\s?[xX]\Z")
_LETTER: Final = re.compile(r"[A-Za-z_\u00c0-\u024f\u0370-\u03ff\u0400-\u052f]")


@dataclass(frozen=True, slots=True)
class Number:
    """A number and where it stands; `value` is None for what only looks like one."""

    value: Decimal | None
    start: int
    end: int
    weak: bool = False


def tidy(text: str) -> str:
    """The text without LaTeX, calculator marks and wide digits, which `numbers` does not know."""
    text = text.translate(_WIDE)
    for pattern, plain in _LATEX if _TOLD.search(text) else ():
        text = pattern.sub(plain, text)
    return re.sub("[½⅓⅔¼¾⅛]", lambda match: _PARTS[match[0]], text)


def numbers(text: str) -> list[Number]:
    """All numbers of a text that `tidy` has seen, in order."""
    found: list[Number] = []
    linked = False
    for match in _RUN.finditer(text):
        start, end = match.span()
        if found and start < found[-1].end:  # the power of a number
            continue
        one = _read(text, start, end)
        if one is None:
            continue
        before = found[-1] if found else None
        between = text[before.end : start] if before and start - before.end < 12 else "?"
        if before and _MIXED.fullmatch(between) and (whole := _joined(text, before, one)):
            found[-1] = whole
        elif before and _LINK.fullmatch(between):
            divided = not linked and between.strip() == "/"
            value = _over(before.value, one.value) if divided else None
            found[-1] = Number(value, before.start, one.end)
            linked = True
            continue
        else:
            found.append(one)
        linked = False
    return found


def number(text: str) -> Decimal | None:
    """The one number that a text is; None where it is something else."""
    every = numbers(tidy(text))
    return every[0].value if len(every) == 1 else None


def _read(text: str, start: int, end: int) -> Number | None:
    """The number at a place; None where the digits belong to a word (``B12``)."""
    if text[start] == "." and _LETTER.match(text[max(0, start - 1)]):
        start += 1  # Rs.50
    before = _BEFORE.search(text, max(0, start - 8), start)
    assert before is not None  # it may be empty
    ahead = text[max(0, start - 3) : start]
    if not before["money"] and _LETTER.match(ahead[-1:]) and not _TIMES.search(ahead):
        return None
    value = _value(text[start:end])
    if value is not None and (power := _POWER.match(text, end)):
        value, end = value.scaleb(int(power[1].replace("\u2212", "-"))), power.end()
    ahead = text[max(0, before.start() - 3) : before.start()]
    joined = bool(before["sign"]) and not before["gap"] and _LETTER.match(ahead[-1:])
    weak = joined or ahead[-1:] == "第" or re.match(r"(?:st|nd|rd|th)\b", text[end : end + 3])
    minus = _negative(before, ahead) or (before["inner"] or "+")[0] in "-\u2212"
    if value is not None and minus:
        value = value.copy_negate()
    return Number(value, start, end, bool(weak))


def _negative(before: re.Match[str], ahead: str) -> bool:
    """Whether a minus before a number is its own, and no dash and no operation."""
    if before["sign"] not in ("-", "\u2212", "–"):
        return False
    if before["gap"]:
        return bool(_SPACED.search(ahead))
    return not re.match(r"[\w)\]%]", ahead[-1:])


def _value(text: str) -> Decimal | None:
    top, slash, bottom = text.partition("/")
    if slash:
        return _over(_value(top), _value(bottom)) if "/" not in bottom else None
    for form, idle in _FORMS:
        if form.fullmatch(text):
            kept = "".join(letter for letter in text.removesuffix(":00") if letter not in idle)
            return Decimal(kept.replace(",", "."))
    return None


def _over(top: Decimal | None, bottom: Decimal | None) -> Decimal | None:
    try:
        return None if top is None or bottom is None else top / bottom
    except ArithmeticError:
        return None


def _joined(text: str, before: Number, one: Number) -> Number | None:
    """``7 1/2``."""
    top, slash, bottom = text[one.start : one.end].partition("/")
    if not (slash and text[before.start : before.end].isdigit()) or before.value is None:
        return None
    if len(top + bottom) > 6 or one.value is None or abs(one.value) >= 1:
        return None
    return Number(before.value + one.value.copy_sign(before.value), before.start, one.end)


_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_WORDS: Final = {
    **{word: value for value, word in enumerate(_ONES)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    **{digit: value for value, digit in enumerate("零一二三四五六七八九")}, "两": 2, "〇": 0,
}  # fmt: skip
_UNITS: Final = {"hundred": 100, "thousand": 1000, "million": 10**6, "十": 10, "百": 100,
                 "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8}  # fmt: skip
_SPELT: Final = re.compile(
    rf"\W*(?:(?:is|the|about|exactly|an?|{'|'.join('是为共有')})\W*)?"
    rf"((?:(?:{'|'.join([*_TENS, *_ONES])}|hundred|thousand|million)\b(?:[\s-]+and\b)?[\s-]*)"
    r"{1,12}"
    r"|[零〇一二两三四五六七八九十百千万萬亿]{1,16})",
    re.IGNORECASE,
)


def in_words(text: str) -> Decimal | None:
    """The number in words, English or Chinese, that a text begins with."""
    match = _SPELT.match(text)
    if match is None:
        return None
    whole = part = digit = 0
    for word in re.findall(r"[a-z]+|[^\W\d]", match[1].lower()):
        unit = _UNITS.get(word, 1)
        if unit >= 10**4 or word == "thousand":
            whole, part, digit = whole + (part + digit or 1) * unit, 0, 0
        elif unit > 1:
            part, digit = part + (digit or 1) * unit, 0
        else:
            digit += _WORDS.get(word, 0)
    return Decimal(whole + part + digit)
