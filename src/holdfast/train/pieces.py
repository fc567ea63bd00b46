"""How is a micro-batch that does not fit cut into pieces?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

Batch = Mapping[str, Any]


def split(inputs: Batch, most: int | None) -> list[dict[str, Any]]:
    """A micro-batch in even pieces of at most `most` examples, without needless padding.

    Args:
        inputs: tensors of shape (examples, width), padded on the right; ``attention_mask`` says
            where. Other values go into every piece as they are.
        most: None: in one piece.
    """
    rows, width = inputs["input_ids"].shape
    count = 1 if most is None else -(-rows // most)
    if count == 1:
        return [dict(inputs)]
    pieces: list[dict[str, Any]] = [dict(inputs) for _ in range(count)]
    for key, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape[:1] == (rows,):
            for piece, part in zip(pieces, value.tensor_split(count), strict=True):
                piece[key] = part
    for piece in pieces:
        if (mask := piece.get("attention_mask")) is not None:
            longest = int(mask.any(0).nonzero().max()) + 1
            for key, value in piece.items():
                if isinstance(value, torch.Tensor) and value.shape[1:] == (width,):
                    piece[key] = value[:, :longest]
    return pieces


def drain() -> None:
    """Make autograd let go of a backward pass that failed.

    On the CPU what the failed pass had still to do stays queued, and holds its whole graph, until
    another backward pass runs in the same thread. GPUs have threads that empty their queues.
    """
    torch.zeros((), requires_grad=True).backward()


def supervised(piece: Batch) -> int:
    """Tokens with a loss; the first of a row has none, because labels are shifted."""
    return int((piece["labels"][:, 1:] != -100).sum())
