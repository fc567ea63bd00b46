"""Measures how far the weights have moved from where they began.

Under LoRA the change of a matrix is ΔW = s·B·A, and the sum of its squares is tr((BᵀB)(AAᵀ))·s²:
two small products, never the matrix itself. With weights a for the inputs and g for the outputs,
Σ g_i a_j ΔW_ij² is the same of diag(√g)·B and A·diag(√a). Anything else that is trained is
compared with a copy of its first values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

Importance: TypeAlias = "Mapping[str, tuple[torch.Tensor, torch.Tensor]]"
"""Module name to weights of its inputs, shape (in,), and of its outputs, shape (out,)."""


def low_rank(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, float]]:
    """Every linear layer with a plain LoRA adapter: name, A (r, in), B (out, r), scale s."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper

    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer) or isinstance(module, ParamWrapper):
            continue
        for adapter in module.active_adapters:
            if adapter in module.lora_A and not module.use_dora.get(adapter, False):
                a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
                if a.dim() == 2:
                    yield name, a, b, float(module.scaling[adapter])


def mark_earlier(layer: torch.nn.Module, rank: int) -> None:
    """Note on a layer how many rows of its A are those of earlier stages, and held."""
    layer.earlier_rank = rank


def earlier_rank(layer: torch.nn.Module) -> int:
    """What `mark_earlier` noted; 0 where nothing was."""
    return int(getattr(layer, "earlier_rank", 0))


def stacked(model: torch.nn.Module) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
    """Every parameter of stacked experts with an adapter: A (e, r, in), B (e, out, r), scale s.

    PEFT keeps A as (e·r, in) and B as (out, r·e).
    """
    from peft.tuners.lora.layer import ParamWrapper

    for module in model.modules():
        if isinstance(module, ParamWrapper):
            for adapter in module.active_adapters:
                if adapter in module.lora_A:
                    a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
                    each = module.num_experts
                    a = a.reshape(each, -1, a.shape[-1])
                    b = b.reshape(b.shape[0], -1, each).permute(2, 0, 1)
                    yield a, b, float(module.scaling[adapter])


def product_square(
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    weights: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Σ g_i a_j (s·B·A)_ij², a scalar; without weights the squared Frobenius norm.

    Args:
        a: shape (r, in).
        b: shape (out, r).
        scale: s.
        weights: of inputs (in,) and outputs (out,).
    """
    a, b = a.float(), b.float()
    if weights is not None:
        a = a * weights[0].to(a.device).sqrt()
        b = b * weights[1].to(b.device).sqrt()[:, None]
    return scale * scale * ((b.T @ b) * (a @ a.T)).sum()


def only_low_rank(model: torch.nn.Module, experts: bool = False) -> bool:
    """Whether plain LoRA is all that is trained; with `experts`, also of stacked ones."""
    from peft.tuners.lora.layer import ParamWrapper

    held = {id(one) for _, a, b, _ in low_rank(model) for one in (a, b)}
    if experts:
        wrapped = [one for one in model.modules() if isinstance(one, ParamWrapper)]
        held |= {id(weight) for one in wrapped for part in (one.lora_A, one.lora_B)
                 for weight in part.parameters()}  # fmt: skip
    return all(id(one) in held for one in model.parameters() if one.requires_grad)


def copies(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is trained, as it is now, by name."""
    return {n: one.detach().clone() for n, one in model.named_parameters() if one.requires_grad}


def square(
    model: torch.nn.Module,
    first: Mapping[str, torch.Tensor] | None,
    importance: Importance | None = None,
) -> torch.Tensor:
    """How far everything that is trained has moved: a weighted sum of squares, a scalar.

    Args:
        model: as it is now.
        first: what `copies` returned; None where `only_low_rank`.
        importance: weights of inputs and outputs per module; with `first`, of each parameter as
            (weights, None). A module that is not named counts nothing.
    """
    if first is None:
        parts = [
            product_square(a, b, s, importance[name] if importance is not None else None)
            for name, a, b, s in low_rank(model)
            if importance is None or name in importance
        ]
        if importance is None:
            parts += [product_square(one, other, scale)
                      for a, b, scale in stacked(model)
                      for one, other in zip(a, b, strict=True)]  # fmt: skip
    else:
        parts = []
        for name, now in model.named_parameters():
            if name in first and (importance is None or name in importance):
                moved = (now - first[name].to(now.device)).float().square()
                if importance is not None:
                    moved = moved * importance[name][0].to(now.device)
                parts.append(moved.sum())
    home = parts[0].device
    return sum(part.to(home) for part in parts)
