"""Chooses the next token of each row from its logits, so that no row knows of the others.

Sampling adds Gumbel noise, drawn for each row from its own generator, to the log probabilities and
takes the best token, which is the same as drawing from them (Gumbel 1954; Maddison et al. 2014,
arXiv 1411.0030). So a reply depends on neither its batch nor its order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import takewhile

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from holdfast.config import Sampling


def seed_of(seed: int, example_id: str, sample: int) -> int:
    """The seed of one reply: the same in every batch."""
    digest = hashlib.blake2b(f"{seed}:{sample}:{example_id}".encode(), digest_size=7).digest()
    return int.from_bytes(digest)


def pad_left(
    rows: Sequence[Sequence[int]], pad: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask of shape (rows, longest), padded on the left, on the device."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in rows])
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in rows])
    return ids.to(device), mask.to(device)


def alike(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(map(tuple, rows)), max(map(tuple, rows))  # the others lie between them
    ends = zip(first, last, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], ends))


def drawing(sampling: Sampling, noise: Sequence[torch.Generator]) -> LogitsProcessorList:
    """What makes the best token a drawn one, in the order of transformers; nothing where greedy.

    Args:
        sampling: how.
        noise: one generator a row.
    """
    found: list[LogitsProcessor] = []
    if sampling.temperature > 0:
        found.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            found.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            found.append(TopPLogitsWarper(sampling.top_p))
        if sampling.min_p:
            found.append(MinPLogitsWarper(sampling.min_p))
        found.append(_Gumbel(noise))
    return LogitsProcessorList(found)


def lowered(scores: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Scores, with those of the tokens that were seen made less likely."""
    less = torch.where(scores < 0, scores * penalty, scores / penalty)
    return torch.where(seen, less, scores)


class Repetition(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Makes tokens of the prompt and the answer so far less likely, padding left out.

    Transformers' own counts the padding as well, so that a reply would depend on its batch.
    """

    def __init__(self, penalty: float, mask: torch.Tensor) -> None:
        """Take the penalty, and the attention mask of the padded prompts."""
        self.penalty = penalty
        self.padding = (mask == 0).sum(1, keepdim=True)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of the next token, given all before it."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        real = torch.where(places < self.padding, input_ids[:, -1:], input_ids)
        seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, real, True)
        return lowered(scores, seen, self.penalty)


class _Gumbel(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Adds noise from each row's own generator."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.stack(
            [torch.empty_like(scores[0]).exponential_(generator=one) for one in self.generators]
        )
        return scores - noise.log()
