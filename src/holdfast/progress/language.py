"""The language that whoever reads here is spoken to in, and lines as wide as they are shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

Language = Literal["en", "zh"]
VARIABLE: Final = "HOLDFAST_LANG"
LOCALES: Final = (VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG")
"""Variables that say which language is read here: the first that is set."""
WIDE, CLOSING = r"\u2e80-\u9fff\uff00-\uffef", "，。；：、）！？」』"
WORDS: Final = re.compile(rf"[{WIDE}][{CLOSING}]*|[^\s{WIDE}]+[{CLOSING}]*|\s+")
"""What stays on a line: a wide letter or a word, with the signs that close it; spaces."""


def spoken() -> Language:
    """The language of this process: Chinese where its environment is, else English."""
    said = next((found for name in LOCALES if (found := os.environ.get(name))), "")
    return "zh" if said.lower().startswith("zh") else "en"


@contextmanager
def speaking(language: Language | None) -> Iterator[None]:
    """Speak it meanwhile, in processes that are started too; None: that of the environment."""
    before = os.environ.get(VARIABLE)
    if language is not None:
        os.environ[VARIABLE] = language
    try:
        yield
    finally:
        if language is not None:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The lines of a text that is shown in so many columns; wide letters take two.

    Args:
        text: paragraphs end with a line.
        width: of the columns there are.
        indent: of every line but the first of a paragraph.
    """
    from rich.cells import cell_len

    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in WORDS.findall(paragraph):
            if line.strip() and cell_len(line + word.rstrip()) > width:
                lines.append(line.rstrip())
                line = indent
                if word.isspace():
                    continue
            line += word
        lines.append(line.rstrip())
    return lines
