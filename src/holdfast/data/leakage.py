"""Finds evaluation questions that have slipped into the training data.

Two tests per evaluation question against every training question: equal after normalisation, or at
least `OVERLAP` of its word n-grams found in one training question. A share in one partner, rather
than any shared n-gram, is what tells a copied problem from a stock phrase that both use.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.errors import LeakError
from holdfast.types import Example

NGRAM = 6
OVERLAP = 0.75
FIRST_COMBINING = "\u0300"
WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True, slots=True)
class Leak:
    """One evaluation item and the training item that gives it away; `share` of its n-grams."""

    evaluated: str
    trained: str
    share: float


class LeakIndex:
    """The evaluation questions of a study, ready to be compared with training questions."""

    def __init__(self, evaluated: Iterable[Example]) -> None:
        """Index the questions by their words and n-grams."""
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._exact: dict[tuple[str, ...], int] = {}
        self._grams: dict[tuple[str, ...], list[int]] = {}
        for place, example in enumerate(evaluated):
            words = normalise(example.question)
            self._names.append(example.id)
            self._exact.setdefault(words, place)
            grams = _ngrams(words)
            self._sizes.append(len(grams))
            for gram in grams:
                self._grams.setdefault(gram, []).append(place)

    def find(self, example: Example) -> Leak | None:
        """The evaluation item that this training item gives away, if any.

        All that the model is told is read: turns of the user, of tools, the system prompt; and
        the whole of a plain text.
        """
        told = [turn.content for turn in example.messages if turn.role != "assistant"]
        for text in dict.fromkeys([example.question, *told]):
            if leak := self._find(example.id, text):
                return leak
        return None

    def _find(self, name: str, text: str) -> Leak | None:
        words = normalise(text)
        if words in self._exact:
            return Leak(self._names[self._exact[words]], name, 1.0)
        grams = self._grams
        known = grams.keys() & set(_in_order(words))
        if not known:
            return None
        shared = Counter(place for gram in known for place in grams[gram])
        place = max(shared, key=lambda item: shared[item] / self._sizes[item])
        if shared[place] / self._sizes[place] < OVERLAP:
            return None
        return Leak(self._names[place], name, shared[place] / self._sizes[place])

    def refuse(self, trained: Sequence[Example], where: str) -> None:
        """Raise when any training item gives an evaluation item away.

        Raises:
            LeakError: with the number of items and the first few pairs.
        """
        leaks = [leak for example in trained if (leak := self.find(example))]
        if leaks:
            shown = ", ".join(
                f"{leak.trained} ~ {leak.evaluated} ({leak.share:.0%})" for leak in leaks[:3]
            )
            raise LeakError(
                f"{len(leaks)} training items contain evaluation questions: {shown}",
                where=where,
                remedy="take them out of the training data; a model that was trained on the test "
                "cannot be measured with it",
            )


def normalise(text: str) -> tuple[str, ...]:
    """Words in lower case, without punctuation, accents and width variants."""
    if text.isascii():
        return tuple(WORD.findall(text.lower()))
    folded = unicodedata.normalize("NFKD", text).casefold()
    kept = (c for c in folded if c < FIRST_COMBINING or not unicodedata.combining(c))
    return tuple(WORD.findall("".join(kept)))


def _ngrams(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return set(_in_order(words))


def _in_order(words: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """The n-grams as they follow each other; fewer words are one of their own."""
    if len(words) < NGRAM:
        return (words,) if words else ()
    return zip(*(words[start:] for start in range(NGRAM)), strict=False)
