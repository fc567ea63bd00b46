"""Finds texts that measure in what is trained on, whole or in part, and the other way round.

A text is compared by its word n-grams, as a question is, but in both directions: a document leaks
when `OVERLAP` of it stands in one training text, and when `OVERLAP` of a training text of some
length stands in it. n-grams are kept as checksums, and of long texts one in `SPARSE` of them, the
same ones on both sides, so that ten megabytes take seconds and a hundred megabytes of memory.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

NGRAM, OVERLAP = 6, 0.75
SPARSE, LONG = 8, 20_000
"""Of a text of more than so many words, one in so many n-grams is kept."""
LEAST = 16
"""n-grams that a training text must have for its being part of a document to mean anything."""
FIRST_COMBINING = "\u0300"
WORD = re.compile(r"\w+", re.UNICODE)


@dataclass(frozen=True, slots=True)
class Leak:
    """One evaluation item and the training item that gives it away; `share` of its n-grams."""

    evaluated: str
    trained: str
    share: float


class TextIndex:
    """The documents of a study that measure, ready to be compared with training texts."""

    def __init__(self, evaluated: Iterable[tuple[str, str]]) -> None:
        """Index documents, each its id and its text."""
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._sparse: list[bool] = []
        self._grams: dict[int, list[int]] = {}
        self._exact: dict[tuple[str, ...], int] = {}
        for name, text in evaluated:
            words = normalise(text)
            place, sparse = len(self._names), len(words) > LONG
            grams = {one for one in _marks(words) if not sparse or one % SPARSE == 0}
            self._names.append(name)
            self._sizes.append(len(grams))
            self._sparse.append(sparse)
            self._exact.setdefault(words, place)
            for gram in grams:
                self._grams.setdefault(gram, []).append(place)

    def find(self, name: str, text: str) -> Leak | None:
        """The document that a training text gives away, or is a part of, if any."""
        if not self._names:
            return None
        words = normalise(text)
        if words in self._exact:
            return Leak(self._names[self._exact[words]], name, 1.0)
        own = set(_marks(words))
        known = own & self._grams.keys()
        shared = Counter(place for gram in known for place in self._grams[gram])
        thin = sum(gram % SPARSE == 0 for gram in own) if len(own) >= LEAST else 0
        best, found = OVERLAP, None
        for place, count in shared.items():
            mine = thin if self._sparse[place] else len(own)
            part = count / mine if mine >= LEAST else 0.0
            share = max(count / self._sizes[place], part)
            if share >= best:
                best, found = share, place
        return None if found is None else Leak(self._names[found], name, best)


def _marks(words: tuple[str, ...]) -> Iterator[int]:
    """A checksum of each n-gram in order; fewer words are one of their own."""
    if words and len(words) < NGRAM:
        yield zlib.crc32(" ".join(words).encode())
    for part in zip(*(words[start:] for start in range(NGRAM)), strict=False):
        yield zlib.crc32(" ".join(part).encode())


def normalise(text: str) -> tuple[str, ...]:
    """Words in lower case, without punctuation, accents and width variants."""
    if text.isascii():
        return tuple(WORD.findall(text.lower()))
    folded = unicodedata.normalize("NFKD", text).casefold()
    kept = (c for c in folded if c < FIRST_COMBINING or not unicodedata.combining(c))
    return tuple(WORD.findall("".join(kept)))
