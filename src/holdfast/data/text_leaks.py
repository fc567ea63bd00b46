"""Finds texts that measure in what is trained on, whole or in part, and the other way round.

A text is compared by its word n-grams, as a question is, but in both directions: a document leaks
when `OVERLAP` of it stands in one training text, and when `OVERLAP` of a training text of some
length stands in it. n-grams are kept as checksums, and of long texts one in `SPARSE` of them, the
same ones on both sides, so that ten megabytes take seconds and a hundred megabytes of memory.

Scripts that set no spaces are read character by character, and as one character says less than a
word, an n-gram holds more of them: ten ideographs, or fifteen letters of kana or Thai.
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
JAMO = r"\u1100-\u11ff"  # parts of Hangul syllables, as normalising leaves them
IDEOGRAPHS = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
LETTERS = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf"
    r"\u31f0-\u31ff\ua9e0-\ua9ff\uaa60-\uaa7f\U0001b000-\U0001b16f"
)
"""Of Thai, Lao, Myanmar, Khmer, kana and Bopomofo."""
UNIT = re.compile(
    rf"[\u1100-\u115f][\u1160-\u11a7]?[\u11a8-\u11ff]?|(?!\W)[{IDEOGRAPHS}{LETTERS}{JAMO}]"
    rf"|[^\W{IDEOGRAPHS}{LETTERS}{JAMO}]+"
)
"""A character of such a script, a syllable of Hangul, or a word of any other."""
FIRST_ALONE = "\u0e00"
"""No such character comes before it."""
IDEOGRAPH, LETTER = re.compile(f"[{IDEOGRAPHS}{JAMO}]"), re.compile(f"[{LETTERS}]")
OF_WORD, OF_IDEOGRAPH, OF_LETTER = 5, 3, 2
"""In an n-gram, which is full at `NGRAM` words; shorter ones stand in more texts of one style."""


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
            words = units(text)
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
        words = units(text)
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
    """A checksum of each n-gram in order."""
    return (zlib.crc32(" ".join(part).encode()) for part in ngrams(words))


def ngrams(words: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """The n-grams of a text's `units` as they follow each other; fewer are one of their own."""
    if words and max(words) >= FIRST_ALONE:
        return _filled(words)
    if len(words) < NGRAM:
        return (words,) if words else ()
    return zip(*(words[start:] for start in range(NGRAM)), strict=False)


def _filled(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """From each unit on, as many as fill an n-gram."""
    each = {word: _counts_for(word) for word in set(words)}
    counts = [each[word] for word in words]
    end, held = 0, 0
    for start, count in enumerate(counts):
        while held < OF_WORD * NGRAM and end < len(words):
            held += counts[end]
            end += 1
        if held >= OF_WORD * NGRAM or not start:
            yield words[start:end]
        held -= count


def _counts_for(unit: str) -> int:
    if unit < FIRST_ALONE:
        return OF_WORD
    return OF_IDEOGRAPH if IDEOGRAPH.match(unit) else OF_LETTER if LETTER.match(unit) else OF_WORD


def units(text: str) -> tuple[str, ...]:
    """The words of `normalise`, those of scripts without spaces taken apart into characters."""
    return _found(text, UNIT)


def normalise(text: str) -> tuple[str, ...]:
    """Words in lower case, without punctuation, accents and width variants.

    What is held out and what is drawn hang on these words, so that they stay as they are.
    """
    return _found(text, WORD)


def _found(text: str, one: re.Pattern[str]) -> tuple[str, ...]:
    if text.isascii():
        return tuple(WORD.findall(text.lower()))
    folded = unicodedata.normalize("NFKD", text).casefold()
    kept = (c for c in folded if c < FIRST_COMBINING or not unicodedata.combining(c))
    return tuple(one.findall("".join(kept)))
