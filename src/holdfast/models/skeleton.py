"""Builds a model of its configuration alone, on torch's meta device: shapes, and no numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import HoldfastError, ModelError, first_line
from holdfast.memory.model import hub
from holdfast.memory.model.parts import class_of
from holdfast.models.gguf_file import INSTEAD, refused
from holdfast.models.json_files import AGAIN
from holdfast.types import ModelRef

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

NAMED = 3
"""How many tokens a message names."""
UPDATE = "check config.json, or update transformers (`pip install -U transformers`)"
TRUST = (
    "read that code; if you trust it, write `model: {id: ..., trust_remote_code: true}` in the "
    "study, or add --trust-remote-code to a comparison"
)


def read_config(ref: ModelRef) -> Any:
    """The configuration of a model, as transformers reads it.

    Raises:
        ModelError: it cannot be had or read, transformers does not know the kind of model, or it
            needs Python code of its own that may not be run.
    """
    from transformers import AutoConfig

    reach(ref)
    try:
        config = AutoConfig.from_pretrained(ref.base, **ref.loading())
        known = type(config) in _class_of(config, ref)._model_mapping
        own = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    except HoldfastError:
        raise
    except Exception as error:  # of whatever kind the fields make it fail with
        raise _unusable(ref, error) from error
    if own and not known and not ref.trust_remote_code:
        raise _needs_code(ref)
    if not own and not known:
        raise ModelError(
            f"a model of the kind {config.model_type!r} does not write text as a causal language "
            "model does, or transformers does not know it as one",
            where=ref.base,
            remedy=UPDATE,
        )
    return config


def build(ref: ModelRef) -> PreTrainedModel:
    """The model on the meta device; its weights are not looked at.

    Raises:
        ModelError: see `read_config`; or the fields of the configuration do not go together.
    """
    import torch

    config = read_config(ref)
    made = _class_of(config, ref)
    try:
        with torch.device("meta"):
            return made.from_config(config, trust_remote_code=ref.trust_remote_code)
    except Exception as error:
        raise _unusable(ref, error) from error


def generation_config(ref: ModelRef) -> GenerationConfig:
    """How a model is asked by default, as it has it when it is loaded: what ends its turn.

    Raises:
        ModelError: its file, or its configuration, cannot be used.
    """
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(ref.base, revision=ref.revision)
    except OSError:  # it has none
        return GenerationConfig.from_model_config(read_config(ref))
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"its generation_config.json cannot be used: {str(error)[:300]}",
            where=ref.base,
            remedy=AGAIN,
        ) from error


def auto_class(ref: ModelRef) -> Any:
    """The class of transformers for a model: language models, or those that read pictures too.

    The second are asked and trained with text alone.
    """
    from transformers import AutoConfig

    return _class_of(AutoConfig.from_pretrained(ref.base, **ref.loading()), ref)


def _class_of(config: Any, ref: ModelRef) -> Any:
    """See `auto_class`."""
    from transformers import AutoModelForCausalLM

    if ref.gguf is not None or ref.trust_remote_code:
        return AutoModelForCausalLM
    return class_of(config.model_type)


def reach(ref: ModelRef) -> None:
    """Refuse a model that is neither a folder nor to be had from the hub.

    Raises:
        ModelError: see `hub.require`.
    """
    if not Path(ref.base).is_dir():
        hub.require(ref.base, ref.revision, hub.CONFIG)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, where: str) -> list[str]:
    """Refuse a tokenizer that has ordinary tokens, or those that end and pad, beyond the embedding.

    Some sound models have marks for pictures there, which no text ever becomes; that is noted.

    Args:
        tokenizer: of the model.
        rows: of the model's embedding.
        where: for messages.

    Returns:
        Notices.

    Raises:
        ModelError: naming the tokens.
    """
    beyond = {name: at for name, at in tokenizer.get_vocab().items() if at >= rows}
    if not beyond:
        return []
    used = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    marks = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    wrong = [name for name, at in beyond.items() if at in used or at not in marks]
    shown = ", ".join(
        repr(name) for name in sorted(wrong or beyond, key=lambda name: beyond[name])[:NAMED]
    )
    if wrong:
        raise ModelError(
            f"its tokenizer has {len(wrong)} tokens that the model has no embedding for (it has "
            f"{rows:,}): {shown}",
            where=where,
            remedy="take the tokenizer that belongs to the model, or give the model its tokens "
            f"(`model.resize_token_embeddings({max(beyond.values()) + 1})`) and save both",
        )
    return [f"{where}: the model has no embedding for {shown}; no text here may contain them."]


def _unusable(ref: ModelRef, error: Exception) -> ModelError:
    said = str(error).strip()
    first = first_line(error)
    if ref.gguf is not None:
        return refused(Path(ref.base) / ref.gguf, f"transformers cannot read it: {first}", INSTEAD)
    where = str(Path(ref.base) / hub.CONFIG) if Path(ref.base).is_dir() else ref.base
    if "trust_remote_code" in said or "custom code" in said:
        return _needs_code(ref)
    if "does not recognize" in said or "model type" in said or "Unrecognized model" in said:
        return ModelError(
            f"transformers does not know it: {first[:200]}", where=where, remedy=UPDATE
        )
    first = f"{type(error).__name__} {first[:200]}".strip()
    return ModelError(
        f"no model can be built of this configuration: {first}",
        where=where,
        remedy=f"check the fields of config.json; {AGAIN}",
    )


def _needs_code(ref: ModelRef) -> ModelError:
    return ModelError(
        "needs Python code that comes with it (custom code, auto_map)", where=ref.base, remedy=TRUST
    )
