"""How do training examples become the rectangles that the trainer eats?

Examples are encoded and masked once, dealt into micro-batches by `holdfast.budget`, and handed over
as a dataset with one row per micro-batch, so that order and composition are fixed beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast import chat, models
from holdfast.chat import Encoded
from holdfast.errors import TrainingError
from holdfast.models import ModelRef
from holdfast.spec import TrainSpec
from holdfast.types import Example


def encode_all(
    ref: ModelRef, examples: Sequence[Example], spec: TrainSpec
) -> tuple[list[Encoded], list[Example], str]:
    """Tokenise and mask a training set.

    Returns:
        The rows, the examples that they are of, and a preview of the first mask.

    Raises:
        TrainingError: an example is longer than `max_length` (unless `overlong: drop`), has
            nothing to train on, or lacks the end-of-turn token.
    """
    tokenizer = models.load_tokenizer(ref)
    stops = chat.stop_ids(tokenizer, _generation_config(ref))
    rows = [chat.encode(tokenizer, one, stops, spec.completion_only_loss) for one in examples]
    if spec.max_length is not None:
        fits = [len(row.ids) <= spec.max_length for row in rows]
        if not all(fits) and spec.overlong == "error":
            raise TrainingError(
                f"{fits.count(False)} of {len(fits)} examples are longer than max_length "
                f"{spec.max_length} (the longest has {max(len(row.ids) for row in rows)} tokens)",
                remedy="raise train.max_length, or set `overlong: drop`; they are never cut, "
                "because a cut answer teaches the model not to stop",
            )
        rows = [row for row, fit_in in zip(rows, fits, strict=True) if fit_in]
        examples = [one for one, fit_in in zip(examples, fits, strict=True) if fit_in]
        if not rows:
            raise TrainingError("no example is within max_length", remedy="raise it")
    return rows, list(examples), chat.mask_preview(tokenizer, rows[0])


def _generation_config(ref: ModelRef) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(ref.base, revision=ref.revision)
    except OSError:
        return None


def collate(batch: Sequence[Mapping[str, Any]], pad: int) -> dict[str, Any]:
    """Pad the rows of one micro-batch to a rectangle.

    Args:
        batch: one dataset row, whose ``input_ids`` and ``labels`` are lists of lists.
        pad: id of the pad token.

    Returns:
        ``input_ids``, ``labels`` and ``attention_mask``, each of shape (rows, longest).
    """
    import torch

    ids = [one for slot in batch for one in slot["input_ids"]]
    labels = [one for slot in batch for one in slot["labels"]]
    width = max(len(one) for one in ids)

    def padded(values: Sequence[Sequence[int]], filling: int) -> torch.Tensor:
        return torch.tensor([list(one) + [filling] * (width - len(one)) for one in values])

    mask = [[1] * len(one) for one in ids]
    return {
        "input_ids": padded(ids, pad),
        "labels": padded(labels, chat.IGNORED),
        "attention_mask": padded(mask, 0),
    }


def dataset(rows: Sequence[Encoded], slots: Sequence[Sequence[int]]) -> Any:
    """One dataset row per micro-batch; an empty one becomes a short row without loss."""
    from datasets import Dataset

    silent = rows[0].ids[:2]
    table: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for slot in slots:
        table["input_ids"].append([rows[i].ids for i in slot] or [silent])
        table["labels"].append([rows[i].labels for i in slot] or [[chat.IGNORED] * len(silent)])
    return Dataset.from_dict(table)
