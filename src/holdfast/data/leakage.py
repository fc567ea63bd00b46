"""Finds evaluation questions that have slipped into the training data.

Two tests per evaluation question against every training question: equal after normalisation, or at
least `OVERLAP` of its word n-grams found in one training question. A share in one partner, rather
than any shared n-gram, is what tells a copied problem from a stock phrase that both use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from holdfast.data.text_leaks import OVERLAP, Leak, TextIndex, ngrams, units
from holdfast.data.windows import TEXT
from holdfast.errors import LeakError
from holdfast.types import Example


class LeakIndex:
    """The evaluation questions of a study, ready to be compared with training questions."""

    def __init__(self, evaluated: Iterable[Example]) -> None:
        """Index the questions by their words and n-grams."""
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._exact: dict[tuple[str, ...], int] = {}
        self._grams: dict[tuple[str, ...], list[int]] = {}
        every = list(evaluated)
        self._texts = TextIndex((one.id, one.question) for one in every if TEXT in one.meta)
        for place, example in enumerate(one for one in every if TEXT not in one.meta):
            words = units(example.question)
            self._names.append(example.id)
            self._exact.setdefault(words, place)
            grams = set(ngrams(words))
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
            if leak := self._find(example.id, text) or self._texts.find(example.id, text):
                return leak
        if example.messages and example.target:  # an answer may hold a text as well as a question
            return self._texts.find(example.id, example.target)
        return None

    def _find(self, name: str, text: str) -> Leak | None:
        words = units(text)
        if words in self._exact:
            return Leak(self._names[self._exact[words]], name, 1.0)
        grams = self._grams
        known = grams.keys() & set(ngrams(words))
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
