"""Builds a model with a study's adapters from its configuration alone, before anything is paid for.

It is built on torch's meta device, without weights, by the very code that training uses; whatever
PEFT would refuse once the base had been asked is refused here, with its place in the study.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.errors import HoldfastError, ModelError, StudyError, first_line
from holdfast.memory.model import stored
from holdfast.memory.out_of_memory import is_out_of_memory
from holdfast.models import ModelRef
from holdfast.train import kernels, packed
from holdfast.train.adapters import settings, told_apart

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from holdfast.train.targets import Targets


def check_model(ref: ModelRef, spec: TrainSpec, device: str = "auto") -> list[str]:
    """Check that the model takes the adapters that a study asks for; its weights are not loaded.

    Args:
        ref: the base.
        spec: the arm's training.
        device: where it will be trained: `auto`, `cpu` or `cuda`.

    Returns:
        What was changed or left out, in sentences.

    Raises:
        StudyError: see `holdfast.train.adapters.settings`; or PEFT refuses it.
        ModelError: no causal language model, or its weights cannot be trained as they are stored.
        MissingDependency: a package that reads its weights is missing.
    """
    model = on_meta(ref)
    told = stored.check(stored.stored_in(ref.base, ref.revision), spec.method, ref.base, device)
    return told if spec.method == "full" else [*told, *build(model, spec)[1].notices]


def check_fast(ref: ModelRef, spec: TrainSpec) -> None:
    """Check that the model takes packed rows and kernels: see the `check_model` of both."""
    model = on_meta(ref)
    kernels.check_model(model, spec)
    if spec.packing:
        packed.check_model(model)


def check_mergeable(ref: ModelRef, spec: TrainSpec) -> dict[str, tuple[int, ...]]:
    """Check that the adapters are plain products of two matrices, which is what can be merged.

    Returns:
        By the names of the layers that get adapters, the shapes of their weights.

    Raises:
        StudyError: naming what is not.
    """
    whole, targets = build(on_meta(ref), spec)
    shapes = {name: tuple(one.weight.shape) for name, one in targets.modules.items()}
    odd = [name for name, one in whole.named_parameters()
           if one.requires_grad and ".lora_A." not in name and ".lora_B." not in name]  # fmt: skip
    if targets.parameters or odd:
        what = targets.parameters[0] if targets.parameters else odd[0]
        raise StudyError(
            f"merge works on adapters of plain matrices, and {what} is none",
            where="weights.merge",
            remedy="leave `merge` out, or keep the adapters to the matrices "
            "(target_modules: attention)",
        )
    return shapes


def on_meta(ref: ModelRef) -> PreTrainedModel:
    """The model without its weights.

    Raises:
        ModelError: transformers cannot make a causal language model of it.
    """
    torch = models.require_torch()
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(ref.base, **ref.loading())
        for part in (config, config.get_text_config()):
            if getattr(part, "quantization_config", None) is not None:
                del part.quantization_config  # the kinds of layers are looked at, not their bits
        with torch.device("meta"):
            return models.auto_class(ref).from_config(
                config, trust_remote_code=ref.trust_remote_code
            )
    except Exception as error:  # a torn or foreign configuration raises whatever it likes
        if isinstance(error, HoldfastError) or is_out_of_memory(error):
            raise
        raise _not_built(ref, error) from error


def build(model: PreTrainedModel, spec: TrainSpec) -> tuple[PeftModel, Targets]:
    """Put the adapters on a model on the meta device.

    Raises:
        StudyError: see `holdfast.train.adapters.settings`; or PEFT refuses it.
    """
    import torch
    from peft import get_peft_model

    with explained(spec):
        config, targets = settings(model, spec)
        with torch.device("meta"), told_apart():
            return get_peft_model(model, config), targets


@contextmanager
def explained(spec: TrainSpec) -> Iterator[None]:
    """Turn what PEFT raises into an error of the study."""
    try:
        yield
    except (HoldfastError, MemoryError):
        raise
    except Exception as error:
        lora = spec.lora
        raise StudyError(
            f"these adapters cannot be put on the model: {first_line(error)[:300]}",
            where="train.lora",
            remedy=f"change target_modules ({lora.target_modules!r}) or exclude_modules, or the "
            f"variant ({lora.variant})",
        ) from error


def _not_built(ref: ModelRef, error: Exception) -> ModelError:
    first = first_line(error)
    if "Unrecognized configuration class" in first:
        kind = first.partition("<class '")[2].partition("'")[0].rpartition(".")[2]
        return ModelError(
            f"is no causal language model of transformers ({kind})",
            where=ref.base,
            remedy="name a text model, or the language model of this one, saved on its own",
        )
    if isinstance(error, ImportError):
        return ModelError(
            f"needs a package that is missing: {first[:200]}", where=ref.base,
            remedy="install it",
        )  # fmt: skip
    return models.not_loaded(ref, "configuration", error)
