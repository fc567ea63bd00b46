"""Finds whether a chat template has the model think, and how that is switched.

Some templates have a variable for it (`enable_thinking`, `thinking`), some open the thinking
themselves whatever they are told, most know nothing of it. Which it is, is tried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from holdfast.data import thinking_marks
from holdfast.data.templates import ChatTemplate, EndlessTemplate
from holdfast.errors import ModelError
from holdfast.types import ChatSettings

SWITCHES = (*thinking_marks.SWITCHES, "reasoning")
"""Variables of templates that switch thinking."""
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
        opened = thinking_marks.opened(_asked(template, {**given, switch: on}) or "").rstrip()
        return Thinking(switch, on, opened, thinking_marks.closing_of(opened))
    opened = thinking_marks.opened(_asked(template, given) or "").rstrip()
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
    return Thinking(None, True if opened else None, opened, thinking_marks.closing_of(opened))


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
