"""Loads a model where the memory plan says, and checks before training that it is there.

dtype and placement are always spelled out: a library that is left to guess spreads a model over all
GPUs it sees, or loads it in float32. What came of it is checked before and after the first backward
pass, because every one of these mistakes trains without a word, only slower or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.errors import TrainingError
from holdfast.memory.loading import loading
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import ModelRef
from holdfast.models.rank import Rank

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAYER = re.compile(r"^(.*?\.\d+)\.")
ADAPTER = re.compile(r"\.(lora|oft|osf)_|\.modules_to_save\.|\.trainable_tokens_delta\b")
"""In the names of adapters' parameters, whichever of PEFT's ways made them."""


def device_map(plan: MemoryPlan, device: str, rank: Rank) -> dict[str, int | str]:
    """Module name to GPU (its position among the visible ones) or "cpu", for `from_pretrained`."""
    here: int | str = rank.local_rank if device == "cuda" else "cpu"
    match plan.placement:
        case "split" if plan.device_map is None:
            raise TrainingError(
                "a split plan without a device_map", remedy="let `holdfast plan` make the plan"
            )
        case "split":
            on_cpu = {name: "cpu" for name in plan.device_map or {}}
            return dict(plan.device_map or {}) if device == "cuda" else dict(on_cpu)
        case "fsdp2" if not plan.quantized:  # sharding moves each unit to its GPU
            return {"": "cpu"}
        case "offload":
            return {"": "cpu"}
        case _:
            return {"": here}


def load(
    ref: ModelRef, plan: MemoryPlan, dtype: torch.dtype, device: str, rank: Rank
) -> PreTrainedModel:
    """The base model as planned; weights to be offloaded are still in host memory (`offload`).

    Raises:
        OutOfMemory: it does not fit.
        TrainingError: the plan cannot be followed.
    """
    if plan.placement == "offload" and plan.quantized:
        raise TrainingError(
            "4-bit weights cannot be offloaded",
            remedy="offload in bfloat16 (train.method: lora), or shard over several GPUs",
        )
    where = device_map(plan, device, rank)
    with loading():
        return models.load_model(
            ref, dtype, device, plan.quantized, where, shared_out=plan.placement == "fsdp2"
        )


def offload(model: torch.nn.Module, device: str) -> None:
    """Keep frozen weights in host memory and copy each to the GPU for the time of its use.

    With activation checkpointing the backward pass copies a layer's weights again when it
    recomputes it; without, autograd would hold all of them. The head stays on the GPU, because the
    fused loss reads its weight directly. To be called after adapters were added, which would
    otherwise lie on the meta device themselves.

    Args:
        model: with adapters, on the CPU.
        device: `cuda`, or `cpu` to try it out.
    """
    from accelerate.hooks import (  # type: ignore[import-untyped]
        AlignDevicesHook,
        add_hook_to_module,
    )

    head = model.get_output_embeddings().weight
    for part in model.modules():
        own = dict(part.named_parameters(recurse=False))
        for buffer in part.buffers(recurse=False):
            buffer.data = buffer.data.to(device)
        if own and not any(one.requires_grad or one is head for one in own.values()):
            kept = {name: one.data for name, one in own.items()}
            add_hook_to_module(part, AlignDevicesHook(device, offload=True, weights_map=kept))
        else:
            for parameter in own.values():
                parameter.data = parameter.data.to(device)
    # So that transformers and accelerate leave the placement alone.
    getattr(model, "base_model", model).model.hf_device_map = {"": device, "offloaded": "cpu"}


def outputs_to_first_gpu(model: torch.nn.Module, device: torch.device) -> None:
    """Let a split model's outputs come back to the first GPU, where the trainer counts tokens.

    accelerate's own hook for that is lost when TRL replaces the model's forward by its fused one.
    """
    from accelerate.utils import send_to_device  # type: ignore[import-untyped]

    model.register_forward_hook(lambda part, inputs, outputs: send_to_device(outputs, device))


def adapter_dtype(plan: MemoryPlan) -> str:
    """What the adapters are trained in; FSDP2 under autocast keeps fp32 masters in any case.

    So does float16, whose loss scaler takes gradients in float32 only.
    """
    masters = plan.placement == "fsdp2" and not plan.quantized
    return "float32" if masters or plan.dtype == "float16" else plan.adapter_dtype


def cast_adapters(model: torch.nn.Module, plan: MemoryPlan) -> None:
    """Give the adapters the planned dtype, whatever PEFT and TRL made of them."""
    import torch

    dtype = getattr(torch, adapter_dtype(plan))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    match_buffers(model, dtype)


def match_buffers(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give what OSF remembers of its start the dtype of what it trains: its hooks multiply both."""
    for name, buffer in model.named_buffers():
        if "._osf_" in name:
            buffer.data = buffer.data.to(dtype)


