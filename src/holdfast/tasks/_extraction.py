"""Reads the number in which a reply ends, in four ways.

*Tolerant* is what a careful reader says (`_answers`). *Strict* is the course's: what follows the
last ``####`` must be the gold answer, letter for letter, after ``, $ % g`` are deleted; without a
mark the whole reply is compared. *harness_strict* and *harness_flexible* are the filters
``strict-match`` and ``flexible-extract`` of lm-evaluation-harness's task ``gsm8k`` (version 3,
lm_eval 0.4) with its ``exact_match``: the first ``#### N``, and the last thing that looks like a
number. The choice alone can move a score by tens of points, so it is part of every figure's label.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Literal, get_args

from holdfast.tasks._answers import tolerant
from holdfast.tasks._numbers import tidy
from holdfast.tasks._statements import last_number as last_stated

Way = Literal["tolerant", "strict", "harness_strict", "harness_flexible"]
WAYS: tuple[Way, ...] = get_args(Way)

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


def last_number(text: str) -> Decimal | None:
    """The last number of the last statement, whatever is marked."""
    return last_stated(tidy(text))


@lru_cache(maxsize=64)
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
