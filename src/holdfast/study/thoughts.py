"""Looks before anything runs at whether models that think have the room for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from holdfast import models
from holdfast.data import chat, thinking
from holdfast.endpoint import is_endpoint
from holdfast.engines.resumable import LIKELIHOODS
from holdfast.models.template_files import template_text
from holdfast.study.session import Session
from holdfast.types import Example, ModelRef

FEW_TOKENS = 1024
"""Fewer new tokens are seldom enough to think and to answer."""


def check_thinking(session: Session) -> list[str]:
    """A notice for every task whose answers may be cut off while the model still thinks.

    Raises:
        ModelError: the tokenizer cannot be loaded, or refuses the question.
    """
    short = {
        name: sampling.max_new_tokens
        for name, sampling in session.measuring.samplings.items()
        if sampling.max_new_tokens < FEW_TOKENS
        and not any(LIKELIHOODS in one.meta for one in session.measuring.asked[name])
    }
    ref = session.plan.model
    given = any(arm.foreign and arm.foreign.form == "answers" for arm in session.arms.values())
    if given or is_endpoint(ref.base) or not short:
        return []
    if not _thinks(ref, session.measuring.asked[next(iter(short))]):
        return []
    return [
        f"{name}: the model thinks before it answers, and {most} new tokens may end before the "
        f"answer begins, which is then graded as empty; raise tasks.{name}.sampling.max_new_tokens"
        " or set model.thinking: false."
        for name, most in short.items()
    ]


def _thinks(ref: ModelRef, asked: Sequence[Example]) -> bool:
    """Whether a model is asked in such a way that it thinks."""
    text = template_text(ref)
    if Path(ref.base).is_dir() and not thinking.speaks_of_thinking(text):
        return False
    tokenizer = models.load_tokenizer(ref, chats=False)
    template = text or json.dumps(tokenizer.chat_template, ensure_ascii=False)
    if not thinking.speaks_of_thinking(template):
        return False
    prompt = tokenizer.decode(chat.asked_ids(tokenizer, asked[0]), skip_special_tokens=False)
    return thinking.expected(template, prompt, ref.chat.thinking)
