"""Names what a server is told beyond the fields of OpenAI's own protocol."""

from __future__ import annotations

from typing import Any

from holdfast.config import Sampling
from holdfast.data.thinking_marks import SWITCHES
from holdfast.endpoint import parse_url
from holdfast.errors import ModelError
from holdfast.models import ModelRef


def told_beyond(sampling: Sampling, ref: ModelRef, where: str = "") -> dict[str, Any]:
    """What a question to a server holds, where it is asked for, beyond OpenAI's own fields.

    Variables of the template go as vLLM and SGLang take them; which of them switches thinking only
    the template knows, which ignores the others.

    Args:
        sampling: how it is asked.
        ref: the model, with how its template is used.
        where: the server, for messages; "": as the model's address says.

    Raises:
        ModelError: a template of the study's own, which no server takes.
    """
    chat = ref.chat
    if chat.template is not None:
        raise ModelError(
            "a server renders conversations by a template of its own, not by the study's",
            where=f"model.chat_template, for {where or parse_url(ref.base).where}",
            remedy="start the server with that template, and leave it out here",
        )
    found: dict[str, Any] = {}
    if sampling.temperature > 0:
        found |= {"top_k": sampling.top_k} if sampling.top_k else {}
        found |= {"min_p": sampling.min_p} if sampling.min_p else {}
    if sampling.repetition_penalty != 1:
        found["repetition_penalty"] = sampling.repetition_penalty
    switched = {} if chat.thinking is None else dict.fromkeys(SWITCHES, chat.thinking)
    if variables := {**switched, **chat.kwargs}:
        found["chat_template_kwargs"] = variables
    return found
