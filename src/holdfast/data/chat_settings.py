"""Keeps how a chat template is used with the tokenizer that holds it, so that nobody forgets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.types import ChatSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SETTINGS = "holdfast_chat"
"""The attribute of a tokenizer that holds its settings."""


def attach(tokenizer: PreTrainedTokenizerBase, settings: ChatSettings) -> None:
    """Give a tokenizer the study's own template, if there is one, and remember the rest."""
    if settings.template is not None:
        tokenizer.chat_template = settings.template
    setattr(tokenizer, SETTINGS, settings)


def settings_of(tokenizer: PreTrainedTokenizerBase) -> ChatSettings:
    """What `attach` remembered; the defaults where it was never called."""
    found = getattr(tokenizer, SETTINGS, None)
    return found if isinstance(found, ChatSettings) else ChatSettings()
