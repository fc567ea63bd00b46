"""Tells from file headers whether an adapter was trained on a vocabulary of another size.

Whoever adds tokens before training resizes the base; the adapter then brings the resized embedding,
or rows of it, and loads on no other base. Nothing is loaded here.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from holdfast.errors import ModelError

WEIGHTS = "adapter_model.safetensors"
ENDS = re.compile(r"\.(embed_tokens|lm_head|wte|embed_in|embed_out)\.(?:weight|base_layer\.weight|"
                  r"lora_embedding_A|lora_B\.weight)$")  # fmt: skip
"""An embedding or a head that is brought whole, or the factor that has a number for each token."""
LARGEST_HEADER = 100 << 20


def check(adapter: Path, base: Path, source: str) -> None:
    """Check that the embeddings that an adapter brings have as many rows as the base.

    Args:
        adapter: its folder.
        base: the base's folder; one that is not here is not looked at.
        source: how the adapter's user names it.

    Raises:
        ModelError: they have not; with the lines that resize the base.
    """
    rows = _rows(base)
    if rows is None:
        return
    for name, shape in shapes(adapter / WEIGHTS).items():
        found = ENDS.search(name)
        if found is None or len(shape) != 2:
            continue
        there = shape[1] if name.endswith("lora_embedding_A") else shape[0]
        if there != rows:
            own = any((adapter / one).is_file() for one in ("tokenizer.json", "tokenizer.model"))
            tokenizer = str(adapter) if own else "the tokenizer that it was trained with"
            raise ModelError(
                f"was trained on a vocabulary of {there} rows ({found[1]}); the base has {rows}",
                where=source,
                remedy=f"resize the base as it was then: model.resize_token_embeddings({there}), "
                f"save the model and {tokenizer} in one folder, and name that as BASE",
            )


def shapes(file: Path) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor of a safetensors file; none where it cannot be read."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > LARGEST_HEADER:
                return {}
            header = json.loads(stream.read(length))
        return {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError):
        return {}  # whoever loads it says what is wrong


def _rows(base: Path) -> int | None:
    """Rows of a base's embedding, by its configuration."""
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    inner = config.get("text_config") if isinstance(config, dict) else None
    fields = inner if isinstance(inner, dict) and "vocab_size" in inner else config
    rows = fields.get("vocab_size") if isinstance(fields, dict) else None
    return rows if isinstance(rows, int) else None
