"""Generates the answers of a batch of prompts without waiting for its longest one.

``generate`` runs a batch until its last row has ended, and answers differ in length by an order of
magnitude. So it is stopped when half the rows have ended, and goes on with the others from the same
key-value cache. Sampling adds Gumbel noise, drawn for each row from its own generator, to the log
probabilities and takes the best token, which is the same as drawing from them (Gumbel 1954;
Maddison et al. 2014, arXiv 1411.0030). So a reply depends on neither the batch nor its order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from holdfast.config import Sampling
from holdfast.engines.reply_text import Until

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SMALLEST = 8
"""Rows below which a batch is left alone."""


def pad_left(
    rows: Sequence[Sequence[int]], pad: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask of shape (rows, longest), padded on the left, on the device."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in rows])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in rows])
    return ids.to(device), mask.to(device)


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    stops: Sequence[int],
    pad: int,
    until: Sequence[Until | None] = (),
) -> list[list[int]]:
    """The token ids of one answer for each prompt, the stop token included when there is one.

    Args:
        model: a causal language model on its device.
        prompts: token ids.
        seeds: one for each prompt; used when the temperature is above 0.
        sampling: how tokens are chosen, and the most new ones; its stop strings are in `until`.
        stops: ids that end an answer.
        pad: the id of the padding token.
        until: for each prompt the texts that end its answer as well, None for none; what follows
            them in the answer is not cut off here.
    """
    device = str(model.device)
    ids, mask = pad_left(prompts, pad, device)
    start, end = ids.shape[1], ids.shape[1] + sampling.max_new_tokens
    rows, cache = list(range(len(prompts))), None
    noise = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    answers: list[list[int]] = [[] for _ in prompts]
    while rows:
        processors = _processors(sampling, [noise[row] for row in rows], mask)
        words = _Words([until[row] for row in rows] if until else [], start)
        halfway = [_HalfEnded(stops, words)] if len(rows) >= SMALLEST else []
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=end - ids.shape[1],
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList([words, *halfway] if words.any else halfway),
                return_dict_in_generate=True,
                eos_token_id=list(stops),
                pad_token_id=pad,
                repetition_penalty=1.0,
                do_sample=False,  # a model's own generation config may ask for sampling
                temperature=None,
                top_p=None,
                top_k=None,
            )
        sequences = output.sequences
        going = []
        for place, tokens in enumerate(sequences[:, start:].tolist()):
            tokens = _until_stop(tokens[: words.lengths.get(place)], stops)
            answers[rows[place]] = tokens
            ended = tokens[-1] in stops or place in words.lengths
            if not ended and sequences.shape[1] < end:
                going.append(place)
        rows = [rows[place] for place in going]
        kept = torch.tensor(going, dtype=torch.long)  # on the CPU: a split cache is on several GPUs
        mask = torch.nn.functional.pad(mask, (0, sequences.shape[1] - ids.shape[1]), value=1)[kept]
        ids, cache = sequences[kept], output.past_key_values
        if not isinstance(cache, DynamicCache):
            cache = None  # read again from the start: slower, never wrong
        elif rows:
            cache.batch_select_indices(kept)
    return answers


def seed_of(seed: int, example_id: str, sample: int) -> int:
    """The seed of one reply: the same in every batch."""
    digest = hashlib.blake2b(f"{seed}:{sample}:{example_id}".encode(), digest_size=7).digest()
    return int.from_bytes(digest)


def _until_stop(tokens: list[int], stops: Sequence[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stops:
            return tokens[: place + 1]
    return tokens


def _processors(
    sampling: Sampling, noise: Sequence[torch.Generator], mask: torch.Tensor
) -> list[LogitsProcessor]:
    """What changes the logits, in the order of transformers."""
    found: list[LogitsProcessor] = []
    if sampling.repetition_penalty != 1:
        found.append(_Repetition(sampling.repetition_penalty, mask))
    if sampling.temperature <= 0:
        return found
    found.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        found.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        found.append(MinPLogitsWarper(sampling.min_p))
    return [*found, _Gumbel(noise)]


class _Repetition(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Makes tokens of the prompt and the answer so far less likely, padding left out.

    Transformers' own counts the padding as well, so that a reply would depend on its batch.
    """

    def __init__(self, penalty: float, mask: torch.Tensor) -> None:
        self.penalty = penalty
        self.padding = (mask == 0).sum(1, keepdim=True)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        real = torch.where(places < self.padding, input_ids[:, -1:], input_ids)
        seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, real, True)
        lowered = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(seen, lowered, scores)


class _Gumbel(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Adds noise from each row's own generator."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack(
            [torch.empty_like(scores[0]).exponential_(generator=one) for one in self.generators]
        )
        return scores - noise.log()


class _Words(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Ends each row whose answer has come to one of its texts; `lengths` are in tokens."""

    def __init__(self, until: Sequence[Until | None], start: int) -> None:
        self.until, self.start = until, start
        self.any = any(until)
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        for row, tokens in enumerate(input_ids[:, self.start :].tolist()):
            stop = self.until[row]
            if stop and row not in self.lengths and stop.reached(tokens):
                self.lengths[row] = len(tokens)
        ended = [row in self.lengths for row in range(len(self.until))]
        return torch.tensor(ended, device=input_ids.device)


class _HalfEnded(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Stops all rows when half of them have ended."""

    def __init__(self, stops: Sequence[int], words: _Words) -> None:
        self.stops, self.words = stops, words
        self.ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        stopped = torch.isin(input_ids[:, -1], torch.tensor(self.stops, device=input_ids.device))
        stopped[list(self.words.lengths)] = True
        self.ended = stopped if self.ended is None else self.ended | stopped
        return torch.full_like(stopped, bool(self.ended.float().mean() >= 0.5))
