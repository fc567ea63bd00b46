"""Is a model whole, of the right shapes, and free of NaN? Told before it is asked anything.

Before it is loaded, from the headers of its files: transformers itself is given tensors of those
shapes on the meta device, so that renamed, fused and tied weights are judged as it judges them when
it loads. After it is loaded, from what transformers says of it and from the numbers themselves.
transformers fills what is missing with random numbers, and says so only in a log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ModelError
from holdfast.models import safetensors_files
from holdfast.models.finite import check_finite
from holdfast.models.safetensors_files import Stored
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SCANNED_BYTES = 2 << 30
"""Weights up to this size are looked through before they are loaded; larger ones afterwards."""
DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
"""Of safetensors, as torch calls them; others are those of quantised models."""
CONVERSION = "automatic conversion of the weights"
"""In the words of transformers, where it cannot put weights together."""
GET_ALL = "fetch the model again: its files are not whole, or are those of another model"


def check_files(ref: ModelRef, model: PreTrainedModel) -> list[str]:
    """Refuse a model whose files do not hold all that its configuration speaks of.

    Only headers are read, and the numbers of small models. A model on the hub is looked at as far
    as it was downloaded; one whose weights are quantised, or that brings code of its own, is looked
    at when it is loaded.

    Args:
        ref: the model.
        model: its skeleton.

    Returns:
        Notices: tensors of the files that have no place in the model.

    Raises:
        ModelError: naming what is missing, of another shape, torn or not finite.
    """
    folder = folder_of(ref)
    if folder is None:
        return []
    stored = safetensors_files.tensors_of(folder)
    notices: list[str] = []
    if getattr(model.config, "quantization_config", None) is None and not ref.trust_remote_code:
        found = _as_loaded(model, stored)
        if found is not None:
            check_info(found, model, ref.base)
            notices = _left_over(found, ref)
    if safetensors_files.size_of(stored) <= SCANNED_BYTES:
        safetensors_files.check_finite(stored, str(folder))
    return notices


def folder_of(ref: ModelRef) -> Path | None:
    """Where a model's files lie; None: on the hub, not all of them downloaded."""
    if Path(ref.base).is_dir():
        return Path(ref.base)
    from huggingface_hub import try_to_load_from_cache

    try:
        for name in (safetensors_files.SINGLE, safetensors_files.INDEX):
            kept = try_to_load_from_cache(ref.base, name, revision=ref.revision)
            if isinstance(kept, str):
                folder = Path(kept).parent
                safetensors_files.model_files(folder)
                return folder
    except (ValueError, ModelError):  # no hub id; or shards are still to come
        return None
    return None


def _as_loaded(model: PreTrainedModel, stored: Mapping[str, Stored]) -> Mapping[str, Any] | None:
    """What transformers says of loading tensors of these shapes; None: it cannot be told.

    Raises:
        ModelError: what is stored in parts, such as the experts of a mixture, cannot be put
            together, although that works with all that the model itself would store.
    """
    import torch

    if any(one.dtype not in DTYPES for one in stored.values()):
        return None
    shapes = {
        name: torch.empty(one.shape, dtype=getattr(torch, DTYPES[one.dtype]), device="meta")
        for name, one in stored.items()
    }
    try:
        return _load_shapes(model, shapes)
    except Exception as error:  # what it does with real weights may work; then loading decides
        if CONVERSION in str(error) and _converts(model):
            raise ModelError(
                "its weights cannot be put together: some are missing, or of another shape",
                where=model.config.name_or_path or next(iter(stored.values())).file.parent.name,
                remedy=GET_ALL,
            ) from error
        logging.getLogger(__name__).debug("cannot be told from headers", exc_info=True)
        return None


def _load_shapes(model: PreTrainedModel, shapes: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
    with _silent():
        found = type(model).from_pretrained(
            None, config=model.config, state_dict=dict(shapes), device_map={"": "meta"},
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    return dict(found[1])


def _converts(model: PreTrainedModel) -> bool:
    """Whether the parts that a model is stored in can be put together on the meta device."""
    try:
        from transformers.core_model_loading import revert_weight_conversion

        _load_shapes(model, revert_weight_conversion(model, model.state_dict()))
    except Exception:
        return False
    return True


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the library's report of a loading to itself; what is wrong is raised here."""
    from transformers.utils import logging as library

    before, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(library.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(before)
        if bars:
            library.enable_progress_bar()


def check_info(info: Mapping[str, Any], model: torch.nn.Module, where: str) -> None:
    """Refuse a model that was not loaded whole.

    Args:
        info: what ``from_pretrained(..., output_loading_info=True)`` returned beside the model.
        model: that was loaded.
        where: for the message.

    Raises:
        ModelError: weights are missing, of another shape, or could not be read.
    """
    if wrong := list(info.get("mismatched_keys") or ()):
        name, there, wanted = min(wrong, key=lambda one: str(one[0]))
        raise ModelError(
            f"{name} has the shape {tuple(there)} in its files and {tuple(wanted)} by its "
            f"config.json{_more(len(wrong))}",
            where=where,
            remedy=GET_ALL,
        )
    if missing := sorted(_own(info.get("missing_keys") or (), model)):
        raise ModelError(
            f"{missing[0]} is not in its files{_more(len(missing))}; random numbers would stand "
            "there",
            where=where,
            remedy=GET_ALL,
        )
    if messages := list(info.get("error_msgs") or ()):
        raise ModelError(str(messages[0])[:300], where=where, remedy=GET_ALL)


def _own(names: Iterable[str], model: torch.nn.Module) -> set[str]:
    """Of the names that are missing those of weights; what quantisation adds is its own affair."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    quantised = getattr(model, "hf_quantizer", None) is not None
    weights = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if not quantised:
        weights |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {name for name in names if name in weights and name not in tied}


def _more(count: int) -> str:
    return f" (and {count - 1} more)" if count > 1 else ""


def _left_over(info: Mapping[str, Any], ref: ModelRef) -> list[str]:
    left = sorted(info.get("unexpected_keys") or ())
    if not left:
        return []
    return [
        f"{ref.base}: {len(left)} tensors of its files have no place in the model and are left "
        f"out, first {left[0]}."
    ]


def check_loaded(model: torch.nn.Module, info: Mapping[str, Any], where: str) -> None:
    """Refuse a model that was not loaded whole, or that holds NaN or infinity.

    A process whose weights another one will send it is not looked at.

    Raises:
        ModelError: see `check_info` and `check_finite`.
    """
    waits = os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "").lower() in ("1", "true")
    if waits and os.environ.get("LOCAL_RANK", "0") != "0":
        return
    check_info(info, model, where)
    check_finite(model, where)
