"""Writes a base with an adapter merged into its weights, as a folder that other programs load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.errors import HoldfastError
from holdfast.memory.loading import loading
from holdfast.models.finite import check_finite
from holdfast.models.peft_adapter import load_adapter, scale_adapter
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch


def write_merged(ref: ModelRef, dtype: torch.dtype, folder: Path) -> None:
    """Write all weights, with tokenizer and chat template.

    A base that lies in few bits is written out first: what is merged into four bits is rounded.

    Args:
        ref: the base, its adapter, and the share of it that is applied.
        dtype: in which it is merged and written.
        folder: an existing, empty folder.

    Raises:
        HoldfastError: these adapters cannot be scaled, or merged.
        OutOfMemory: the base does not fit into the host's memory.
    """
    assert ref.adapter is not None
    base = replace(ref, adapter=None, scale=1.0)
    with loading():
        model = models.load_whole(base, dtype)
        tuned = load_adapter(model, ref.adapter)
        if ref.scale != 1:
            scale_adapter(tuned, ref.scale)
        try:
            whole = tuned.merge_and_unload(safe_merge=True)
        except (AttributeError, NotImplementedError, ValueError) as error:
            raise HoldfastError(
                f"this adapter cannot be merged: {error}",
                where=ref.adapter,
                remedy="ask or export it as an adapter: answer.engine: hf, or --form adapter",
            ) from error
    check_finite(whole, ref.adapter)
    whole.save_pretrained(folder)
    models.load_tokenizer(base, chats=False).save_pretrained(folder)
