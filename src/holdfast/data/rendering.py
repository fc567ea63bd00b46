"""Renders conversations with a model's chat template, as the study's settings say.

Everything that shows turns to a model comes through here, in training and asking alike: the
template's variables, the date, the thinking, the tools and the turns' further fields are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.data.chat_settings import settings_of
from holdfast.data.templates import REMEDY, ChatTemplate, EndlessTemplate, template_of
from holdfast.data.thinking import split
from holdfast.data.thinking_switch import Thinking, thinking_of
from holdfast.errors import ModelError
from holdfast.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tools = Sequence[Mapping[str, Any]]
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names under which turns hold their thinking; templates read the first or the second."""
OURS = ("weight",)
"""Fields of a turn that no template gets to see."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, and the places that the template marks as generated."""

    text: str
    marks: tuple[tuple[int, int], ...] = ()


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Tools = (),
    *,
    prompt: bool = False,
    parts: bool = False,
) -> Rendered:
    """A conversation as the model sees it.

    Args:
        tokenizer: with its template and, attached to it, the study's settings.
        messages: the turns.
        tools: JSON schemas of the functions that are offered.
        prompt: end where the model's own turn begins.
        parts: give each turn's content as a list of parts.

    Raises:
        ModelError: the template is broken, refuses the turns or does not come to an end.
    """
    settings = settings_of(tokenizer)
    template = template_of(tokenizer, bool(tools), settings.date)
    thinking = _thinking(tokenizer, template)
    told: dict[str, Any] = {
        "tools": [dict(one) for one in tools] or None,
        "add_generation_prompt": prompt,
        **settings.kwargs,
    }
    if thinking.switch is not None:
        told[thinking.switch] = thinking.on
    known = "" if template is None else template.text
    calls = any(message.extra.get("tool_calls") for message in messages)
    for as_text in (False, True) if calls else (False,):
        turns = [_turn(one, thinking, known, parts, as_text) for one in messages]
        try:
            if template is None:
                text = tokenizer.apply_chat_template(turns, tokenize=False, **told)
                return Rendered(str(text))
            given = {**tokenizer.special_tokens_map, "documents": None, **told, "messages": turns}
            text, marks = template.render(given)
        except EndlessTemplate as error:
            raise ModelError(
                "the chat template does not come to an end", where="chat template", remedy=REMEDY
            ) from error
        except ModelError:
            raise
        except Exception as error:  # a template may raise anything, e.g. on a system turn
            if calls and not as_text:
                continue
            roles = ", ".join(message.role for message in messages)
            raise ModelError(
                f"the chat template refused the conversation: {error} (turns: {roles})",
                remedy="check the roles that this model's template allows, and their order; put a "
                "system text into the first question, or give a template in model.chat_template",
            ) from error
        if calls and not as_text and _shows_python(text, turns):
            continue
        return Rendered(text, tuple(marks))
    raise AssertionError("the last way returns or raises")


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools = ()
) -> str:
    """The text that the model continues, ending where its own turn begins."""
    return render(tokenizer, messages, tools, prompt=True).text


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Tools = ()
) -> list[int]:
    """Token ids of `prompt_text`; the template has put the special tokens in already."""
    text = prompt_text(tokenizer, messages, tools)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def thinking(tokenizer: PreTrainedTokenizerBase, tools: bool = False) -> Thinking:
    """Whether this model is asked to think before it answers.

    Raises:
        ModelError: the study asks for what the template cannot do.
    """
    template = template_of(tokenizer, tools, settings_of(tokenizer).date)
    return _thinking(tokenizer, template)


def variables(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What the template is told beside the turns: the study's variables and the thinking."""
    found, state = dict(settings_of(tokenizer).kwargs), thinking(tokenizer)
    return found if state.switch is None else {**found, state.switch: state.on}


def fixed_date(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with the study's date written into its template, for who renders elsewhere."""
    settings = settings_of(tokenizer)
    template = template_of(tokenizer, False, settings.date)
    if template is not None and template.reads_clock:
        tokenizer.chat_template = template.dated()
    return tokenizer


def _thinking(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None) -> Thinking:
    if template is None:
        return Thinking()
    return thinking_of(template, settings_of(tokenizer), tokenizer.special_tokens_map)


def reasoning_of(message: Message) -> tuple[str, Message]:
    """What a turn thinks, and the turn without it."""
    named = [str(message.extra[name]) for name in THOUGHTS if message.extra.get(name)]
    extra = {key: value for key, value in message.extra.items() if key not in THOUGHTS}
    found = split(message.content)
    thought, content = found.thinking, found.answer
    if not found.closed:
        thought, content = "", message.content
    return (named[0] if named else thought), Message(message.role, content, extra)


def _turn(
    message: Message, thinking: Thinking, known: str, parts: bool, as_text: bool
) -> dict[str, Any]:
    if message.role == "assistant" and thinking.on is not None:
        thought, bare = reasoning_of(message)
        if not thinking.on:
            message = bare
        elif thought and THOUGHTS[0] in known:
            message = replace(bare, extra={**bare.extra, THOUGHTS[0]: thought})
    role = message.role
    if role == "developer" and "developer" not in known:
        role = "system"
    turn: dict[str, Any] = {"role": role, "content": message.content}
    turn |= {k: v for k, v in message.extra.items() if v is not None and k not in OURS}
    thoughts = [turn[name] for name in THOUGHTS if name in turn]
    if thoughts:  # as transformers hands them to templates
        turn = {"thinking": thoughts[0], **turn, "reasoning_content": thoughts[0]}
    if turn.get("tool_calls"):
        turn["tool_calls"] = [_call(one, as_text) for one in turn["tool_calls"]]
    if parts:
        turn["content"] = [{"type": "text", "text": turn["content"]}]
    return turn


def _call(call: Any, as_text: bool) -> Any:
    """A call of a function with its arguments as an object, which most templates expect."""
    if not isinstance(call, Mapping):
        return call
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _call(call["function"], as_text)}
    given = call.get("arguments")
    if isinstance(given, str) and not as_text:
        try:
            read = json.loads(given)
        except ValueError:
            return dict(call)
        return {**call, "arguments": read} if isinstance(read, Mapping) else dict(call)
    if isinstance(given, Mapping) and as_text:
        return {**call, "arguments": json.dumps(given, ensure_ascii=False)}
    return dict(call)


def _shows_python(text: str, turns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a call's arguments stand in the text as Python writes them, which is not JSON."""
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            inner = call.get("function", call) if isinstance(call, Mapping) else {}
            given = inner.get("arguments") if isinstance(inner, Mapping) else None
            if isinstance(given, Mapping) and given and str(given) in text:
                return str(given) != json.dumps(given, ensure_ascii=False)
    return False
