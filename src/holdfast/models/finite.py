"""Finds NaN and infinity among weights that are loaded, in one pass and without a copy.

`holdfast.models.safetensors_files` does the same in files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from holdfast.models.safetensors_files import broken_numbers

if TYPE_CHECKING:
    import torch


def check_finite(model: torch.nn.Module, where: str) -> None:
    """Refuse a model with NaN or infinity among its weights; one pass, on whatever device.

    Raises:
        ModelError: naming the first such tensor.
    """
    name = not_finite(model.named_parameters())
    if name is not None:
        raise broken_numbers(name, where)


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The first of several tensors that holds NaN or infinity.

    Args:
        tensors: with names; those that are no floating point numbers of 16 bits or more (4 bits
            that are stored as such included), are empty or have no values here are passed over.
    """
    import torch

    names: list[str] = []
    fine: list[torch.Tensor] = []
    with torch.no_grad():
        for name, one in tensors:
            local = getattr(one, "_local_tensor", one).detach()  # this rank's shard
            packed = getattr(one, "quant_state", None) is not None  # as FSDP2 wants bitsandbytes'
            if not packed and _has_numbers(local):
                names.append(name)  # NaN passes through, and no copy is made
                fine.append(torch.isfinite(torch.stack(torch.aminmax(local))).all())
        for device in dict.fromkeys(one.device for one in fine):  # one look at each
            chosen = [place for place, one in enumerate(fine) if one.device == device]
            found = torch.stack([fine[place] for place in chosen]).tolist()
            if not all(found):
                return str(names[chosen[found.index(False)]])
    return None


def _has_numbers(one: torch.Tensor) -> bool:
    if not one.is_floating_point() or one.itemsize == 1 or one.device.type == "meta":
        return False
    return bool(one.numel())
