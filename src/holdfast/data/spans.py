"""Finds, in a rendered conversation, what the model itself says.

The last answer begins where the prompt ends with which the model is asked. Earlier ones are found
by rendering the conversation up to them, or, where the template shows earlier answers otherwise
than it asks for them, by where their words stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.data.rendering import prompt_text, reasoning_of, render, thinking
from holdfast.data.thinking_marks import CLOSING, OPENING
from holdfast.data.thinking_switch import Thinking
from holdfast.errors import ModelError
from holdfast.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SENTINEL = "holdfastwords"
"""Stands in for an answer, to see where a template puts it."""


@dataclass(frozen=True, slots=True)
class Span:
    """One turn of the model in the text of a conversation, in characters.

    Attributes:
        start: where it begins to speak.
        said: where its words end; the end-of-turn token comes after that.
        end: where the turn is over.
        first_end: whether the turn ends with the first end-of-turn token after `said`, not with
            the last before `end`.
    """

    start: int
    said: int
    end: int
    first_end: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation to learn from.

    Attributes:
        prompt: the text with which the model is asked for the last answer.
        text: prompt and answer; it begins with `prompt`.
        earlier: the model's earlier turns, where they were looked for.
        own: whether `text` is what the template renders of the whole conversation.
        restyled: whether the template shows earlier answers otherwise than it asks for them.
    """

    prompt: str
    text: str
    earlier: tuple[tuple[Message, Span], ...] = ()
    own: bool = True
    restyled: bool = False


def lay_out(tokenizer: PreTrainedTokenizerBase, example: Example, every: bool) -> Conversation:
    """A conversation as text, with the places where the model speaks.

    Args:
        tokenizer: with its template.
        example: with turns and an answer.
        every: look for the earlier turns of the model as well.

    Raises:
        ModelError: the template renders earlier turns otherwise once an answer follows, so that
            prompt and answer cannot be told apart.
    """
    prompt = prompt_text(tokenizer, example.messages, example.tools)
    whole = render(tokenizer, (*example.messages, example.answer), example.tools)
    own = whole.text.startswith(prompt)
    text = whole.text if own else _stitched(tokenizer, example, prompt)
    found = Conversation(prompt, text, own=own)
    if not every:
        return found
    speaks = [at for at, one in enumerate(example.messages) if one.role == "assistant"]
    marked = own and len(whole.marks) == len(speaks) + 1
    spans, restyled = [], False
    for number, place in enumerate(speaks):
        message = example.messages[place]
        if (span := _as_asked(tokenizer, example, place, text)) is None:
            try:
                span, other = _where_it_stands(tokenizer, example, place, text)
                restyled = restyled or other
            except ModelError:
                if not marked:
                    raise
                start, end = whole.marks[number]
                span = Span(start, start, end)
        spans.append((message, span))
    return replace(found, earlier=tuple(spans), restyled=restyled)


def after_words(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    """What the template writes after the words of the last answer, its end of turn first."""
    stands = replace(example.answer, content=SENTINEL)
    shown = render(tokenizer, (*example.messages, stands), example.tools).text
    return shown.rpartition(SENTINEL)[2]


def _stitched(tokenizer: PreTrainedTokenizerBase, example: Example, prompt: str) -> str:
    """The prompt with the answer behind it, for a template that asks otherwise than it shows.

    Such templates open the thinking in the prompt, or put an empty thought there, and leave both
    out of an answer that is there already.
    """
    state = thinking(tokenizer, bool(example.tools))
    thought, answer = reasoning_of(example.answer) if state.on is not None else ("", example.answer)
    head, body = _around(tokenizer, example.messages, answer, example)
    if not prompt.startswith(head):
        head = _without_empty_thought(head)
    if not prompt.startswith(head):
        raise ModelError(
            "the chat template renders the prompt differently once an answer follows, so what is "
            "trained on would differ from what is asked",
            remedy="give a template whose generation prompt is a prefix in model.chat_template",
        )
    return prompt + _closed(thought, state) + body


def _closed(thought: str, state: Thinking) -> str:
    """What the model writes of its thinking, where the prompt has opened it."""
    if not state.opened:
        return ""
    return f"{thought.strip()}\n{state.closing}\n\n" if thought else f"\n{state.closing}\n\n"


def _without_empty_thought(head: str) -> str:
    """What stands before an answer, without a thought that is empty or only closed."""
    closed = [one for one in CLOSING.finditer(head) if not head[one.end() :].strip()]
    if not closed:
        return head
    kept = head[: closed[-1].start()]
    opened = [one for one in OPENING.finditer(kept) if not kept[one.end() :].strip()]
    return kept[: opened[-1].start()] if opened else kept


def _around(
    tokenizer: PreTrainedTokenizerBase,
    before: Sequence[Message],
    answer: Message,
    example: Example,
    after: Sequence[Message] = (),
) -> tuple[str, str]:
    """The conversation, cut where the words of one answer begin.

    Raises:
        ModelError: the template does not show the answer's words.
    """
    stands = replace(answer, content=SENTINEL)
    shown = render(tokenizer, (*before, stands, *after), example.tools).text
    text = render(tokenizer, (*before, answer, *after), example.tools).text
    head, found, _ = shown.partition(SENTINEL)
    if not found or not text.startswith(head):
        raise ModelError(
            "the chat template renders the prompt differently once an answer follows, or does not "
            "show the answer, so what is trained on would differ from what is asked",
            remedy="give a template that shows every turn as it is in model.chat_template",
        )
    return head, text[len(head) :]


def _as_asked(
    tokenizer: PreTrainedTokenizerBase, example: Example, place: int, text: str
) -> Span | None:
    """An earlier turn of the model, if the template shows it as it asks for it; else None."""
    before = example.messages[:place]
    if not before:
        return None
    asked = prompt_text(tokenizer, before, example.tools)
    until = render(tokenizer, example.messages[: place + 1], example.tools).text
    if not (text.startswith(until) and until.startswith(asked)):
        return None
    return Span(len(asked), len(asked), len(until))


def _where_it_stands(
    tokenizer: PreTrainedTokenizerBase, example: Example, place: int, text: str
) -> tuple[Span, bool]:
    """An earlier turn of the model by where its words stand; whether it is asked for otherwise.

    Raises:
        ModelError: the template shows what comes before it otherwise than when it is asked, or
            leaves out its thinking.
    """
    before, message = example.messages[:place], example.messages[place]
    after = (*example.messages[place + 1 :], example.answer)
    head, body = _around(tokenizer, before, message, example, after)
    asked = prompt_text(tokenizer, before, example.tools) if before else head
    start = len(asked) if text.startswith(asked) else len(head)
    if not text.startswith(head) or not (asked.startswith(head) or text.startswith(asked)):
        raise ModelError(
            f"the chat template shows the question before answer {place + 1} otherwise once the "
            "conversation goes on, so a loss on that answer would teach what is never asked",
            remedy="set train.train_on: last, or give a template that shows every turn alike in "
            "model.chat_template",
        )
    restyled = not text.startswith(asked)
    if thinking(tokenizer).on:
        raise ModelError(
            "the chat template leaves the thinking of earlier answers out, so a loss on them would "
            "teach the model not to think",
            remedy="set train.train_on: last, or model.thinking: false",
        )
    words = reasoning_of(message)[1].content.strip()
    found = body.find(words)
    said = len(head) + found + len(words) if found >= 0 else len(head)
    return Span(start, said, len(text), first_end=True), restyled