def check_world(plan: MemoryPlan, world_size: int) -> None:
    """Check that as many processes train together as planned.

    Raises:
        TrainingError: more, or fewer; some launchers start one without a word.
    """
    if world_size != plan.world_size:
        raise _not_as_planned(
            f"{world_size} train together instead of {plan.world_size} processes",
            "start it with the command that Holdfast prints",
        )


def check_start(
    model: torch.nn.Module, plan: MemoryPlan, method: str, device: str, rank: Rank
) -> None:
    """Check, before the first step, that everything is where, and what, the plan says.

    Raises:
        TrainingError: naming what is not.
    """
    import torch.distributed as dist

    check_world(plan, dist.get_world_size() if dist.is_initialized() else 1)
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    expected = "float32" if method == "full" else adapter_dtype(plan)
    for name, parameter in trained.items():
        if (method != "full") != bool(ADAPTER.search(name)):
            raise _not_as_planned(f"{name} is trained, under method {method}")
        if str(parameter.dtype) != f"torch.{expected}":
            raise _not_as_planned(f"{name} is {parameter.dtype} instead of {expected}")
    if not trained:
        raise _not_as_planned("nothing is trained", "check train.lora.target_modules")
    allowed = _devices(plan, device, rank)
    seen = set()
    for name, parameter in model.named_parameters():
        where = str(getattr(parameter, "_local_tensor", parameter).device)
        seen.add(where)
        passing = plan.placement == "offload" and not parameter.requires_grad and where == "meta"
        if where not in allowed and not passing:
            raise _not_as_planned(f"{name} is on {where} instead of {' or '.join(sorted(allowed))}")
    if plan.placement == "split" and device == "cuda" and not allowed <= seen:
        raise _not_as_planned(f"nothing is on {', '.join(sorted(allowed - seen))}")


def _devices(plan: MemoryPlan, device: str, rank: Rank) -> set[str]:
    if device == "cpu":
        return {"cpu"}
    if plan.placement == "split":
        return {f"cuda:{one}" for one in (plan.device_map or {}).values()}
    return {f"cuda:{rank.local_rank}"}


def check_gradients(model: torch.nn.Module) -> None:
    """Check that the first backward pass reached every layer.

    LoRA's A has no gradient at first, because B is zero; so B's, or whatever else is trained, is
    looked at. One non-zero gradient per layer is asked for: an expert may go unused.

    Raises:
        TrainingError: naming the layers without.
    """
    reached: dict[str, bool] = {}
    for layer, gradient in _gradients(model):
        norm = 0.0 if gradient is None else gradient.detach().float().norm()
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        reached[layer] = bool(norm) or reached.get(layer, False)
    missed = [layer for layer, there in reached.items() if not there]
    if missed:
        raise _not_as_planned(
            f"{len(missed)} of {len(reached)} layers got no gradient, the first is {missed[0]}",
            "this is a fault of the libraries' versions: compare them with `holdfast doctor`",
        )


def _gradients(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor | None]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "lora_A" not in name:
            layer = LAYER.match(name)
            if layer:
                yield layer[1], parameter.grad


def _not_as_planned(what: str, remedy: str = "") -> TrainingError:
    return TrainingError(
        f"the run is not as planned: {what}",
        remedy=remedy or "choose another strategy, and please report this",
    )
