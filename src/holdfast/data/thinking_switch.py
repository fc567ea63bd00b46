"""Finds whether a chat template has the model think, and how that is switched.

Some templates have a variable for it (`enable_thinking`, `thinking`), some open the thinking
themselves whatever they are told, most know nothing of it. Which it is, is tried.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from holdfast.data.templates import ChatTemplate, EndlessTemplate
from holdfast.errors import ModelError
from holdfast.types import ChatSettings

SWITCHES = ("enable_thinking", "thinking", "reasoning")
"""Variables of templates that switch thinking."""
BRACKETS = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"), ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"), ("◁think▷", "◁/think▷"),
)  # fmt: skip
"""What thinking stands between, as templates write it."""
OPENINGS = re.compile(rf"\s*(?:{'|'.join(re.escape(opening) for opening, _ in BRACKETS)})")
PROBE = [{"role": "user", "content": "holdfast-user-turn"}]


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a template makes of thinking.

    Attributes:
        switch: the variable that switches it, or None.
        on: whether the model is asked to think; None: the template has nothing to do with it.
        opened: the mark with which the prompt itself opens the thinking, or "".
        closing: the mark that ends what `opened` opens.
    """

    switch: str | None = None
    on: bool | None = None
    opened: str = ""
    closing: str = ""


def thinking_of(
    template: ChatTemplate, settings: ChatSettings, specials: Mapping[str, str]
) -> Thinking:
    """How a template is told to have the model think, or not to.

    Args:
        template: of the model.
        settings: of the study.
        specials: the tokenizer's special tokens by name, which templates read.

    Raises:
        ModelError: the study asks for what the template cannot do.
    """
    return _found(
        template,
        json.dumps(dict(settings.kwargs), sort_keys=True, default=str),
        settings.thinking,
        tuple(sorted((str(key), str(value)) for key, value in specials.items())),
    )


@lru_cache(maxsize=256)
def _found(
    template: ChatTemplate, kwargs: str, wanted: bool | None, specials: tuple[tuple[str, str], ...]
) -> Thinking:
    given = {**dict(specials), **json.loads(kwargs)}
    switch = next((name for name in SWITCHES if _switches(template, name, given)), None)
    if switch is not None:
        on = bool(given[switch]) if switch in given else bool(wanted)
        opened, closing = open_mark(_asked(template, {**given, switch: on}) or "")
        return Thinking(switch, on, opened, closing)
    opened, closing = open_mark(_asked(template, given) or "")
    if opened and wanted is False:
        raise ModelError(
            f"model.thinking is false, but the chat template opens {opened} itself and has no "
            "switch for it",
            where="model.thinking",
            remedy="leave it out or set it to true, or give a template without it in "
            "model.chat_template",
        )
    if wanted and not opened:
        raise ModelError(
            "model.thinking is true, but the chat template has no switch for thinking "
            f"({', '.join(SWITCHES)}) and does not open it",
            where="model.thinking",
            remedy="leave it out, or give the template of a thinking model in model.chat_template",
        )
    return Thinking(None, True if opened else None, opened, closing)


def _switches(template: ChatTemplate, name: str, given: Mapping[str, Any]) -> bool:
    if name not in template.variables:
        return False
    shown = [_asked(template, {**given, name: value}) for value in (True, False)]
    return None not in shown and shown[0] != shown[1]


def _asked(template: ChatTemplate, given: Mapping[str, Any]) -> str | None:
    """The prompt of a single question; None where the template cannot render one."""
    told = {"messages": PROBE, "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        return template.render({**told, **given})[0]
    except EndlessTemplate:
        return None
    except Exception:  # a template may raise anything; asking it in earnest will say what
        return None


def open_mark(prompt: str) -> tuple[str, str]:
    """The mark of thinking that a prompt ends in, with the one that closes it; "" for none."""
    for opening, closing in BRACKETS:
        place = prompt.rfind(opening)
        if place >= 0 and not prompt[place + len(opening) :].strip():
            return opening, closing
    return "", ""


def split(text: str) -> tuple[str, str]:
    """Thinking that stands at the beginning of an answer, and the answer without it."""
    if OPENINGS.match(text) is None:
        return "", text
    for opening, closing in BRACKETS:
        pattern = rf"\s*{re.escape(opening)}(.*?){re.escape(closing)}\s*"
        if found := re.match(pattern, text, re.DOTALL):
            return found[1].strip(), text[found.end() :]
    return "", text
