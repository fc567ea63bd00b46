"""Turns conversations into token ids, and masks what is not learned.

The prompt's ids are exactly those that the model sees when it is asked, and what follows is cut out
of the whole conversation, tokenised once, so that a tokenizer that begins every text with a blank
does not put one before the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast.data.batching import Cost
from holdfast.data.spans import Conversation, Span, after_words, lay_out
from holdfast.errors import TrainingError
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
TrainOn = Literal["last", "all"]
IDS = "ids"
"""In the meta of a window of text: its token ids, which its target is the text of."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as the model is trained on it.

    Attributes:
        ids: token ids, shape (tokens,).
        labels: the same length; `IGNORED` where no loss is taken.
        start: where the last answer begins.
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


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as token ids, with the characters that each stands for, from and to."""

    ids: list[int]
    places: list[tuple[int, int]]

    def of(self, span: Span, stops: frozenset[int]) -> range | None:
        """The tokens of a turn up to its end-of-turn token; None where it has none."""
        inside = [
            at for at, (start, end) in enumerate(self.places)
            if start >= span.start and end <= span.end and end > start
        ]  # fmt: skip
        ends = [at for at in inside if self.ids[at] in stops]
        if span.first_end:
            ends = [at for at in ends if self.places[at][1] > span.said][:1]
        if inside and not ends and not span.first_end:  # a mark that leaves the end of turn out
            ends = [at for at in range(inside[-1] + 1, len(self.ids)) if self.ids[at] in stops][:1]
        return range(inside[0], ends[-1] + 1) if inside and ends else None


def encode(
    tokenizer: PreTrainedTokenizerBase,
    example: Example,
    stops: frozenset[int],
    completion_only: bool = True,
    cut_header: bool = False,
    train_on: TrainOn = "last",
) -> Encoded:
    """Prompt and target of `example` as ids and labels.

    What the template writes after the end-of-turn token (a line break, say) is dropped: the model
    never has to produce it. An example without turns is plain text, all of which is learned.

    Args:
        tokenizer: with its chat template.
        example: what is learned.
        stops: ids that end a turn.
        completion_only: loss on what the model says only; false: on all of it.
        cut_header: leave out the template's system header; see `TrainSpec.cut_template_header`.
        train_on: the last answer, or every turn of the model; a turn of weight 0 never counts.

    Raises:
        TrainingError: nothing would be trained on, the end-of-turn token is missing, so that the
            model would never learn to stop, or there is no header to cut.
        ModelError: the template rewrites earlier turns, so that prompt and answer cannot be told
            apart.
    """
    if IDS in example.meta:
        window = tuple(example.meta[IDS])
        return Encoded(window, (IGNORED, *window[1:]), 1)
    if not (example.target or "").strip() and not example.extra.get("tool_calls"):
        raise TrainingError(
            f"example {example.id} has no answer to learn: no token would be trained on",
            remedy="give every training example a target, or leave it out",
        )
    if not example.messages:
        return _plain_text(tokenizer, example)
    silent = any(one.role == "assistant" and not one.weight for one in example.messages)
    every = train_on == "all" or (silent and not completion_only)
    talk = lay_out(tokenizer, example, every)
    head = _tokens(tokenizer, talk.prompt)
    tail = _tail(tokenizer, talk, head.ids)
    tail = tail[: _end(tokenizer, example, tail, stops) + 1]
    learned: set[int] = set()
    unlearned: set[int] = set()
    for message, span in talk.earlier:
        tokens = head.of(span, stops)
        if tokens is None:
            raise _without_end(tokenizer, stops)
        (learned if message.weight else unlearned).update(tokens)
    answer = range(len(head.ids), len(head.ids) + len(tail))
    (learned if example.answer.weight else unlearned).update(answer)
    ids, cut = head.ids + tail, 0
    if cut_header:
        shorter = _without_header(tokenizer, head.ids, example, stops)
        kept = len(ids) - len(head.ids) + len(shorter)
        cut, ids = len(ids) - kept, shorter + tail
    learned = learned if completion_only else set(range(len(head.ids) + len(tail))) - unlearned
    labels = [one if place + cut in learned else IGNORED for place, one in enumerate(ids)]
    if all(label == IGNORED for label in labels):
        raise TrainingError(
            f"example {example.id} has weight 0 on all that would be learned",
            remedy="leave it out, or set train.train_on: all where an earlier answer has weight 1",
        )
    return Encoded(tuple(ids), tuple(labels), len(ids) - len(tail))


def _plain_text(tokenizer: PreTrainedTokenizerBase, example: Example) -> Encoded:
    """A text with the tokens that open and end one; its first token has nothing before it."""
    ids = ending_ids(tokenizer, example.target or "")
    return Encoded(tuple(ids), (IGNORED, *ids[1:]), 1)


def ending_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A text's tokens, with what the tokenizer puts in front and the token that ends a text.

    Raises:
        TrainingError: the tokenizer has none that does.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise TrainingError(
            "the tokenizer has no eos_token, so the model would never learn where a text ends",
            remedy="set eos_token in the model's tokenizer_config.json",
        )
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    return ids if ids[-1:] == [end] else [*ids, end]


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    if tokenizer.is_fast:
        found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return Tokens(list(found["input_ids"]), [(a, b) for a, b in found["offset_mapping"]])
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ends = [len(tokenizer.decode(ids[: at + 1])) for at in range(len(ids))]
    return Tokens(ids, list(zip([0, *ends], ends, strict=False)))


def _tail(tokenizer: PreTrainedTokenizerBase, talk: Conversation, head: Sequence[int]) -> list[int]:
    """The tokens after the prompt's, as they are in the whole conversation.

    Where the prompt's last characters would melt into a token with the answer's first, which the
    model that is asked cannot write, the answer is tokenised for itself.
    """
    whole = list(tokenizer(talk.text, add_special_tokens=False)["input_ids"])
    if whole[: len(head)] == list(head):
        return whole[len(head) :]
    return following_ids(tokenizer, talk.text[len(talk.prompt) :])


def _end(
    tokenizer: PreTrainedTokenizerBase, example: Example, tail: list[int], stops: frozenset[int]
) -> int:
    """Where the answer's end-of-turn token stands: the first one after the answer's own words.

    Some templates write another one behind it (Phi), and an answer's words may hold one.

    Raises:
        TrainingError: there is none.
    """
    ends = [place for place, one in enumerate(tail) if one in stops]
    if len(ends) > 1:
        after = following_ids(tokenizer, after_words(tokenizer, example))
        ends = ends[len(ends) - sum(one in stops for one in after) :]
    if not ends:
        raise _without_end(tokenizer, stops)
    return ends[0]


def following_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that follows another, without the blank that may open a text."""
    line = list(tokenizer("\n", add_special_tokens=False)["input_ids"])
    both = list(tokenizer("\n" + text, add_special_tokens=False)["input_ids"])
    if both[: len(line)] == line:
        return both[len(line) :]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _without_end(tokenizer: PreTrainedTokenizerBase, stops: Iterable[int]) -> TrainingError:
    names = [tokenizer.convert_ids_to_tokens(one) for one in sorted(stops)]
    return TrainingError(
        f"the chat template ends an answer without any of the end-of-turn tokens {names}: the "
        "model would never learn to stop",
        remedy="set the tokenizer's eos_token to the token that ends a turn in its template",
    )


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
