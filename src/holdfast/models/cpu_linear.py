"""Makes linear layers of a model that answers fast on a CPU: weights are laid out for it once.

For a product with few rows, one token of each answer under way, torch lays a weight out anew at
every call, which in float32 takes longer than the product. oneDNN, which comes with torch, keeps a
copy in the order in which it is read. Only the order of additions differs, as it does between
products with more and with fewer rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from holdfast.memory.hardware.cpu import computes_bf16
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.model.shape import Shape

if TYPE_CHECKING:
    import torch

NARROWEST = 512
"""Inputs of a layer from which this is used: below it there is nothing to win."""
MOST_ROWS = 1024
"""Rows for which the copy is faster."""
SPARE = 0.4
"""Share of the host's free memory that the copies may take."""


def _widths() -> dict[str, int]:
    """Bytes of a number, for what this processor computes in hardware."""
    return {"float32": 4, **({"bfloat16": 2} if computes_bf16() else {})}


def copies_bytes(shape: Shape, dtype: str) -> int:
    """What the copies of a model's layers and head take; 0 where there would be none."""
    if shape.hidden < NARROWEST:
        return 0
    each = sum(one.weights for one in shape.linears if one.n_in >= NARROWEST)
    return _widths().get(dtype, 0) * (shape.layers * each + shape.vocab * shape.hidden)


def lay_out(model: torch.nn.Module) -> bool:
    """Keep a copy of each wide layer's weight for its products, until `undo`.

    Args:
        model: that answers, its weights as they will be asked.

    Returns:
        Whether it was done: on a CPU with oneDNN, for what it computes in hardware, if memory
        suffices for the copies.
    """
    import torch

    widths = _widths()
    layers = [one for one in model.modules() if _suits(one, widths)]
    needed = sum(one.weight.numel() * one.weight.element_size() for one in layers)
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


def _suits(layer: torch.nn.Module, widths: Mapping[str, int]) -> bool:
    import torch

    if type(layer) is not torch.nn.Linear or layer.in_features < NARROWEST:
        return False
    weight = layer.weight
    dtype = str(weight.dtype).removeprefix("torch.")
    return weight.device.type == "cpu" and dtype in widths and "forward" not in layer.__dict__


def _product(layer: torch.nn.Linear, laid: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    import torch

    rows = x.numel() // x.shape[-1]
    if rows > MOST_ROWS or x.dtype != layer.weight.dtype or torch.is_grad_enabled():
        return torch.nn.functional.linear(x, layer.weight, layer.bias)
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, laid, layer.bias, "none", [], "")
    return found
