"""Finds, checks, loads, places and changes model weights."""

from holdfast.config import LAB, LAB_FOLDER
from holdfast.models.loading import (
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
from holdfast.types import ModelRef

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
