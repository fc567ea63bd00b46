"""Reads generated tokens as a reply: ended by certain texts, what was thought told from the answer.

The markers around a thought are special tokens in some vocabularies, which decoding leaves out, and
the first of them may stand in the prompt. Here they stay, or are put in front.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

from holdfast.config import Sampling
from holdfast.data import thinking, thinking_marks
from holdfast.types import Example, Reply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAIL = 32
"""Tokens at the end of a prompt that are looked at."""


class Until:
    """Texts that end an answer, wherever the model's tokens cut them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> None:
        """Take the texts; empty ones are left out."""
        self._tokenizer = tokenizer
        self._words = [one for one in words if one]
        # No token but a special one is shorter than a byte, so none of the texts is longer.
        self._window = max((len(one.encode()) for one in self._words), default=0) + 1

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether one of the texts stands at the end of what was written, special tokens shown."""
        last = self._tokenizer.decode(tokens[-self._window :], skip_special_tokens=False)
        return any(one in last for one in self._words)


def stops_of(example: Example, sampling: Sampling) -> tuple[str, ...]:
    """The texts that end an answer: of the question, and of all questions."""
    return (*example.meta.get("until", ()), *sampling.stop)


def cut(text: str, words: Sequence[str]) -> str:
    """An answer up to the first of some texts."""
    for word in words:
        text = text.partition(word)[0] if word else text
    return text


class ThoughtReader:
    """Reads the replies of one tokenizer's model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Look at the tokenizer's special tokens."""
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        special = {number: str(token) for number, token in added.items() if token.special}
        ids = tokenizer.all_special_ids
        special |= dict(zip(ids, tokenizer.convert_ids_to_tokens(ids), strict=True))
        marking = thinking_marks.marking_tokens(special.values())
        self._marks = {number for number, text in special.items() if text in marking}
        self._left_out = set(special) - self._marks

    def opened(self, prompt: Sequence[int]) -> str:
        """The opening of a thought that a prompt ends with; "" for none."""
        end = self._tokenizer.decode(prompt[-TAIL:], skip_special_tokens=False)
        return thinking_marks.opened(end)

    def text(self, tokens: Sequence[int], opening: str = "", stops: Sequence[str] = ()) -> str:
        """A reply as text; what stood between special tokens is written between ``<think>``.

        Args:
            tokens: of the reply, without the one that ends the turn.
            opening: what `opened` found in the prompt; it is put in front.
            stops: texts before the first of which the reply ends.
        """
        if self._marks and not self._marks.isdisjoint(tokens):
            found = thinking.split(opening + cut(self._marked(tokens), stops))
            if found.blocks:
                return thinking.written(found.thinking, found.answer, found.closed)
        return opening + cut(self._tokenizer.decode(tokens, skip_special_tokens=True), stops)

    def thinking_tokens(self, tokens: Sequence[int], opening: str) -> int:
        """How many tokens were thought, markers included.

        Args:
            tokens: of the reply, without the one that ends the turn.
            opening: what `opened` found in the prompt.
        """

        def found(count: int) -> thinking.Thought:
            return thinking.split(opening + self._marked(tokens[:count]))

        whole = found(len(tokens))
        if not whole.thinking:
            return 0
        if not whole.closed and len(whole.blocks) == 1:
            return len(tokens)
        first, last = 0, len(tokens)  # the fewest tokens in which the first thought is closed
        while first < last:
            middle = (first + last) // 2
            done = found(middle)
            if done.blocks and (done.closed or len(done.blocks) > 1):
                last = middle
            else:
                first = middle + 1
        later = "\n".join(whole.blocks[1:])
        return first + len(self._tokenizer(later, add_special_tokens=False)["input_ids"])

    def reply(
        self,
        asked: tuple[Example, Sequence[int], int],
        sampling: Sampling,
        tokens: Sequence[int],
        stops: Collection[int],
    ) -> Reply:
        """A reply as it is kept.

        Args:
            asked: what was asked, token ids of the prompt, number of the sample.
            sampling: how.
            tokens: that were generated.
            stops: ids that end an answer.
        """
        example, prompt, sample = asked
        words = stops_of(example, sampling)
        opening = "" if "continue" in example.meta else self.opened(prompt)
        ended = bool(tokens) and tokens[-1] in stops
        said = tokens[:-1] if ended else tokens
        text = self.text(said, opening, words)
        if words:
            ended = ended or Until(self._tokenizer, words).reached(tokens)
        thought = self.thinking_tokens(said, opening) if thinking.split(text).blocks else 0
        finish: Literal["stop", "length"] = "stop" if ended else "length"
        return Reply(example.id, sample, text, finish, len(tokens), thought)

    def _marked(self, tokens: Sequence[int]) -> str:
        kept = [token for token in tokens if token not in self._left_out]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))
