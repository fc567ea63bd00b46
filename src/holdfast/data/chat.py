"""Asks a model through its chat template: the token ids that it continues, and where it stops.

What is learned is in `holdfast.data.encoding`, and how a conversation becomes text in
`holdfast.data.rendering`; both are to be had here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.data.chat_settings import settings_of
from holdfast.data.encoding import IGNORED, Encoded, encode, mask_preview
from holdfast.data.rendering import prompt_ids, prompt_text, render, thinking
from holdfast.errors import ModelError
from holdfast.types import Example, Message

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

__all__ = [
    "IGNORED",
    "Encoded",
    "asked_ids",
    "encode",
    "first_ids",
    "followed_ids",
    "judged_text",
    "mask_preview",
    "prompt_ids",
    "prompt_text",
    "settings_of",
    "stop_ids",
    "thinking",
    "user_header",
]
SENTINEL = "holdfast-user-turn"


def asked_ids(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """Token ids that the model continues when it is asked: the prompt of `example`.

    ``meta["continue"]`` asks for something else than a turn of the assistant: with ``user`` it is
    `user_header`, so that the model writes a question; with ``judged`` `judged_text`, so that a
    guard model speaks of the conversation; with ``text`` the last message's content as it stands,
    for models that know no chat template. ``meta["prefix"]`` is what the assistant's turn begins
    with.
    """
    text, bare = _asked(tokenizer, example)
    return list(tokenizer(text, add_special_tokens=bare)["input_ids"])


def _asked(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[str, bool]:
    """What `asked_ids` reads, and whether special tokens are still to be put in front."""
    match example.meta.get("continue"):
        case "user":
            return user_header(tokenizer), False
        case "judged":
            return judged_text(tokenizer, example.messages), False
        case "text":
            text = example.messages[-1].content
            return text, not text.startswith(tokenizer.bos_token or "\0")
    text = prompt_text(tokenizer, example.messages, example.tools)
    return text + str(example.meta.get("prefix", "")), False


def followed_ids(
    tokenizer: PreTrainedTokenizerBase, example: Example, text: str
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt of `example`, and of a text that might follow it.

    As lm-evaluation-harness does it: both are tokenised together and cut where the prompt alone
    would end, with the spaces that end a prompt counted to what follows. An empty prompt is the
    token that opens a text.

    Raises:
        ModelError: the text has no token of its own.
    """
    prompt, bare = _asked(tokenizer, example)
    kept = prompt.rstrip()
    if kept:
        head = list(tokenizer(kept, add_special_tokens=bare)["input_ids"])
        tail = list(tokenizer(prompt + text, add_special_tokens=bare)["input_ids"])[len(head) :]
    else:
        tail = list(tokenizer(prompt + text, add_special_tokens=False)["input_ids"])
        first = tokenizer.bos_token_id
        head = [tokenizer.eos_token_id if first is None else first]
        tail = tail[1:] if tail[:1] == head else tail
    if not tail:
        raise ModelError(
            f"its tokenizer gives {text!r} no token of its own after the prompt of {example.id}",
            remedy="a choice must not be empty",
        )
    return head, tail


def judged_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """A finished conversation as a guard model's own template puts it, ending where it speaks.

    Guards' templates write the opening of their turn themselves. Some (Llama Guard 3 1B) take each
    message as a list of parts and silently leave plain text out; which form shows the words is
    tried.

    Raises:
        ModelError: no form shows them, so that the guard would judge nothing.
    """
    probe = [Message(one.role, SENTINEL + one.role) for one in messages]
    for parts in (False, True):
        shown = render(tokenizer, probe, parts=parts).text
        if all(one.content in shown for one in probe):
            text = render(tokenizer, messages, parts=parts).text
            # Llama 3 follows a header by an empty line, which not every guard's template writes.
            return text + "\n\n" if text.endswith("<|end_header_id|>") else text
    raise ModelError(
        "the chat template does not show what was said, so there would be nothing to judge",
        remedy="name the guard model itself, with its own tokenizer",
    )


def first_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """The id of the first token of each word.

    Raises:
        ModelError: two words begin with the same token, so that they cannot be told apart.
    """
    found = [tokenizer(one, add_special_tokens=False)["input_ids"][0] for one in words]
    if len(set(found)) < len(found):
        raise ModelError(
            f"its tokenizer begins {' and '.join(map(repr, words))} with the same token",
            remedy="name the guard model itself, with its own tokenizer",
        )
    return found


def user_header(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a conversation begins with, up to where the user's own words would stand.

    A model that continues it writes a question of the kind that it was trained on (Magpie,
    arXiv:2406.08464).

    Raises:
        ModelError: the template alters the user's words, so that their place cannot be found.
    """
    shown = render(tokenizer, (Message("user", SENTINEL),)).text
    head, found, _ = shown.partition(SENTINEL)
    if not found:
        raise ModelError(
            "the chat template does not show the user's words as they are, so the model cannot be "
            "made to write a question of its own",
            remedy="use another `source` than `dialogue`",
        )
    return head


def stop_ids(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None = None
) -> frozenset[int]:
    """Ids that end the model's turn: the tokenizer's and the generation config's."""
    found = {tokenizer.eos_token_id}
    more = getattr(generation_config, "eos_token_id", None)
    found |= set(more) if isinstance(more, list | tuple) else {more}
    return frozenset(one for one in found if one is not None)
