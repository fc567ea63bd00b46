"""Renders messages with a model's chat template into token ids, and masks what is not learned.

The only module that knows chat templates. Prompt and answer are rendered by the model's own
template and tokenised apart, so that in training the prompt's ids are exactly those that the model
sees when it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.data.batching import Cost
from holdfast.errors import ModelError, TrainingError
from holdfast.types import Example, Message

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

IGNORED = -100
SENTINEL = "holdfast-user-turn"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as the model is trained on it.

    Attributes:
        ids: token ids, shape (tokens,).
        labels: the same length; `IGNORED` where no loss is taken.
        start: where the answer begins.
        kl: the same length; what the divergence from the base counts for at each token; () for
            none.
    """

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    start: int = 0
    kl: tuple[float, ...] = ()

    @property
    def cost(self) -> Cost:
        """Tokens in all and tokens that bear loss."""
        return Cost(len(self.ids), sum(label != IGNORED for label in self.labels))


def prompt_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text that the model continues, ending where its own turn begins."""
    return _render(tokenizer, messages, add_generation_prompt=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of `prompt_text`; the template has put the special tokens in already."""
    return list(tokenizer(prompt_text(tokenizer, messages), add_special_tokens=False)["input_ids"])


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
    return prompt_text(tokenizer, example.messages) + str(example.meta.get("prefix", "")), False


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
        shown = _render(tokenizer, probe, parts=parts)
        if all(one.content in shown for one in probe):
            text = _render(tokenizer, messages, parts=parts)
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
    head, found, _ = _render(tokenizer, (Message("user", SENTINEL),)).partition(SENTINEL)
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


def encode(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    stops: frozenset[int],
    completion_only: bool = True,
    cut_header: bool = False,
) -> Encoded:
    """Prompt and target of `example` as ids and labels.

    What the template writes after the end-of-turn token (a line break, say) is dropped: the model
    never has to produce it.

    Args:
        tokenizer: with its chat template.
        example: what is learned.
        stops: ids that end a turn.
        completion_only: no loss on the prompt.
        cut_header: leave out the template's system header; see `TrainSpec.cut_template_header`.

    Raises:
        TrainingError: nothing would be trained on, the end-of-turn token is missing, so that the
            model would never learn to stop, or there is no header to cut.
        ModelError: the template rewrites earlier turns, so that prompt and answer cannot be told
            apart.
    """
    if not example.target or not example.target.strip():
        raise TrainingError(
            f"example {example.id} has no answer to learn: no token would be trained on",
            remedy="give every training example a target, or leave it out",
        )
    prompt = prompt_text(tokenizer, example.messages)
    whole = _render(tokenizer, (*example.messages, Message("assistant", example.target)))
    if not whole.startswith(prompt):
        raise ModelError(
            "the chat template renders the prompt differently once an answer follows, so what is "
            "trained on would differ from what is asked",
            remedy="set the tokenizer's chat template to one whose generation prompt is a prefix",
        )
    head = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    tail = list(tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"])
    last = max((place for place, one in enumerate(tail) if one in stops), default=None)
    if last is None:
        names = [tokenizer.convert_ids_to_tokens(one) for one in sorted(stops)]
        raise TrainingError(
            f"the chat template ends an answer without any of the end-of-turn tokens {names}: the "
            "model would never learn to stop",
            remedy="set the tokenizer's eos_token to the token that ends a turn in its template",
        )
    tail = tail[: last + 1]
    if cut_header:
        head = _without_header(tokenizer, head, example, stops)
    mask = [IGNORED] * len(head) if completion_only else head
    return Encoded(tuple(head + tail), tuple(mask + tail), len(head))


def _without_header(
    tokenizer: PreTrainedTokenizerBase, head: Sequence[int], example: Example, stops: frozenset[int]
) -> list[int]:
    """A prompt from after its first end-of-turn token on.

    The course cuts text and has a trainer tokenise the rest, which puts the special tokens that
    open a text (Llama's ``<|begin_of_text|>``) in front again; so does this.
    """
    ends = [place for place, one in enumerate(head) if one in stops]
    if example.messages[0].role != "system" and len(ends) < len(example.messages) + 1:
        raise TrainingError(
            "the chat template writes no system header of its own that ends with an end-of-turn "
            "token: the first question would be cut instead",
            remedy="leave train.cut_template_header out; it only reproduces the course's starter",
        )
    return [*tokenizer("")["input_ids"], *head[ends[0] + 1 :]]


def mask_preview(tokenizer: PreTrainedTokenizerBase, encoded: Encoded, width: int = 1200) -> str:
    """The conversation as text, with the tokens that are trained on between ⟦ and ⟧."""
    pieces: list[str] = []
    run: list[int] = []
    inside = False
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        trained = label != IGNORED
        if trained != inside:
            pieces.append(tokenizer.decode(run))
            pieces.append("⟦" if trained else "⟧")
            run, inside = [], trained
        run.append(token)
    pieces += [tokenizer.decode(run), "⟧" if inside else ""]
    text = "".join(pieces)
    return text if len(text) <= width else f"{text[: width // 2]} … {text[-width // 2 :]}"


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    parts: bool = False,
) -> str:
    turns: list[dict[str, object]] = [
        {"role": one.role, "content": one.content} for one in messages
    ]
    if parts:
        for turn in turns:
            turn["content"] = [{"type": "text", "text": turn["content"]}]
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template may raise anything, e.g. on a system turn
        raise ModelError(
            f"the chat template refused the conversation: {error}",
            remedy="check the roles that this model's template allows",
        ) from error
    return str(text)
