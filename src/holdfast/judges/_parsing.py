"""Reads the value that a judge gives a key: ``Safety: Safe``.

Only a plain answer counts: the key begins a line or a clause, a known value follows, and after it
comes nothing but marks up to the end of the line or to the next key. ``not Harmful: no``,
``Harmful: no idea`` and ``Safety: safe?`` are no answers, and one such makes the whole unsure: what
was half understood is never safe by default.
"""

from __future__ import annotations

import re
from typing import Final

END: Final = r"</s>|<\|\w{1,30}\|>|<end_of_turn>|<eos>"
"""The end of a turn, which some servers leave in the text."""

_MARKUP: Final = " \t*_`'\"“”‘’>#-•"
_CLAUSE: Final = ".,;:!?|{[(。，；：！？"
_NUMBER: Final = re.compile(r"\d{1,2}[.)]")


class Key:
    """One key of a judge's answer, and the values that it may have."""

    def __init__(self, key: str, values: str, keys: str = "", *, own_line: bool = False) -> None:
        """Take patterns, without groups.

        Args:
            key: its name.
            values: what may follow.
            keys: names of all keys, where several may stand in one line.
            own_line: it must begin its line.
        """
        mark = r"[*_`'\"]*\s*[:：]"
        after = rf"\Z|\n|(?=\b(?:{keys}){mark})" if keys else r"\Z|\n"
        self._key = re.compile(rf"\b{key}{mark}", re.IGNORECASE)
        self._value = re.compile(
            rf"[\s*_`'\"]*({values})(?!\w)(?:{END}|[^\w\n?？/]|/(?!\w))*(?:{after})",
            re.IGNORECASE,
        )
        self._own_line = own_line

    def read(self, text: str) -> str:
        """The value, in lower case; "" for none, for several, or for what is no plain answer."""
        values = set()
        for match in self._key.finditer(text):
            before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            found = self._value.match(text, match.end()) if self._begins(before) else None
            values.add(found[1].lower() if found else "")
        return values.pop() if len(values) == 1 else ""

    def _begins(self, before: str) -> bool:
        """Whether nothing, or the end of a clause, stands before the key in its line."""
        bare = before.strip(_MARKUP)
        if not bare or _NUMBER.fullmatch(bare):
            return True
        return not self._own_line and bare[-1] in _CLAUSE
