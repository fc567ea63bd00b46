"""Answers with a model that is being trained: with the weights that it has at this step.

The same loops, stops and readings of thought as `HFEngine`, around a model that somebody else
holds: dropout is off while it answers, and what it was doing before goes on unchanged. Noise is
drawn by question and sample, so that an answer depends on nothing but weights, question and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.engines.pace import ROWS, Pace
from holdfast.engines.reply_text import ThoughtReader, Until, stops_of
from holdfast.types import Example, Reply

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

Asked = tuple[Example, Sequence[int], int]
"""One row: what is asked, token ids of the prompt, number of the sample."""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer.

    Attributes:
        reply: as a grader reads it.
        tokens: as the model wrote it, the one that ends its turn included where there is one.
    """

    reply: Reply
    tokens: Sequence[int]


@dataclass
class Live:
    """A model under training, as something that can be asked.

    Attributes:
        model: with its adapters, on its device.
        tokenizer: the base's.
        rows: answers at a time on a GPU, whose memory was planned for as many.
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rows: int
    _unsuited: str | None = field(default=None, init=False)
    _pace: Pace | None = field(default=None, init=False)

    def answers(self, asked: Sequence[Asked], sampling: Sampling) -> list[Said]:
        """One answer for each row, in order.

        Args:
            asked: rows; those of one question lie next to each other.
            sampling: how tokens are chosen; its seed is mixed with question and sample.
        """
        from holdfast.engines.generate import suits

        plain, pad = self.model.get_base_model(), self.tokenizer.pad_token_id
        training, cached = self.model.training, plain.config.use_cache
        self.model.eval()
        plain.config.use_cache = True
        try:
            if self._unsuited is None:
                self._unsuited = suits(plain, pad)
            stops = sorted(chat.stop_ids(self.tokenizer, plain.generation_config))
            written = (self._batches if self._unsuited else self._refilled)(asked, sampling, stops)
        finally:
            plain.config.use_cache = cached
            self.model.train(training)
        reader = ThoughtReader(self.tokenizer)
        return [
            Said(reader.reply(row, sampling, tokens, stops), tokens)
            for row, tokens in zip(asked, written, strict=True)
        ]

    def _refilled(
        self, asked: Sequence[Asked], sampling: Sampling, stops: Sequence[int]
    ) -> list[list[int]]:
        """By the loop in which a place that comes free is taken by the next row."""
        from holdfast.engines.refilled import Answering

        plain = self.model.get_base_model()
        if self._pace is None:
            on_gpu = plain.device.type == "cuda"
            self._pace = Pace(self.rows, settled=True) if on_gpu else Pace(ROWS["cpu"])
        answering = Answering(plain, sampling, stops, self.tokenizer.pad_token_id, self._pace)
        prompts = [ids for _, ids, _ in asked]
        found: list[list[int]] = [[] for _ in asked]
        for place, tokens in answering.answers(
            prompts, self._seeds(asked, sampling), self._until(asked, sampling)
        ):
            found[place] = tokens
        return found

    def _batches(
        self, asked: Sequence[Asked], sampling: Sampling, stops: Sequence[int]
    ) -> list[list[int]]:
        """By transformers' own loop, for models that need it."""
        from holdfast.engines.generate import decode

        found: list[list[int]] = []
        for start in range(0, len(asked), self.rows):
            some = asked[start : start + self.rows]
            found += decode(
                self.model, [ids for _, ids, _ in some], self._seeds(some, sampling), sampling,
                stops, self.tokenizer.pad_token_id, self._until(some, sampling),
            )  # fmt: skip
        return found

    def _seeds(self, asked: Sequence[Asked], sampling: Sampling) -> list[int]:
        from holdfast.engines.next_token import seed_of

        return [seed_of(sampling.seed, example.id, sample) for example, _, sample in asked]

    def _until(self, asked: Sequence[Asked], sampling: Sampling) -> list[Until | None]:
        words = [stops_of(example, sampling) for example, _, _ in asked]
        return [Until(self.tokenizer, some) if some else None for some in words]
