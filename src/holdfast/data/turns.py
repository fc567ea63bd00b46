"""Finds, in a rendered conversation, what the model itself says.

The last answer begins where the prompt ends with which the model is asked. Earlier ones are found
by rendering the conversation up to them, or, where the template shows earlier answers otherwise
than it asks for them, by where their words stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast.data.rendering import Rendered, prompt_text, reasoning_of, render, thinking
from holdfast.data.thinking_switch import BRACKETS, Thinking
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
        end: where the next turn's header may begin at the latest.
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
    if marked := _marked(example, whole, own):
        return replace(found, earlier=marked)
    spans, restyled = [], False
    for place, message in enumerate(example.messages):
        if message.role == "assistant":
            span, other = _earlier(tokenizer, example, place, text)
            spans.append((message, span))
            restyled = restyled or other
    return replace(found, earlier=tuple(spans), restyled=restyled)


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
    for opening, closing in BRACKETS:
        kept = head.rstrip()
        if kept.endswith(closing):
            kept = kept.removesuffix(closing)
            bare = kept.rstrip()
            return bare.removesuffix(opening) if bare.endswith(opening) else kept
    return head


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


def _marked(
    example: Example, whole: Rendered, own: bool
) -> tuple[tuple[Message, Span], ...]:
    """The model's earlier turns as the template marks them; () where it does not, or not all."""
    speaks = [message for message in (*example.messages, example.answer)
              if message.role == "assistant"]  # fmt: skip
    if not own or len(whole.marks) != len(speaks):
        return ()
    spans = []
    for message, (start, end), (following, _) in zip(
        speaks[:-1], whole.marks[:-1], whole.marks[1:], strict=True
    ):
        spans.append((message, Span(start, end - 1, following, first_end=True)))
    return tuple(spans)


def _earlier(
    tokenizer: PreTrainedTokenizerBase, example: Example, place: int, text: str
) -> tuple[Span, bool]:
    """Where an earlier turn of the model stands, and whether it is asked for otherwise."""
    before, message = example.messages[:place], example.messages[place]
    asked = prompt_text(tokenizer, before, example.tools) if before else ""
    if asked and text.startswith(asked):
        until = render(tokenizer, (*before, message), example.tools).text
        if text.startswith(until):
            return Span(len(asked), len(asked), len(until)), False
    after = (*example.messages[place + 1 :], example.answer)
    head, body = _around(tokenizer, before, message, example, after)
    start = len(head)
    if asked and not asked.startswith(head):
        start = len(asked) if text.startswith(asked) else -1
    if start < 0 or not text.startswith(head):
        raise ModelError(
            f"the chat template shows the question before answer {place + 1} otherwise once the "
            "conversation goes on, so a loss on that answer would teach what is never asked",
            remedy="set train.train_on: last, or give a template that shows every turn alike in "
            "model.chat_template",
        )
    if asked and not text.startswith(asked) and thinking(tokenizer).on:
        raise ModelError(
            "the chat template leaves the thinking of earlier answers out, so a loss on them would "
            "teach the model not to think",
            remedy="set train.train_on: last, or model.thinking: false",
        )
    shown = reasoning_of(message)[1].content.strip()
    place_of_words = body.find(shown) if shown else 0
    said = len(head) + max(0, place_of_words) + (len(shown) if place_of_words >= 0 else 0)
    return Span(start, said, len(text), first_end=True), bool(asked) and not text.startswith(asked)
