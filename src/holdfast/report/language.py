"""The words of the report's page in English and Chinese, from one table: `templates/text.yaml`.

The page holds both, and shows one; a style rule chooses, so that it works without a script. What
the statistics say in sentences (reasons, notes) is translated as on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from typing import NamedTuple

import yaml

from holdfast.analysis.results import Results
from holdfast.errors import printable
from holdfast.progress import translation
from holdfast.progress.language import spoken


class Said(NamedTuple):
    """One text in both languages."""

    en: str
    zh: str


@cache
def table() -> dict[str, Said]:
    """Every string of the page by its key."""
    file = resources.files("holdfast.report") / "templates" / "text.yaml"
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {str(key): Said(one["en"], one["zh"]) for key, one in read.items()}


def same(text: object) -> Said:
    """A name or figure, which is alike in both."""
    return Said(str(text), str(text))


def told(text: str) -> Said:
    """A sentence of the statistics, in Chinese as far as it is known there."""
    return Said(text, translation.told(text, "zh"))


def here(said: Said) -> str:
    """A text in the language of whoever reads here."""
    return said.zh if spoken() == "zh" else said.en


def joined(lines: Iterable[Said], between: str = "\n") -> Said:
    """Several texts, one after another."""
    whole = list(lines)
    return Said(between.join(one.en for one in whole), between.join(one.zh for one in whole))


@dataclass(frozen=True, slots=True)
class Speech:
    """Finds words, those of a comparison first where nothing was trained.

    Attributes:
        compared: models are compared; there are no checkpoints and no training to speak of.
    """

    compared: bool = False

    def say(self, key: str, **values: object) -> Said:
        """The text of a key with its places filled.

        Raises:
            KeyError: the table has no such text, or a place is not given.
        """
        found = table()
        text = (found.get(f"{key}.compared") if self.compared else None) or found[key]
        parts = {name: one if isinstance(one, Said) else same(one) for name, one in values.items()}
        return Said(
            text.en.format_map({name: one.en for name, one in parts.items()}),
            text.zh.format_map({name: one.zh for name, one in parts.items()}),
        )

    def html(self, key: str, **values: object) -> str:
        """The text for the page, both languages, everything escaped."""
        return spans(self.say(key, **values))

    def label(self, key: str, **values: object) -> str:
        """The text as an attribute that a screen reader says; the script changes its language."""
        return labelled(self.say(key, **values))

    def listed(self, names: Iterable[str]) -> Said:
        """``a, b and c``."""
        *rest, last = names
        if not rest:
            return same(last)
        comma = self.say("comma")
        return self.say("and", rest=Said(comma.en.join(rest), comma.zh.join(rest)), last=last)


def of(results: Results) -> Speech:
    """The words for these results."""
    return Speech(compared=not results.trained and not results.seeds)


def spoken_form(text: Said) -> str:
    """The text in the language of this process."""
    return text.zh if spoken() == "zh" else text.en


def spans(text: Said) -> str:
    """Both languages as HTML, one of which is shown; what stands in backticks is code."""
    en, zh = map(_safe, text)
    if en == zh:
        return en
    return f'<span class="s" lang="en">{en}</span><span class="s" lang="zh">{zh}</span>'


def labelled(text: Said) -> str:
    """The attributes of a thing that is named for screen readers only."""
    en, zh = (escape(printable(one)) for one in text)
    return f'aria-label="{en}"' + (f' data-zh="{zh}"' if zh != en else "")


def _safe(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(printable(text, keep="\n")))
