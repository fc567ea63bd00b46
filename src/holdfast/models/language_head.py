"""TRL's tiled language head, asked for the largest logits as well.

It gives no more than log-probabilities and entropies over all words. What is asked of the likeliest
words (EAFT's entropy) is found in a second projection, tile by tile and without gradients, of which
only the largest logits of a position stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast.errors import TrainingError

if TYPE_CHECKING:
    import torch

POSITIONS = 1024
"""Positions whose largest logits are looked for at a time."""


@contextmanager
def watched(count: int) -> Iterator[list[torch.Tensor]]:
    """Keep the largest logits of what TRL's tiled head projects for as long as this lasts.

    Its arguments are taken as they come: gathered weights, scaled and capped logits.

    Args:
        count: how many of each position; 0: nothing is watched.

    Yields:
        A list that gets a tensor of shape (positions, count) with every call.

    Raises:
        TrainingError: the head was not called, so that nothing is known of the words.
    """
    kept: list[torch.Tensor] = []
    if not count:
        yield kept
        return
    import torch
    from trl.trainer import utils

    head = utils._ChunkedLogProbFunction

    class Watching:
        @staticmethod
        def apply(*given: torch.Tensor) -> object:
            hidden, weight, bias, _, temperature, chunk, cap, scale, *_ = given
            with torch.no_grad():
                tops = [largest_of_head(some, weight, bias, count, chunk)
                        for some in hidden.detach().split(POSITIONS)]  # fmt: skip
                top = torch.cat(tops).float() * scale
                kept.append((top if cap is None else cap * torch.tanh(top / cap)) / temperature)
            return head.apply(*given)

    utils._ChunkedLogProbFunction = Watching
    try:
        yield kept
    finally:
        utils._ChunkedLogProbFunction = head
    if not kept:
        raise TrainingError(
            "the logits of the likeliest words cannot be seen: TRL's tiled head was not called",
            remedy="install the version of TRL that constraints.txt names, or take `top_k: all`",
        )


def largest_of_head(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, count: int, chunk: int
) -> torch.Tensor:
    """The largest logits of each position, in falling order; words are projected in chunks."""
    import torch

    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    best: torch.Tensor | None = None
    for start in range(0, weight.shape[0], chunk):
        tile = hidden.to(dtype) @ weight[start : start + chunk].to(dtype).t()
        if bias is not None:
            tile += bias[start : start + chunk].to(dtype)
        found = largest(tile, count)
        best = found if best is None else largest(torch.cat([best, found], dim=1), count)
    return best if best is not None else hidden.new_zeros((len(hidden), 0))


def largest(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The largest of each row in falling order, or all if there are fewer."""
    return logits.topk(min(count, logits.shape[1]), dim=1).values


def entropy_among(logits: torch.Tensor) -> torch.Tensor:
    """Entropy over the last axis in nats, as if there were no other words."""
    import torch

    log_probs = torch.log_softmax(logits.float(), -1)
    return -(log_probs.exp() * log_probs).sum(-1)


def spread(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values in the shape of the mask and nought elsewhere.

    Args:
        values: one for each position of the mask, or for each that it marks; more axes may follow.
        mask: shape (rows, positions).
    """
    more = values.shape[1:]
    mask = mask.to(values.device).view(*mask.shape, *(1 for _ in more)).expand(*mask.shape, *more)
    if values.numel() == mask.numel():
        return values.view(mask.shape).masked_fill(~mask, 0)
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
