"""Scores given tokens: the loss of an answer, the likelihood of a continuation or first word.

Rows are padded on the left, so that all end together and logits are needed for their ends only;
with a vocabulary of 152k that is what decides the memory. What rows begin with alike is read once:
the shots before all of them, a question before its choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.data.chat import Encoded

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel

SHARED = 16
"""Tokens that rows must begin with alike for them to be read once."""


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
"""A prompt, and all that might follow it."""


def shared(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> tuple[list[Followed], list[tuple[int, int]]]:
    """Each prompt once, with its tails, and where each pair is found."""
    rows: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    places = []
    for head, tail in pairs:
        tails = rows.setdefault(tuple(head), [])
        tails.append(tuple(tail))
        places.append((tuple(head), len(tails) - 1))
    order = {head: place for place, head in enumerate(rows)}
    return list(rows.items()), [(order[head], place) for head, place in places]


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

    longer = sorted(
        {(n, one[:-1]) for n, (_, tails) in enumerate(rows) for one in tails if one[1:]}
    )
    heads = [head for head, _ in rows]
    with torch.inference_mode():
        if keeps_all(model):
            first, cache, mask = _begun(model, heads, pad, device, bool(longer))
            if longer:
                of = torch.tensor([n for n, _ in longer])
                cache.batch_select_indices(of)
                after = _after(model, cache, mask[of], [tail for _, tail in longer], pad, device, 0)
        else:
            _, logits = _logits(model, heads, pad, device, 1)
            first = logits[:, -1]
            if longer:
                width = max(len(tail) for _, tail in longer)
                reads = [[*heads[n], *tail] for n, tail in longer]
                _, after = _logits(model, reads, pad, device, width)
        begins = first.float().log_softmax(-1)
    places = {one: place for place, one in enumerate(longer)}
    found = []
    for n, (_, tails) in enumerate(rows):
        scores = []
        for tail in tails:
            logs = begins[n : n + 1]
            if tail[1:]:
                rest = after[places[n, tail[:-1]], 1 - len(tail) :].float().log_softmax(-1)
                logs = torch.cat([logs, rest.to(logs.device)])
            wanted = torch.tensor(tail, device=logs.device)
            greedy = bool((logs.argmax(-1) == wanted).all())
            scores.append((float(logs.gather(1, wanted[:, None]).sum()), greedy))
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


def keeps_all(model: PreTrainedModel) -> bool:
    """Whether each of a model's layers keeps all tokens, and nothing else, of what was read."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    layers = DynamicCache(config=model.config).layers
    return (
        bool(layers) and not model._is_stateful and {type(one) for one in layers} == {DynamicLayer}
    )


def _logits(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], pad: int, device: str, keep: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids, and the logits of the last `keep` places."""
    import torch

    from holdfast.engines.next_token import alike, pad_left

    common = min(alike(rows), min(map(len, rows)) - keep)
    ids, mask = pad_left(rows, pad, device)
    with torch.inference_mode():
        if len(rows) > 1 and common >= SHARED and keeps_all(model):
            _, cache, before = _begun(model, [rows[0][:common]], pad, device, True)
            of = torch.zeros(len(rows), dtype=torch.long)
            cache.batch_select_indices(of)
            tails = [row[common:] for row in rows]
            return ids, _after(model, cache, before[of], tails, pad, device, keep)
        logits = model(
            ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=keep,
        ).logits
    return ids, logits


def _begun(
    model: PreTrainedModel, heads: Sequence[Sequence[int]], pad: int, device: str, kept: bool
) -> tuple[torch.Tensor, Any, torch.Tensor]:
    """Logits after each beginning, what was kept of it, and its mask."""
    from transformers import DynamicCache

    from holdfast.engines.next_token import pad_left

    ids, mask = pad_left(heads, pad, device)
    cache = DynamicCache(config=model.config) if kept else None
    logits = model(
        ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=kept,
        logits_to_keep=1,
    ).logits
    return logits[:, -1], cache, mask


def _after(
    model: PreTrainedModel,
    cache: DynamicCache,
    before: torch.Tensor,
    tails: Sequence[Sequence[int]],
    pad: int,
    device: str,
    keep: int,
) -> torch.Tensor:
    """Logits of the last `keep` places of what follows; 0: of all."""
    import torch

    from holdfast.engines.next_token import pad_left

    ids, mask = pad_left(tails, pad, device)
    whole = torch.cat([before, mask], 1)
    places = (whole.cumsum(1) - 1)[:, before.shape[1] :].clamp(min=0)
    found: torch.Tensor = model(
        ids, attention_mask=whole, position_ids=places, past_key_values=cache, logits_to_keep=keep
    ).logits
    return found
