"""The linear half of the detector: how likely a reply declines, by the words it uses.

The rules know the phrases that somebody thought of. This logistic regression adds up many weak
signs: single words, pairs and (Chinese) triples of characters at the start, anywhere and at the end
of a reply, and what the rules found. `benchmarks/refusal_fit.py` fits the weights on invented text
alone and writes `weights.json`; no reply of a real model is in it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from holdfast.judges.refusal.evidence import Evidence
from holdfast.judges.refusal.signs import signs

HEAD_TOKENS: Final = 14
BODY_TOKENS: Final = 160
TAIL_TOKENS: Final = 25
"""How much of a reply is its start, is looked at, and is its end, in words or characters."""
_TOKEN: Final = re.compile(r"[a-z']+|\d+|[\u4e00-\u9fff]|\n")
_HAN: Final = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Weights:
    """A fitted logistic regression.

    Attributes:
        terms: weight of each feature, calibrated; the bias is the term "".
        digest: of the file, for the judge's identity.
    """

    terms: Mapping[str, float]
    digest: str

    def probability(self, found: set[str]) -> float:
        """Return how likely it is that a reply with these features declines, 0 to 1."""
        terms = self.terms
        total = terms.get("", 0.0) + sum(terms[one] for one in found if one in terms)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))


@cache
def load() -> Weights:
    """Read the weights that come with the package; once, as a constant."""
    import hashlib

    raw = files("holdfast.judges.refusal").joinpath("weights.json").read_bytes()
    return Weights(json.loads(raw)["terms"], hashlib.sha256(raw).hexdigest()[:12])


def tokens(said: str) -> list[str]:
    """Split normalised text: words, single Chinese characters, line ends; any number is "0"."""
    return ["0" if one.isdigit() else one for one in _TOKEN.findall(said)]


def _grams(some: list[str], prefix: str) -> Iterator[str]:
    for at, one in enumerate(some):
        yield prefix + one
        if at:
            pair = some[at - 1] + (one if _HAN.match(one) else " " + one)
            yield prefix + pair
            if at > 1 and _HAN.match(one) and _HAN.match(some[at - 1]):
                yield prefix + some[at - 2] + pair


def words(said: str) -> set[str]:
    """Return the features of the words: `^` at the start, `$` at the end, none anywhere."""
    some = tokens(said)
    found = set(_grams(["<", *some[:HEAD_TOKENS]], "^"))
    found.update(_grams(some[:BODY_TOKENS], ""))
    found.update(_grams([*some[-TAIL_TOKENS:], ">"], "$"))
    return found


def features(said: str, ask: str, seen: Evidence, code_lines: int) -> set[str]:
    """Return all that the regression sees of one reply."""
    return words(said) | signs(said, ask, seen, code_lines)
