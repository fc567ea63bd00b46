"""Begins a training with the adapters that another one ended with.

Fresh adapters are filled with those of a checkpoint. Where they are wider (`orthogonal`: every
stage has a part of its own), the checkpoint's are their first rows and columns, which stay as they
are: no gradient reaches them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import StudyError, TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import adapter_weights, weight_delta
from holdfast.models.peft_adapter import WEIGHTS

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


def go_on(adapted: PeftModel, start: Path, plan: MemoryPlan | None = None) -> None:
    """Fill fresh adapters with those of a checkpoint.

    Args:
        adapted: a model with fresh adapters, as wide as the checkpoint's or wider.
        start: the checkpoint's folder.
        plan: where the model is; None: on one device.

    Raises:
        ModelError: the checkpoint's file is damaged.
        TrainingError: it is of other matrices.
        StudyError: wider adapters, in a placement in which gradients go another way.
    """
    import torch
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    adapter_weights.check(start / WEIGHTS)
    held, own = load_file(start / WEIGHTS), get_peft_model_state_dict(adapted)
    if other := held.keys() ^ own.keys():
        raise TrainingError(
            f"cannot be gone on from: {min(other)} is in one of the two adapters only",
            where=str(start),
            remedy="train the stage before again with these settings (--rebuild)",
        )
    wider = any(own[name].shape != one.shape for name, one in held.items())
    placed = "single" if plan is None else plan.placement
    if wider and placed not in ("cpu", "single"):
        raise StudyError(
            f"adapters that grow from stage to stage were not validated with the placement "
            f"{placed}",
            where="hardware.strategy",
            remedy="name one GPU in hardware.gpus, or leave `orthogonal` out",
        )
    with torch.no_grad():
        filled = {name: _first(own[name], one) for name, one in held.items()}
    set_peft_model_state_dict(adapted, filled)
    if wider:
        _hold(adapted, held)


def _first(own: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """`own` with its first rows and columns replaced by `before`."""
    found = own.clone()
    found[tuple(slice(size) for size in before.shape)] = before.to(own.device, own.dtype)
    return found


def _hold(adapted: PeftModel, held: dict[str, torch.Tensor]) -> None:
    """Let gradients into the new rows of A and columns of B alone."""
    for name, a, b, _ in list(weight_delta.low_rank(adapted)):
        rank = held[f"{name}.lora_A.weight"].shape[0]
        weight_delta.mark_earlier(adapted.get_submodule(name), rank)
        a.register_hook(lambda gradient, rank=rank: _without(gradient, rank, 0))
        b.register_hook(lambda gradient, rank=rank: _without(gradient, rank, 1))


def _without(gradient: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """The gradient with 0 in the first `rank` places of one axis."""
    found = gradient.clone()
    found.narrow(axis, 0, rank).zero_()
    return found
