"""Makes linear layers of a model that answers fast on a CPU: weights are laid out for it once.

For a product with few rows, one token of each answer under way, torch lays a float32 weight out
anew at every call, which takes longer than the product. oneDNN, which comes with torch, keeps a
copy in the order in which it is read. Only the order of additions differs, as it does between
products with more and with fewer rows.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.model.shape import Shape

if TYPE_CHECKING:
    import torch

NARROWEST = 512
"""Inputs of a layer from which this is used: below it there is nothing to win."""
FEWEST_ROWS, MOST_ROWS = 2, 1024
"""Rows for which the copy is faster; one alone reads the weight as it lies."""
SPARE = 0.4
"""Share of the host's free memory that the copies may take."""
WIDE = 4
"""Bytes of a number: narrower ones are laid out by torch as well, if the processor has them."""


def copies_bytes(shape: Shape) -> int:
    """What the copies of a model's layers and head take; 0 where there would be none."""
    if shape.hidden < NARROWEST:
        return 0
    each = sum(one.n_in * one.n_out * one.count for one in shape.linears if one.n_in >= NARROWEST)
    return WIDE * (shape.layers * each + shape.vocab * shape.hidden)


def lay_out(model: torch.nn.Module) -> bool:
    """Keep a copy of each wide layer's weight for its products, until `undo`.

    Args:
        model: that answers, its weights as they will be asked.

    Returns:
        Whether it was done: on a CPU with oneDNN, for float32, if memory suffices for the copies.
    """
    import torch

    layers = [one for one in model.modules() if _suits(one)]
    needed = WIDE * sum(one.weight.numel() for one in layers)
    if not layers or needed > SPARE * host_ram_bytes() or not torch.backends.mkldnn.is_available():
        return False
    for layer in layers:
        laid = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), MOST_ROWS)
        layer.forward = partial(_product, layer, laid)
    return True


def undo(model: torch.nn.Module) -> None:
    """Drop the copies: the weights are about to change."""
    for one in model.modules():
        if getattr(one.__dict__.get("forward"), "func", None) is _product:
            del one.forward


def _suits(layer: torch.nn.Module) -> bool:
    import torch

    if type(layer) is not torch.nn.Linear or layer.in_features < NARROWEST:
        return False
    weight = layer.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and (
        "forward" not in layer.__dict__
    )  # fmt: skip


def _product(layer: torch.nn.Linear, laid: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    import torch

    rows = x.numel() // x.shape[-1]
    if not FEWEST_ROWS <= rows <= MOST_ROWS or x.dtype != torch.float32 or torch.is_grad_enabled():
        return torch.nn.functional.linear(x, layer.weight, layer.bias)
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, laid, layer.bias, "none", [], "")
    return found
