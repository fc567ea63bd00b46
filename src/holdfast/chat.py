"""How do messages become token ids, and which of them are trained on?

The only module that knows chat templates. Prompt and answer are rendered by the model's own
template and tokenised apart, so that in training the prompt's ids are exactly those that the model
sees when it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.budget import Cost
from holdfast.errors import ModelError, TrainingError
from holdfast.types import Example, Message

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


def prompt_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text that the model continues, ending where its own turn begins."""
    return _render(tokenizer, messages, add_generation_prompt=True)


def prompt_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of `prompt_text`; the template has put the special tokens in already."""
    return list(tokenizer(prompt_text(tokenizer, messages), add_special_tokens=False)["input_ids"])


def asked_ids(tokenizer: Any, example: Example) -> list[int]:
    """Token ids that the model continues when it is asked: the prompt of `example`.

    With ``meta["continue"] == "user"`` it is `user_header` instead: the model writes a question.
    """
    if example.meta.get("continue") != "user":
        return prompt_ids(tokenizer, example.messages)
    return list(tokenizer(user_header(tokenizer), add_special_tokens=False)["input_ids"])


def user_header(tokenizer: Any) -> str:
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


def stop_ids(tokenizer: Any, generation_config: Any = None) -> frozenset[int]:
    """Ids that end the model's turn: the tokenizer's and the generation config's."""
    found = {tokenizer.eos_token_id}
    more = getattr(generation_config, "eos_token_id", None)
    found |= set(more) if isinstance(more, list | tuple) else {more}
    return frozenset(one for one in found if one is not None)


def encode(
    tokenizer: Any, example: Example, stops: frozenset[int], completion_only: bool = True
) -> Encoded:
    """Prompt and target of `example` as ids and labels.

    What the template writes after the end-of-turn token (a line break, say) is dropped: the model
    never has to produce it.

    Raises:
        TrainingError: nothing would be trained on, or the end-of-turn token is missing, so that
            the model would never learn to stop.
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
    mask = [IGNORED] * len(head) if completion_only else head
    return Encoded(tuple(head + tail), tuple(mask + tail), len(head))


def mask_preview(tokenizer: Any, encoded: Encoded, width: int = 1200) -> str:
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
    tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool = False
) -> str:
    turns = [{"role": one.role, "content": one.content} for one in messages]
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
