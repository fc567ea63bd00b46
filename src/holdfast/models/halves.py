"""Adapters that begin somewhere in a matrix, though the base stays as it is.

Methods that begin in chosen directions B₀A₀ of a matrix take these out of the base, as published.
Here the same is a LoRA of twice the rank, W + s·(B·A - B₀·A₀): its first half begins at the start
and is trained, its second half takes the start away and is frozen. Both train the same function,
and with the adapter switched off the model is the base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from holdfast.models import weight_delta

if TYPE_CHECKING:
    import torch

Start = Mapping[str, "tuple[torch.Tensor, torch.Tensor]"]
"""Name of a matrix in the base, to A₀ of shape (r, in) and B₀ of shape (out, r)."""
PREFIX = "base_model.model."
"""Before the name of a module of the base, in a model with adapters."""


def begin(
    model: torch.nn.Module,
    start: Start,
    project: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None,
) -> None:
    """Fill the adapters with both halves, and let gradients into the first one only.

    Args:
        model: with fresh adapters of twice the rank on these matrices.
        start: of each matrix.
        project: what becomes of the rows of a gradient of A, shape (r, in); left out: nothing.
    """
    import torch

    for name, a, b, _ in weight_delta.low_rank(model):
        own = name.removeprefix(PREFIX)
        a0, b0 = (one.to(a.device, a.dtype) for one in start[own])
        a.data, b.data = torch.cat([a0, a0]).contiguous(), torch.cat([b0, -b0], 1).contiguous()
        of = project[own] if project else None

        def rows(
            grad: torch.Tensor,
            rank: int = len(a0),
            of: Callable[[torch.Tensor], torch.Tensor] | None = of,
        ) -> torch.Tensor:
            first = grad[:rank] if of is None else of(grad[:rank])
            return torch.cat([first, torch.zeros_like(grad[rank:])])

        def columns(grad: torch.Tensor, rank: int = len(a0)) -> torch.Tensor:
            return torch.cat([grad[:, :rank], torch.zeros_like(grad[:, rank:])], 1)

        a.register_hook(rows)
        b.register_hook(columns)
