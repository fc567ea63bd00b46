"""The divergence between two predictions, word by word."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def divergence(now: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """KL(base‖now) in nats, from logits of shape (positions, words); shape (positions,)."""
    import torch

    before, after = torch.log_softmax(base, -1), torch.log_softmax(now, -1)
    return (before.exp() * (before - after)).sum(-1)
