"""Finds, checks, loads, places and changes model weights."""

from holdfast.config import LAB, LAB_FOLDER
from holdfast.models.loading import (
    ModelRef,
    describe_device,
    empty_cache,
    identity,
    load_model,
    load_tokenizer,
    pick_device,
    pick_dtype,
    reference,
    require_torch,
)

__all__ = [
    "LAB",
    "LAB_FOLDER",
    "ModelRef",
    "describe_device",
    "empty_cache",
    "identity",
    "load_model",
    "load_tokenizer",
    "pick_device",
    "pick_dtype",
    "reference",
    "require_torch",
]
