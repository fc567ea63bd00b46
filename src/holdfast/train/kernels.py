"""Liger's kernels and compiled layers: checked before anything is paid for, and put into a model.

Both compute what the model computes without them, up to rounding, so neither is part of what a
training is known by. TRL's tiled head stays as it is: of Liger only the layers' kernels are used.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from typing import TYPE_CHECKING, Any

from holdfast.config import TrainSpec
from holdfast.errors import MissingDependency, StudyError, TrainingError
from holdfast.memory.memory_plan import MemoryPlan

if TYPE_CHECKING:
    import torch

WITHOUT_HEAD = {"fused_linear_cross_entropy": False, "cross_entropy": False}
"""Liger's own losses stay out: TRL's tiled head is in the model's forward already."""
KERNELS, COMPILED = "train.kernels", "train.torch_compile"
WHOLE = ("single", "ddp", "cpu")
"""Placements in which nothing is moved or gathered while a layer runs."""


def check(spec: TrainSpec, device: str) -> None:
    """Refuse kernels and compilation that this machine, or this training, does not have.

    Args:
        spec: the settings.
        device: `cpu` or `cuda`.

    Raises:
        MissingDependency: naming the package, or the compiler.
        StudyError: naming the setting.
    """
    if spec.kernels:
        if device == "cpu":
            raise StudyError(
                "Liger's kernels run on GPUs only", where=KERNELS, remedy="leave kernels out"
            )
        if importlib.util.find_spec("liger_kernel") is None:
            raise MissingDependency(
                "train.kernels: liger needs liger-kernel",
                remedy="pip install liger-kernel, or leave kernels out",
            )
    if not spec.torch_compile:
        return
    if spec.method == "qlora":
        raise StudyError(
            "4-bit layers are not compiled", where=COMPILED,
            remedy="leave torch_compile out, or set train.method: lora",
        )  # fmt: skip
    compiler = os.environ.get("CXX") or "g++"
    if device == "cpu" and not (shutil.which(compiler) or shutil.which("clang++")):
        raise MissingDependency(
            f"torch.compile needs a C++ compiler, and there is no {compiler}",
            remedy="install one (apt-get install g++), or leave train.torch_compile out",
        )
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        raise MissingDependency(
            "torch.compile needs triton", remedy="pip install triton, or leave torch_compile out"
        )


def check_model(model: torch.nn.Module, spec: TrainSpec) -> None:
    """Refuse kernels that Liger does not have for a model: it would say nothing, and do nothing.

    Args:
        model: may be on the meta device.
        spec: the settings, which have passed `check`.

    Raises:
        StudyError: naming the kinds of models that there are kernels for.
        MissingDependency: the package is there, and cannot be imported.
    """
    if not spec.kernels:
        return
    known, kind = sorted(_liger().MODEL_TYPE_TO_APPLY_LIGER_FN), model.config.model_type
    if kind not in known:
        raise StudyError(
            f"Liger has no kernels for {kind}", where=KERNELS,
            remedy=f"leave kernels out; it has some for {', '.join(known)}",
        )  # fmt: skip


def _liger() -> Any:
    try:
        return importlib.import_module("liger_kernel.transformers.monkey_patch")
    except ImportError as error:
        raise MissingDependency(
            f"liger-kernel is there and cannot be used: {error}",
            where=KERNELS,
            remedy="install it with the triton of this torch, or leave kernels out",
        ) from error


def check_plan(spec: TrainSpec, plan: MemoryPlan | None) -> None:
    """Refuse to compile layers whose weights are moved or gathered while they run.

    Raises:
        TrainingError: naming the placement.
    """
    if spec.torch_compile and plan is not None and plan.placement not in WHOLE:
        raise TrainingError(
            f"layers are not compiled where their weights are moved ({plan.placement})",
            where=COMPILED,
            remedy="leave torch_compile out, or choose another hardware.strategy",
        )


def apply(model: torch.nn.Module, spec: TrainSpec) -> None:
    """Give a model that is about to be trained the kernels, and compile its decoder layers.

    Layers are compiled one by one: all of a kind share what is compiled, and neither the names of
    the weights nor TRL's head change. Lengths are left open, so that another one compiles nothing.

    Args:
        model: with its adapters, on its device.
        spec: the settings.
    """
    if spec.kernels:
        from transformers.integrations.liger import apply_liger_kernel

        apply_liger_kernel(model, dict(WITHOUT_HEAD))
    if not spec.torch_compile:
        return
    layers = set(getattr(model, "_no_split_modules", None) or ())
    mode = None if spec.torch_compile is True else spec.torch_compile
    found = [part for part in model.modules() if type(part).__name__ in layers]
    for part in found:
        part.compile(mode=mode, dynamic=True)
    if not found:
        raise TrainingError(
            "the model does not say which of its parts are layers", where=COMPILED,
            remedy="leave torch_compile out",
        )  # fmt: skip


def used(spec: TrainSpec) -> dict[str, object]:
    """What of it a training had, for its record; empty for nothing."""
    found = {"kernels": spec.kernels, "torch_compile": spec.torch_compile}
    return {name: value for name, value in found.items() if value}
