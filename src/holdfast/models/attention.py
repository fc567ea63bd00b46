"""How a model's attention is computed, and its positions stretched: checked from its configuration.

Both hold for training and asking alike. What is not asked for stays as the model's files say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError, MissingDependency, StudyError, first_line
from holdfast.registry import nearest
from holdfast.types import ModelRef

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ON_GPU_ONLY = ("flash_attention_2", "flash_attention_3")
PACKAGES = {"flash_attention_2": "flash-attn", "flash_attention_3": "flash-attn-3"}
ROPE_KEYS = (
    "rope_type", "factor", "rope_theta", "original_max_position_embeddings", "attention_factor",
    "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "short_factor", "long_factor",
    "low_freq_factor", "high_freq_factor", "truncate", "partial_rotary_factor",
)  # fmt: skip
WHERE_ROPE, WHERE_ATTENTION = "model.rope_scaling", "model.attn_implementation"


def loading_options(ref: ModelRef) -> dict[str, object]:
    """What `from_pretrained` is given for them; nothing where nothing is asked for.

    Raises:
        StudyError: the model's configuration does not take the scaling.
    """
    found: dict[str, object] = {}
    if ref.attention:
        found["attn_implementation"] = ref.attention
    if ref.rope:
        found["config"] = stretched(ref)
    return found


def stretched(ref: ModelRef) -> PretrainedConfig:
    """The model's configuration with the study's rotary scaling.

    Raises:
        StudyError: naming what is wrong with it.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(ref.base, **ref.loading())
    text = config.get_text_config()
    own = getattr(text, "rope_parameters", None)
    if not own or not isinstance(own, Mapping):
        raise StudyError(
            f"{config.model_type} has no rotary positions in its configuration",
            where=WHERE_ROPE, remedy="leave it out",
        )  # fmt: skip
    if any(isinstance(one, Mapping) for one in own.values()):
        raise StudyError(
            f"the layers of {config.model_type} have rotary positions of several kinds, so one "
            "scaling would not be what is meant",
            where=WHERE_ROPE, remedy="change the model's own config.json, in a copy of the folder",
        )  # fmt: skip
    text.rope_parameters = _merged(own, ref.rope)
    try:
        text.standardize_rope_params()
        text.validate_rope()
        _try(text)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{config.model_type} does not take it: {str(error).strip(chr(39))[:200]}",
            where=WHERE_ROPE,
            remedy="for example {rope_type: yarn, factor: 2.0, original_max_position_embeddings: "
            f"{getattr(text, 'max_position_embeddings', 4096)}}}",
        ) from error
    return config


def _merged(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    wanted = {("rope_type" if name == "type" else name): value for name, value in given.items()}
    for name in wanted:
        if name not in ROPE_KEYS:
            raise StudyError(
                f"unknown key {name}{nearest(name, ROPE_KEYS)}",
                where=WHERE_ROPE, remedy=f"transformers reads {', '.join(ROPE_KEYS)}",
            )  # fmt: skip
    kind, kinds = wanted.get("rope_type"), sorted(ROPE_INIT_FUNCTIONS)
    if kind is None or kind not in kinds:
        said = "needs rope_type" if kind is None else f"has no rope_type {kind!r}"
        raise StudyError(
            f"{said}{nearest(str(kind or ''), kinds)}",
            where=WHERE_ROPE, remedy=f"transformers has {', '.join(kinds)}",
        )  # fmt: skip
    factor = wanted.get("factor", 1)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor < 1:
        raise StudyError(
            f"factor is a number from 1 on, not {factor!r}",
            where=WHERE_ROPE, remedy="2.0 takes twice the positions",
        )  # fmt: skip
    kept = {name: own[name] for name in ("rope_theta", "partial_rotary_factor") if name in own}
    return kept | wanted


def _try(text: PretrainedConfig) -> None:
    """Compute the frequencies, as the model's first layer would."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if (make := ROPE_INIT_FUNCTIONS.get(text.rope_parameters["rope_type"])) is not None:
        frequencies, scale = make(text, torch.device("cpu"))
        if not bool(frequencies.isfinite().all()) or not scale > 0:
            raise ValueError("it gives frequencies that are no numbers")


def check(ref: ModelRef, device: str) -> None:
    """Refuse an attention or a scaling that the model or this machine does not have.

    Args:
        ref: the model; only its configuration is read.
        device: `cpu` or `cuda`.

    Raises:
        StudyError: naming the setting of `model`.
        MissingDependency: the attention needs a package.
    """
    if not ref.attention and not ref.rope:
        return
    config = stretched(ref) if ref.rope else None
    if not ref.attention:
        return
    if device == "cpu" and ref.attention in ON_GPU_ONLY:
        raise StudyError(
            f"{ref.attention} runs on GPUs only",
            where=WHERE_ATTENTION, remedy="write sdpa, or leave it out",
        )  # fmt: skip
    _build(ref, config)


def _build(ref: ModelRef, config: PretrainedConfig | None) -> None:
    """Build the model on the meta device with its attention."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    found = config or AutoConfig.from_pretrained(ref.base, **ref.loading())
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(
                found, attn_implementation=ref.attention, trust_remote_code=ref.trust_remote_code
            )
    except HoldfastError:
        raise
    except ImportError as error:
        package = PACKAGES.get(str(ref.attention), "")
        raise MissingDependency(
            f"model.attn_implementation {ref.attention}: {first_line(error)}",
            remedy=f"pip install {package} --no-build-isolation, or write sdpa"
            if package
            else "write sdpa",
        ) from error
    except (ValueError, NotImplementedError) as error:
        raise StudyError(
            f"{found.model_type} does not take {ref.attention}: {first_line(error)}",
            where=WHERE_ATTENTION, remedy="write sdpa or eager, or leave it out",
        ) from error  # fmt: skip
