"""Finds, checks, loads, places and changes model weights.

Everything that loads a model goes through here, so that dtype, device and safety (safetensors only,
no remote code unless asked for) are decided in one place.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.config import LAB, LAB_FOLDER, ModelSpec
from holdfast.config.places import text_of
from holdfast.data import chat_settings
from holdfast.environment import install_command
from holdfast.errors import RELATIVE, MissingDependency, ModelError, first_line
from holdfast.memory.loading import kept_back
from holdfast.memory.model import gguf_folder
from holdfast.memory.model.stored import BNB4, BNB8, EXPANDED, Stored, stored_in
from holdfast.memory.out_of_memory import is_out_of_memory
from holdfast.models import gguf_cache, gguf_head, gguf_record, skeleton, weights_check
from holdfast.models.attention import loading_options
from holdfast.models.files import check_folder, sampled_hash
from holdfast.models.skeleton import auto_class
from holdfast.types import ChatSettings, ModelRef

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "LAB",
    "LAB_FOLDER",
    "ModelRef",
    "auto_class",
    "chat_settings_of",
    "describe_device",
    "empty_cache",
    "identity",
    "load_model",
    "load_tokenizer",
    "load_whole",
    "not_loaded",
    "pick_device",
    "reference",
    "require_torch",
    "takes_long",
]


def reference(spec: ModelSpec, chats: bool = True) -> ModelRef:
    """The model that a study names; `lab` is the one that comes with the package.

    A GGUF file's weights are written out first, where that was not done yet (`gguf_cache`).

    Args:
        spec: of the study.
        chats: it is asked, or trained, through its chat template.

    Raises:
        ModelError: a local folder that lacks what is needed (`check_folder`), or a GGUF file that
            is no whole language model.
    """
    return replace(
        _named(spec, chats and spec.chat_template is None),
        chat=chat_settings_of(spec),
        attention=spec.attn_implementation or "",
        rope=spec.rope_scaling or {},
    )


def takes_long(model: str) -> bool:
    """Whether a study's model is a local GGUF file that is still to be written out.

    Raises:
        ModelError: whatever its head tells (`gguf_head.read`).
    """
    path = Path(model).expanduser()
    if not gguf_folder.is_named(model) or gguf_folder.in_repository(model) is not None:
        return False
    return gguf_folder.folder_of(model) is None and bool(gguf_head.read(path).tensors)


def _named(spec: ModelSpec, chats: bool) -> ModelRef:
    if spec.id == LAB:
        return ModelRef(str(LAB_FOLDER))
    if (base := gguf_cache.base_of(spec.id, spec.revision)) != spec.id:
        check_folder(Path(base), chats=chats)
        return ModelRef(base)
    if spec.id.startswith((".", "/", "~")) or Path(spec.id).expanduser().is_dir():
        folder = Path(spec.id).expanduser()
        check_folder(folder, chats=chats)
        return ModelRef(str(folder), None, None, spec.trust_remote_code)
    if spec.id.count("/") > 1:
        raise ModelError("is neither a folder nor a hub id", where=spec.id, remedy="check the path")
    return ModelRef(spec.id, spec.revision, None, spec.trust_remote_code)


def chat_settings_of(spec: ModelSpec) -> ChatSettings:
    """How a study has its models' chat templates used; reads the template's file.

    Raises:
        ModelError: the file cannot be read.
    """
    text = spec.chat_template
    if text is not None and "{" not in text:  # no template is without; so it names a file
        file = Path(text).expanduser()
        try:
            text = text_of(file)
        except (OSError, ValueError) as error:
            said = f": {error.strerror}" if isinstance(error, OSError) else ""
            raise ModelError(
                f"the chat template cannot be read{said}",
                where=str(file),
                remedy=f"model.chat_template is a file of UTF-8 text, or the template itself; "
                f"{RELATIVE}",
            ) from error
    thinking = None if spec.thinking == "auto" else spec.thinking
    return ChatSettings(text, spec.template_kwargs, thinking, spec.date.isoformat())


def identity(ref: ModelRef) -> dict[str, object]:
    """What makes this model this model: hub id and revision, or a hash of the folder's files.

    Of a GGUF file the digest of its whole content. Large weight files are hashed by size and by
    sampled megabytes (first, last and 62 between), so that a 15 GB folder takes a moment and two
    fine-tunes of one base still differ.
    """
    more: dict[str, object] = {} if ref.chat == ChatSettings() else {"chat": asdict(ref.chat)}
    more |= {"attention": ref.attention} if ref.attention else {}
    more |= {"rope": dict(ref.rope)} if ref.rope else {}
    folder = Path(ref.base)
    if not folder.is_dir():
        return {"id": ref.base, "revision": ref.revision, **more}
    if (made := gguf_record.of(folder)) is not None:
        return {**made.identity, **more}
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".json", ".safetensors", ".jinja", ".model", ".txt"}:
            digest.update(path.name.encode())
            digest.update(sampled_hash(path))
    return {"sha256": digest.hexdigest()[:16], **more}


def pick_device(wanted: str) -> str:
    """`cuda` or `cpu`; `auto` takes the GPU when there is one."""
    torch = require_torch()
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "hardware.device is cuda, but torch sees no GPU",
            remedy="run `holdfast doctor`, or set `hardware: {device: auto}`",
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def describe_device(device: str, dtype: torch.dtype) -> str:
    """The device and the precision in words, for the record."""
    torch = require_torch()
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return f"{name}, {str(dtype).removeprefix('torch.')}"


def empty_cache() -> None:
    """Give the GPU's cached memory back."""
    torch = require_torch()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def require_torch() -> Any:
    """Import torch, or say how to install it; the CPU is kept from slowing down on denormals."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            "training and answering need PyTorch, transformers, TRL and PEFT",
            remedy=install_command("train"),
        ) from error
    torch.set_flush_denormal(True)
    return torch


def load_tokenizer(ref: ModelRef, chats: bool = True) -> PreTrainedTokenizerBase:
    """The model's tokenizer, padded on the left; without a pad token of its own it pads with eos.

    The study's template and its settings are attached to it (`data.chat_settings`).

    Padding is masked and has no loss, so that is safe: real end-of-turn tokens keep their labels.

    Args:
        ref: the model.
        chats: refuse it at once where it has no chat template.

    Raises:
        ModelError: it cannot be loaded or has no chat template.
    """
    require_torch()
    from transformers import AutoTokenizer

    skeleton.reach(ref)
    try:
        tokenizer = AutoTokenizer.from_pretrained(ref.base, **ref.loading())
    except Exception as error:  # a torn tokenizer.json raises whatever its reader stumbles over
        raise not_loaded(ref, "tokenizer", error) from error
    chat_settings.attach(tokenizer, ref.chat)
    if chats and not tokenizer.chat_template:
        raise ModelError(
            "its tokenizer has no chat template",
            where=ref.base,
            remedy="use the instruction-tuned model, or give a template in model.chat_template",
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_model(
    ref: ModelRef,
    dtype: torch.dtype,
    device: str,
    nf4: bool = False,
    device_map: Mapping[str, int | str] | None = None,
    shared_out: bool = False,
) -> PreTrainedModel:
    """The plain base model (no adapter), with dtype and placement explicit.

    Args:
        ref: which weights; its adapter is not applied here.
        dtype: of the weights, or of the computation when `nf4`.
        device: `cpu` or `cuda`.
        nf4: 4-bit NormalFloat with double quantisation (QLoRA, arXiv:2305.14314).
        device_map: module name to GPU or "cpu"; None: all on `device`.
        shared_out: NF4 weights are stored such that FSDP2 can shard them.

    Raises:
        ModelError: it cannot be loaded, has no safetensors, or is not whole: weights are missing,
            of another shape, NaN or infinite.
        MissingDependency: NF4 without bitsandbytes.
    """
    torch = require_torch()
    from safetensors import SafetensorError

    skeleton.reach(ref)
    options: dict[str, object] = {"dtype": dtype, "use_safetensors": True, **ref.loading()}
    options |= loading_options(ref)
    held = stored_in(ref.base, ref.revision)
    if held is not None and held.expands:
        options["quantization_config"] = _expanded(held)
    elif nf4 and held is None:
        options["quantization_config"] = _nf4(dtype, shared_out)
    if nf4 or (held is not None and not held.expands):
        options["device_map"] = {"": 0 if device == "cuda" else "cpu"}
    if held is not None and held.kind == BNB4 and shared_out:
        raise ModelError(
            "its 4-bit weights lie such that they cannot be sharded",
            where=ref.base,
            remedy="name the base as it was published in 16 bits, or set hardware.strategy: ddp",
        )
    if device_map is not None:
        options["device_map"] = dict(device_map)
    if held is not None and held.kind == BNB8:  # it would say of every product that it casts
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    try:
        model, info = auto_class(ref).from_pretrained(ref.base, output_loading_info=True, **options)
    except ImportError as error:
        raise MissingDependency(
            f"{ref.base} cannot be loaded: {first_line(error)}",
            remedy="install that package, or name the base as it was published in 16 bits",
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise not_loaded(ref, "model", error) from error
    except RuntimeError as error:
        told = "mismatch" in str(error) or weights_check.CONVERSION in str(error)
        if not told or kept_back(error) is not None:
            raise  # memory, and the like
        raise not_loaded(ref, "model", error) from error
    if held is not None and held.expands:
        model.to(dtype)
    weights_check.check_loaded(model, info, ref.base)
    if "device_map" not in options:
        model.to(device)
    if dtype is torch.float32:
        _keep_float32(model)
    model.config.use_cache = True
    return model


def _keep_float32(model: PreTrainedModel) -> None:
    """Have 4-bit layers multiply in float32: bitsandbytes takes bfloat16 on CPUs that have it."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_whole(ref: ModelRef, dtype: torch.dtype) -> PreTrainedModel:
    """A model on the CPU with all weights written out, however they are stored.

    Raises:
        ModelError: it cannot be loaded, or its kind of few bits cannot be written out.
    """
    model = load_model(ref, dtype, "cpu")
    if getattr(model, "hf_quantizer", None) is not None:
        try:
            model = model.dequantize(dtype)
        except NotImplementedError as error:
            raise ModelError(
                f"its weights cannot be written out: {str(error).split(',')[0]}",
                where=ref.base,
                remedy="export with --form adapter, or train on the base in 16 bits",
            ) from error
        model = model.to(dtype)
        model.is_quantized = False
        _forget_packing(model)
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    return model


