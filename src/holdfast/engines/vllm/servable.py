"""Tells what vLLM does not serve: some models at all, some adapters unless they are merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.config import LoraSpec
from holdfast.engines.vllm.settings import RANKS, lora_rank
from holdfast.models import peft_adapter
from holdfast.types import ModelRef

if TYPE_CHECKING:
    from transformers import GenerationConfig

NOT_SERVED = (
    "use_dora", "modules_to_save", "lora_bias", "trainable_token_indices", "target_parameters",
    "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "fan_in_fan_out",
    "megatron_config",
)  # fmt: skip
"""Settings of an adapter that vLLM refuses, or does not know."""
SERVED = ("lora", "rslora")
"""Variants of a study's adapters that vLLM takes while they are trained."""
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Ways of beginning an adapter that leave the base as it is; others change it when it is loaded."""


def rank_of(adapter: Path) -> int:
    """The highest rank of an adapter; 0 where it has none."""
    return _rank(peft_adapter.settings_of(adapter))


def _rank(settings: Mapping[str, object]) -> int:
    pattern = settings.get("rank_pattern")
    ranks = [settings.get("r"), *(pattern.values() if isinstance(pattern, Mapping) else ())]
    return max((one for one in ranks if isinstance(one, int)), default=0)


def refused_training(lora: LoraSpec) -> str:
    """Why vLLM does not take what a training makes, in words; "" where nothing is known."""
    for name in NOT_SERVED:
        if getattr(lora, name, None):
            return f"it has {name}"
    if lora.variant not in SERVED:
        return f"its variant is {lora.variant}"
    most = max(lora.r, *lora.rank_pattern.values()) if lora.rank_pattern else lora.r
    return "" if lora_rank(most) else f"its rank is above {RANKS[-1]}"


def refused_adapter(adapter: Path) -> str:
    """Why vLLM does not take an adapter as it is, in words; "" where it does."""
    return refused_lora(peft_adapter.settings_of(adapter))


def refused_lora(settings: Mapping[str, object]) -> str:
    """The same, by an adapter's settings as PEFT writes them."""
    if (kind := settings.get("peft_type")) != "LORA":
        return f"it is of the kind {kind}"
    if found := [name for name in NOT_SERVED if settings.get(name)]:
        return f"it has {found[0]}"
    begun = settings.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower() not in PLAIN_STARTS:
        return f"it was begun by {begun}, which changes the base"
    if settings.get("bias", "none") != "none":
        return "it trains biases"
    return "" if lora_rank(_rank(settings)) else f"its rank is above {RANKS[-1]}"


def refused_model(ref: ModelRef, nf4: bool) -> str:
    """Why a model is not given to vLLM, in words; "" where it is."""
    if nf4:
        return "4 bits are bitsandbytes' own"
    if ref.gguf is not None:
        return "its weights lie in a GGUF file"
    if ref.attention or ref.rope:
        return "its attention or its positions are set as transformers spell them"
    return ""


def refused_settings(settings: GenerationConfig) -> str:
    """Which settings of a model's own would have it choose other tokens here, in words."""
    from holdfast.engines.generate import CHANGING

    more = sorted(set(settings.to_diff_dict()) & CHANGING)
    return f"its generation config sets {', '.join(more)}" if more else ""
