"""Ends an answer at certain texts, and cuts off what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.config import Sampling
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