def _forget_packing(model: PreTrainedModel) -> None:
    """Drop the steps that unpacked the weights: saving would take them backwards, and has none."""
    kept = []
    for step in getattr(model, "_weight_conversions", None) or ():
        try:
            step.reverse_transform()
        except NotImplementedError:
            continue
        kept.append(step)
    model._weight_conversions = kept or None


def _expanded(held: Stored) -> object:
    """Settings with which weights in few bits are written out when they are loaded."""
    import transformers

    return getattr(transformers, EXPANDED[held.kind])(dequantize=True)


def _nf4(dtype: torch.dtype, shared_out: bool) -> BitsAndBytesConfig:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            "4-bit training needs bitsandbytes", remedy=install_command("train", "bitsandbytes")
        ) from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if shared_out else None,  # FSDP2 shards floats only
    )


def not_loaded(ref: ModelRef, what: str, error: Exception) -> ModelError:
    """What to say of a model that cannot be loaded: the first line, and what to do about it."""
    first = first_line(error)
    if not isinstance(error, OSError | ValueError):
        first = f"{type(error).__name__}: {first}"
    remedy = (
        "check the id and the connection to the hub (HF_ENDPOINT names a mirror), or name a local "
        "folder"
    )
    if Path(ref.base).is_dir():
        remedy = "the files are damaged or incomplete (git-lfs pointers?): fetch them again"
    if "custom code" in first and not ref.trust_remote_code:
        remedy = skeleton.TRUST
    if "gated" in str(error).lower() or "401" in str(error):
        remedy = "accept its licence on the hub and log in with `hf auth login`"
    return ModelError(f"the {what} cannot be loaded: {first}", where=ref.base, remedy=remedy)
