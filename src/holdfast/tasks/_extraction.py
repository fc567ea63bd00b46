r"""Reads the number in which a reply ends.

Four readings of the same text. *Tolerant* understands ``$1,000.00``, ``72.``, ``72 apples``,
``\\boxed{72}``, ``A: 72`` and ``The answer is 72``, and falls back to the last number of the reply.
*Strict* is the course's: what follows the last ``####`` must be the gold answer, letter for letter,
after ``, $ % g`` are deleted; without a mark the whole reply is compared. *harness_strict* and
*harness_flexible* are the filters ``strict-match`` and ``flexible-extract`` of
lm-evaluation-harness's task ``gsm8k`` (version 3, lm_eval 0.4) with its ``exact_match``: the first
``#### N``, and the last thing that looks like a number. The choice alone can move a score by tens
of points, so it is part of every figure's label.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Literal, get_args

Way = Literal["tolerant", "strict", "harness_strict", "harness_flexible"]
WAYS: tuple[Way, ...] = get_args(Way)

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
HARNESS_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
HARNESS_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
HARNESS_IGNORED = (re.compile(r"(?s).*#### "), re.compile(r"\.$"))


def read(text: str, way: Way) -> Decimal | str | None:
    """What a reply gives as its answer, None where this way finds none; compare with `gold`'s."""
    match way:
        case "tolerant":
            return tolerant(text)
        case "strict":
            return strict(text)
        case "harness_strict":
            found = HARNESS_STRICT.search(text)
            return _harness(found[1]) if found else None
        case "harness_flexible":
            every = HARNESS_FLEXIBLE.findall(text)
            return _harness("".join(every[-1])) if every else None


def gold(answer: str, way: Way) -> Decimal | str | None:
    """What `read` must find to be right; `answer` is the worked one, with its ``#### N``."""
    return _harness(answer) if way.startswith("harness") else read(answer, way)


def _harness(text: str) -> str:
    """What is compared, of a reply and of the worked answer alike."""
    text = text.replace(",", "").replace("$", "")
    for ignored in HARNESS_IGNORED:
        text = ignored.sub("", text)
    return text.lower()


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
    stop = len(reply)
    for place in reversed(list(STATED.finditer(reply))):
        if (found := _stated_number(reply[place.end() : stop])) is not None:
            return found
        stop = place.start()
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
