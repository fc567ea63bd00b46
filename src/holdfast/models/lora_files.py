"""Reads a LoRA adapter on disk as the products it adds, and writes such products as one.

The change of each matrix is ΔW = s·B·A with A of shape (r, in) and B of shape (out, r); s is
alpha / r, or alpha / √r for rank-stabilised LoRA. Whatever is made of such products without forming
ΔW is exact and needs no base model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from holdfast.errors import ModelError
from holdfast.models import adapter_weights
from holdfast.models.finite import not_finite
from holdfast.models.json_files import read_object
from holdfast.models.safetensors_files import broken_numbers

if TYPE_CHECKING:
    import torch

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
PRODUCT, SECOND = re.compile(r"\.lora_(embedding_)?[AB]\b"), re.compile(r"\.lora_(embedding_)?B\b")
"""Names of both factors of a product, and of the second."""

Factors: TypeAlias = "Mapping[str, tuple[torch.Tensor, torch.Tensor]]"
"""Name of a module in the base to its A, shape (r, in), and s·B, shape (out, r), in float32."""


def read(folder: Path) -> tuple[dict[str, object], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """The settings of a LoRA adapter and its factors.

    Raises:
        ModelError: no adapter there, or one that does not add a plain product B·A.
    """
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    config = _settings(folder)
    adapter_weights.check(folder / WEIGHTS)
    tensors = load_file(folder / WEIGHTS)
    factors = {}
    for key, a in tensors.items():
        name, found, _ = key.rpartition(".lora_A.")
        if not found:
            continue
        name, b = name.removeprefix(PREFIX), tensors[key.replace(".lora_A.", ".lora_B.")]
        pattern = config.get("alpha_pattern") or {}
        alpha = pattern.get(get_pattern_key(pattern.keys(), name), config["lora_alpha"])
        rank = a.shape[0]
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        factors[name] = (a.float(), b.float() * scale)
    if len(tensors) != 2 * len(factors) or not factors:
        raise _no_product(folder, "beside A and B of matrices there are other weights")
    return config, factors


def write(folder: Path, config: Mapping[str, object], factors: Factors) -> None:
    """Write an adapter that PEFT loads as exactly these products.

    Args:
        folder: gets ``adapter_config.json`` and ``adapter_model.safetensors``; made if need be.
        config: settings to begin with, those of an adapter of the same base.
        factors: see `Factors`; ranks may differ.

    Raises:
        ModelError: a product is NaN or infinite; nothing is written then.
    """
    from safetensors.torch import save_file

    found = not_finite((name, one) for name, pair in factors.items() for one in pair)
    if found is not None:
        raise broken_numbers(found, str(folder), "the weights made of other adapters'")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, (a, b) in factors.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = b.contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    ranks = {name: a.shape[0] for name, (a, _) in factors.items()}
    usual = max(ranks.values())
    others = {name: rank for name, rank in sorted(ranks.items()) if rank != usual}
    settings = {
        **config,
        "r": usual, "lora_alpha": usual, "use_rslora": False,  # so that s is 1
        "rank_pattern": others, "alpha_pattern": others,
        "target_modules": sorted(factors), "layers_to_transform": None, "layers_pattern": None,
        "inference_mode": True,
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", "utf-8")


def adds_elsewhere(folder: Path) -> bool:
    """Whether an adapter adds products, but to stacked experts or an embedding as well."""
    from safetensors import safe_open

    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return False
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        return False
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = list(file.keys())
    if not names or not all(PRODUCT.search(name) for name in names):
        return False
    return bool(config.get("target_parameters")) or any("lora_embedding" in one for one in names)


def write_scaled(folder: Path, factor: float, to: Path) -> None:
    """Write such an adapter with a share of its change: every B times the factor."""
    from safetensors.torch import load_file, save_file

    to.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: one * factor if SECOND.search(name) else one
        for name, one in load_file(folder / WEIGHTS).items()
    }
    save_file(tensors, to / WEIGHTS, {"format": "pt"})
    (to / CONFIG).write_text((folder / CONFIG).read_text(encoding="utf-8"), encoding="utf-8")


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"is no adapter: {CONFIG} or {WEIGHTS} is missing",
            where=str(folder),
            remedy="name the folder of a checkpoint that was trained with LoRA",
        )
    config: dict[str, Any] = read_object(path)
    if config.get("peft_type") != "LORA":
        raise _no_product(folder, f"it is of the kind {config.get('peft_type')}")
    if config.get("use_dora"):
        raise _no_product(folder, "DoRA scales the rows of the sum as well")
    if config.get("target_parameters"):
        raise _no_product(folder, "it adapts experts that are stacked in one parameter")
    return config


def _no_product(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"its change is no plain product B·A, so it cannot be scaled or merged: {why}",
        where=str(folder),
        remedy="train with train.lora.variant lora, rslora or corda",
    )
