"""Says what models are computed in on a device, by the rule of `holdfast.memory.precision`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.config.training import ANY_PRECISION
from holdfast.memory import precision
from holdfast.memory.hardware import cpu
from holdfast.memory.hardware.detect import from_torch
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.catalogue import CONFIG
from holdfast.memory.precision import Dtype, Precision, Stored
from holdfast.models.external import has_shape
from holdfast.runs import store
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch


def decide(
    device: str,
    refs: Sequence[ModelRef],
    allowed: Sequence[Dtype] = ANY_PRECISION,
    gpus: Sequence[GPU] = (),
) -> Precision:
    """What to compute in; see `holdfast.memory.precision`.

    Args:
        device: `cpu` or `cuda`.
        refs: all models that are computed with; those behind endpoints do not count.
        allowed: what may be chosen; see `TrainSpec.precisions`.
        gpus: that may be used; none: all that torch sees.

    Raises:
        UsageError: float16 on a CPU.
    """
    found = (stored(ref) for ref in refs if has_shape(ref))  # read only where it matters
    if device == "cpu":
        return precision.on_cpu(found, allowed, has_bf16=cpu.computes_bf16())
    return precision.on_gpus(gpus or from_torch(models.require_torch()), found, allowed)


def stored(ref: ModelRef) -> Stored:
    """What a model's config says of its weights; nothing where it cannot be read without code."""
    folder = Path(ref.base)
    if folder.is_dir():
        file = folder / CONFIG
        return precision.stored(store.read_json(file)) if file.is_file() else Stored()
    from transformers import PretrainedConfig

    try:
        values, _ = PretrainedConfig.get_config_dict(ref.base, revision=ref.revision)
    except (OSError, ValueError):  # whoever loads it says what is wrong
        return Stored()
    return precision.stored(values)


def torch_dtype(dtype: str) -> torch.dtype:
    """The one of torch that has this name."""
    found: torch.dtype = getattr(models.require_torch(), dtype)
    return found
