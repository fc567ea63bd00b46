"""TRL's tiled language head: made fast on a CPU, and asked for the largest logits as well.

On a device without Triton it projects every position, those of the prompt included, and once more
in the backward pass. With a frozen head the gradient of a log-probability by its hidden state is
the label's row of the head less the mean row under the model's own probabilities: both are at hand
in the forward pass. So only positions with a loss are projected, once, in tiles of whole rows: two
matrix products instead of three. The mean row gives the entropy too.

The tiled head gives no more than log-probabilities and entropies over all words. What is asked of
the likeliest words (EAFT's entropy) is found in a second projection, tile by tile and without
gradients, of which only the largest logits of a position stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from holdfast.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from torch.autograd import Function
    from torch.autograd.function import FunctionCtx

POSITIONS = 1024
"""Positions whose largest logits are looked for at a time."""
FEWEST_WORDS = 4096
"""Vocabulary from which this is used: below it there is nothing to win."""
TILE = 1 << 25
"""Logits that are in memory at once, float32."""


@contextmanager
def on_cpu(model: torch.nn.Module) -> Iterator[None]:
    """For as long as this lasts, TRL's head skips positions without a loss, and is fast.

    Args:
        model: that is called meanwhile. On a GPU, and with a small vocabulary, nothing changes.
    """
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None or weight.device.type != "cpu" or len(weight) < FEWEST_WORDS:
        yield
        return
    from trl.trainer import utils

    tiled, triton = utils._ChunkedLogProbFunction, utils._use_triton
    utils._ChunkedLogProbFunction, utils._use_triton = _chooser(tiled), lambda device: True
    try:
        yield
    finally:
        utils._ChunkedLogProbFunction, utils._use_triton = tiled, triton


def _chooser(tiled: type[Function]) -> type:
    """What stands for TRL's function: itself, or the faster one where that gives the same."""

    class Chooser:
        @staticmethod
        def apply(*given: torch.Tensor) -> object:
            import torch

            hidden, weight, bias, targets, temperature, _, cap, scale, asked = given
            plain = bias is None and cap is None and temperature == scale == 1
            plain = plain and set(asked) <= {"log_probs", "entropy", "is_top1"}
            learns = torch.is_grad_enabled() and hidden.requires_grad
            if not (plain and learns) or weight.requires_grad:
                return tiled.apply(*given)
            own, entropy, top = _function().apply(hidden, weight, targets)
            return own, entropy, None, None, top

    return Chooser


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


@cache
def _function() -> type[Function]:
    import torch

    class FrozenHead(torch.autograd.Function):  # type: ignore[misc]  # mypy does not follow torch
        """Log-probability of each target, entropy, and whether the target is the likeliest."""

        @staticmethod
        def forward(
            ctx: FunctionCtx, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            count, (words, width) = len(hidden), weight.shape
            own, entropy = (torch.zeros(count) for _ in range(2))
            top = torch.zeros(count, dtype=torch.bool)
            slope = torch.empty(count, width)
            dtype = hidden.dtype
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
            narrow = weight.to(dtype)
            rows = max(1, min(count, TILE // words))
            tile = torch.empty(rows, words, dtype=dtype)  # once: fresh pages take longer than sums
            for start in range(0, count, rows):
                here = slice(start, min(count, start + rows))
                some, label = hidden[here].to(dtype), targets[here]
                logits = torch.mm(some, narrow.t(), out=tile[: len(some)]).float()
                chosen = logits.gather(1, label[:, None]).squeeze(1)
                most, likeliest = logits.max(1)
                masses = logits.sub_(most[:, None]).exp_()
                total = masses.sum(1)
                mean = (masses.to(dtype) @ narrow).float() / total[:, None]
                norm = most + total.log()
                own[here], top[here] = chosen - norm, likeliest == label
                entropy[here] = norm - (mean * some.float()).sum(1)
                slope[here] = narrow[label].float() - mean
            ctx.save_for_backward(slope)
            ctx.dtype = hidden.dtype
            ctx.mark_non_differentiable(entropy, top)
            return own, entropy, top

        @staticmethod
        def backward(
            ctx: FunctionCtx, grad: torch.Tensor, *_: object
        ) -> tuple[torch.Tensor, None, None]:
            (slope,) = ctx.saved_tensors
            return (slope * grad[:, None]).to(ctx.dtype), None, None

    return FrozenHead


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
