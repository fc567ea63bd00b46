"""How much of an adapter's change is applied?"""

from __future__ import annotations

from typing import Any

from holdfast.errors import HoldfastError


def scale_adapter(model: Any, factor: float) -> None:
    """Apply a share of an adapter's change: W + factor · ΔW (WiSE-FT, arXiv:2109.01903).

    Args:
        model: a PEFT model whose adapters add to the weights (LoRA, rank-stabilised LoRA).
        factor: 0 is the base, 1 the model as it was trained.

    Raises:
        HoldfastError: the adapters do not add, so that a share of them is no interpolation.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLayer) or any(module.use_dora.values()):
            raise HoldfastError(
                "only a share of LoRA's change can be applied",
                remedy="use train.lora.variant lora or rslora, or leave `scale` out",
            )
        module.scale_layer(factor)
