"""Scores given tokens: the loss of an answer, the likelihood of a continuation or first word.

One forward pass over a batch, padded on the left, so that all rows end together and logits are
needed for their ends only; with a vocabulary of 152k that is what decides the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.data.chat import Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def losses(
    model: PreTrainedModel, rows: Sequence[Encoded], pad: int, device: str
) -> list[list[float]]:
    """Loss of each token of each row's answer, nats, of shape (rows, answer tokens).

    Args:
        model: a causal language model on its device.
        rows: prompts with their answers.
        pad: the id of the padding token.
        device: of the first layer.
    """
    import torch

    counts = [row.cost.supervised for row in rows]
    ids, logits = _logits(model, [row.ids for row in rows], pad, device, max(counts) + 1)
    return [
        torch.nn.functional.cross_entropy(
            logits[row, -count - 1 : -1].float(), ids[row, -count:], reduction="none"
        ).tolist()
        for row, count in enumerate(counts)
    ]


Followed = tuple[tuple[int, ...], list[tuple[int, ...]]]
"""Ids up to the last token of what follows, and every tail that ends there, with its last token."""


def shared(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> tuple[list[Followed], list[tuple[int, int]]]:
    """Prompts and tails as rows that one pass each can score, and where each pair is found.

    Choices of one token after one prompt (A, B, C, D) become one row.
    """
    rows: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    places = []
    for head, tail in pairs:
        read = (*head, *tail[:-1])
        tails = rows.setdefault(read, [])
        tails.append(tuple(tail))
        places.append((read, len(tails) - 1))
    order = {read: place for place, read in enumerate(rows)}
    return list(rows.items()), [(order[read], place) for read, place in places]


def likelihoods(
    model: PreTrainedModel, rows: Sequence[Followed], pad: int, device: str
) -> list[list[tuple[float, bool]]]:
    """Log-probability of each tail of each row, nats, and whether all its tokens are the likeliest.

    Args:
        model: see `losses`, as are the others.
        rows: see `shared`.
        pad: see `losses`.
        device: see `losses`.
    """
    import torch

    most = max(len(tail) for _, tails in rows for tail in tails)
    _, logits = _logits(model, [read for read, _ in rows], pad, device, most)
    found = []
    for row, (_, tails) in enumerate(rows):
        logs = logits[row].float().log_softmax(-1)
        scores = []
        for tail in tails:
            wanted = torch.tensor(tail, device=logs.device)
            last = logs[-len(tail) :]
            greedy = bool((last.argmax(-1) == wanted).all())
            scores.append((float(last.gather(1, wanted[:, None]).sum()), greedy))
        found.append(scores)
    return found


def chances(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    first: Sequence[int],
    pad: int,
    device: str,
) -> list[list[float]]:
    """Probabilities of the tokens `first` after each row, of shape (rows, tokens), in float32."""
    _, logits = _logits(model, rows, pad, device, 1)
    found: list[list[float]] = logits[:, -1].float().softmax(-1)[:, list(first)].tolist()
    return found


def _logits(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], pad: int, device: str, keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids, and the logits of the last `keep` places."""
    import torch

    from holdfast.engines.next_token import pad_left

    ids, mask = pad_left(rows, pad, device)
    with torch.inference_mode():
        logits = model(
            ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=keep,
        ).logits
    return ids, logits
