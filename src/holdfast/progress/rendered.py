"""Whole texts in the language of whoever reads: rows of a table, studies, model cards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from holdfast.progress.language import spoken
from holdfast.progress.translation import Said, told

COMMENT: Final = re.compile(r"(?P<before>^|\s)# (?P<space> *)(?P<words>\S.*)$")
FENCE, FRONT = "```", "---"
MARK: Final = re.compile(r"(?:#+ |- )?")
"""What a line of Markdown begins with."""


def study_in_language(text: str) -> str:
    """A study whose comments are translated, line by line; the same text where English is read.

    Args:
        text: YAML as the project writes it: no `` # `` inside a value.
    """
    return text if spoken() == "en" else "\n".join(map(_commented, text.split("\n")))


def _commented(line: str) -> str:
    found = COMMENT.search(line)
    if found is None or line.startswith("# yaml-language-server"):
        return line
    words = told(found["words"])
    return f"{line[: found.start()]}{found['before']}# {found['space']}{words}"


def card_in_language(card: str) -> str:
    """The card with its sentences in the language that is spoken; the same text in English.

    Args:
        card: Markdown with YAML in front.
    """
    return card if spoken() == "en" else "\n".join(_lines(card.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    front, code = lines[:1] == [FRONT], False
    for number, line in enumerate(lines):
        bound = front and line == FRONT and number > 0
        if line.startswith(FENCE):
            code = not code
        plain = front or code or line.startswith((FENCE, "|--"))
        front = front and not bound
        yield line if plain else _prose(line)


def _prose(line: str) -> str:
    if line.startswith("| "):
        return "| " + " | ".join(map(told, line.strip("| ").split(" | "))) + " |"
    mark = MARK.match(line)
    start = mark.end() if mark else 0
    bold = line[start:].startswith("**") and line.endswith("**")
    words = line[start:].strip("*") if bold else line[start:]
    said = told(words)
    return line[:start] + (f"**{said}**" if bold else said)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, cells below each other and to the right but for the first of each.

    Args:
        rows: all of one length; cells in English, as wide as they are in the reader's language.
    """
    from rich.cells import cell_len

    cells = [[told(cell) for cell in row] for row in rows]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(cells[0]))]
    lines: list[str] = []
    for first, *rest in cells:
        line = first + " " * (widths[0] - cell_len(first))
        for cell, wide in zip(rest, widths[1:], strict=True):
            line += "  " + " " * (wide - cell_len(cell)) + cell
        lines.append(Said(line))
    return lines
