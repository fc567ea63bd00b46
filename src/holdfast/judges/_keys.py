"""Reads the value that a judge gives a key: ``Safety: Safe``.

The key begins a line or a clause, and its value is read as `_parsing.label` reads one. Where one is
no plain answer (``not Harmful: no``), the whole is unsure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from holdfast.judges._parsing import TOKENS, label

_MARKUP: Final = " \t*_`'\"“”‘’>#-•{[("
NEAR: Final = 300
"""Letters before a key that are looked at."""
_NUMBER: Final = re.compile(r"\d{1,2}[.)]")
_CLAUSE: Final = ".,;:!?|{[(。，；：！？"


class Key:
    """One key of a judge's answer, and the values that it may have."""

    def __init__(
        self, key: str, values: Sequence[str], keys: str = "", *, own_line: bool = False
    ) -> None:
        """Take a pattern without groups, and the values.

        Args:
            key: its name.
            values: what may follow.
            keys: names of all keys, where several may stand in one line.
            own_line: it must begin its line, or stand behind another key there.
        """
        mark = r"[*_`'\"]{0,4}\s{0,3}[:：]"
        self._key = re.compile(rf"\b{key}{mark}", re.IGNORECASE)
        self._next = re.compile(rf"\n|\b(?:{keys or '(?!)'}){mark}", re.IGNORECASE)
        self._values, self._own_line = values, own_line

    def read(self, text: str) -> str:
        """The value, in lower case; "" for none, for several, or for what is no plain answer."""
        values = set()
        text = TOKENS.sub(" . ", text)  # what is said after the end is not passed over
        for match in self._key.finditer(text):
            near = max(0, match.start() - NEAR)
            before = text[near : match.start()].rpartition("\n")[2]
            values.add(self._value(text, match.end()) if self._begins(before) else "")
            if len(values) > 1:
                return ""
        return values.pop() if values else ""

    def _value(self, text: str, at: int) -> str:
        start = at + len(text[at : at + 200]) - len(text[at : at + 200].lstrip())
        end = self._next.search(text, start)
        return label(text[start : end.start() if end else len(text)], self._values)[0]

    def _begins(self, before: str) -> bool:
        """Whether nothing, or the end of a clause, stands before the key in its line."""
        bare = before.strip(_MARKUP)
        if not bare.strip(".") or _NUMBER.fullmatch(bare):
            return True
        *_, key = [None, *self._next.finditer(before)]
        if key is not None and len(before[key.end() :].split()) <= 3:
            return True
        return not self._own_line and bare[-1] in _CLAUSE
