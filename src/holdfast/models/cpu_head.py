"""TRL's tiled language head, made fast on a CPU.

On a device without Triton it projects every position, those of the prompt included, and once more
in the backward pass. With a frozen head the gradient of a log-probability by its hidden state is
the label's row of the head less the mean row under the model's own probabilities: both are at hand
in the forward pass. So only positions with a loss are projected, once, in tiles of whole rows: two
matrix products instead of three. The mean row gives the entropy too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.autograd import Function
    from torch.autograd.function import FunctionCtx

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
