r"""Which number does a reply end in?

Two readings of the same text. *Strict* is the course's: what follows the last ``####`` must be the
gold answer, letter for letter, after ``, $ % g`` are deleted; without a mark the whole reply is
compared. *Tolerant* understands ``$1,000.00``, ``72.``, ``72 apples``, ``\\boxed{72}``, ``A: 72``
and ``The answer is 72``, and falls back to the last number of the reply. The choice alone can move
a score by tens of points, so it is part of every figure's label.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?\s?(?:[$€£¥]\s?)?[-+\u2212]?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(?:\.\d+|(?<=\d)(?:\s?/\s?[1-9]\d*(?!\.?\d))?)"
)
BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
STATED = re.compile(
    r"(?:(?:final\s+)?answer(?:\s+is|\s*:)|(?:^|\n)\s*A\s*:|答案(?:是|为|：|:))", re.IGNORECASE
)
FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}")
STRICT_DELETED = str.maketrans("", "", ",$%g")


def strict(reply: str) -> str:
    """The course's extraction; compare its results with ``==``."""
    return reply.split("####")[-1].strip().translate(STRICT_DELETED)


def tolerant(reply: str) -> Decimal | None:
    r"""The number that the reply gives as its answer, or None when it holds no number.

    The last marked place that holds a number wins (``####``, ``\\boxed``, "the answer is"); only
    when none is marked is the last number of the text taken.
    """
    if "####" in reply:
        found = _stated_number(reply.rsplit("####", 1)[1])
        return last_number(reply) if found is None else found
    boxes = BOXED.findall(reply)
    if boxes and (found := last_number(boxes[-1])) is not None:
        return found
    places = [match.end() for match in STATED.finditer(reply)]
    for place in reversed(places):
        if (found := _stated_number(reply[place:])) is not None:
            return found
    return last_number(reply)


def _stated_number(text: str) -> Decimal | None:
    """The answer in ``The answer is 3 + 4 = 7 apples.``: after the last ``=`` of the sentence."""
    sentence = re.split(r"[.!?](?:\s|$)|\n", text.lstrip(" :*\n"), maxsplit=1)[0]
    return first_number(sentence.rsplit("=", 1)[-1])


def first_number(text: str) -> Decimal | None:
    """The first number in `text`."""
    numbers = _numbers(text)
    return numbers[0] if numbers else None


def last_number(text: str) -> Decimal | None:
    """The last number in `text`."""
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def _numbers(text: str) -> list[Decimal]:
    text = FRACTION.sub(r"\1/\2", text.replace("\\$", "$").replace("{,}", ",").replace("\\!", ""))
    found = []
    for match in NUMBER.finditer(text):
        if (value := number(match.group())) is not None:
            found.append(value)
    return found


def number(text: str) -> Decimal | None:
    """Parse ``-$1,234.50``, ``3/4`` or ``72.``; None when it is not a number."""
    cleaned = re.sub(r"[\s,$€£¥%]", "", text.replace("\u2212", "-")).rstrip(".")
    top, slash, bottom = cleaned.partition("/")
    try:
        value = Decimal(top)
        return value / Decimal(bottom) if slash else value
    except (InvalidOperation, ZeroDivisionError):
        return None
