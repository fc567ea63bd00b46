"""Texts of others as markdown that shows them and does nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from holdfast.analysis.results import TaskInfo
from holdfast.errors import printable

MARK = re.compile(
    r"(?P<interval>\[[+\-\u2212\d., ]+\](?![\[(:{]))"  # of figures, which leads nowhere
    r"|(?P<html>[&<>])"
    r"|(?P<link>(?<=[A-Za-z]):(?=//)|(?<=\bwww)\.|(?<=\S)@(?=[\w-]+\.)"  # renderers link these
    r"|\b(?:javascript|vbscript|data|file|mailto|xmpp|tel):)"
    r"|(?P<mark>[\\`*~$|\[\]]|(?<![^\W_])_|_(?![^\W_])|^[#+=-]|^\d{1,9}[.)](?=\s|$))",
    re.IGNORECASE,
)
"""What lives in markdown, on its own or beside what we write."""


def clean(text: str) -> str:
    """`text` as markdown shows it letter by letter, in one line that fits into a table's cell.

    Nothing in it lives: no link, image, HTML, code, heading, emphasis or formula, no control or
    direction marks. The one door for texts of others in whatever is written as markdown.
    """
    return MARK.sub(_harmless, printable(" ".join(text.split())))


def _harmless(found: re.Match[str]) -> str:
    one = found[0]
    if found["interval"]:
        return one
    if found["html"]:
        return escape(one, quote=False)
    return one[:-1] + (f"&#{ord(one[-1])};" if found["link"] else f"\\{one[-1]}")


def code(text: str) -> str:
    """`text` as code within a line, whatever backticks are in it."""
    flat = printable(" ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    return f"{fence} {flat} {fence}" if "`" in flat or not flat else f"`{flat}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub markdown table; cells must be `clean` already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def title(task: TaskInfo) -> str:
    """A task's name, role and literal label, for the head of a table column."""
    hint = "; lower is better" if task.lower_is_better else ""
    return f"{clean(task.name)} ({clean(task.role)}): {clean(task.label)}{hint}"
