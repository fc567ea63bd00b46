"""Tokenises, masks and collates training examples into micro-batches.

Examples are encoded and masked once, dealt into micro-batches by `holdfast.data.batching`, and
handed over as a dataset with one row per micro-batch, so that order and composition are fixed
beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data import chat
from holdfast.data.chat import Encoded
from holdfast.data.chat_check import Learned
from holdfast.data.packing import Passes
from holdfast.errors import ModelError, TrainingError
from holdfast.methods import ANCHOR, PROBE, TASK, Term
from holdfast.methods._bound import ROUND
from holdfast.train import packed
from holdfast.types import Example, ModelRef

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import GenerationConfig, PreTrainedTokenizerBase


ROWS = "rows"
"""Column of a packed dataset: in which row each example of a micro-batch stands."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Encoded examples, ready to be dealt into micro-batches.

    Attributes:
        rows: the training examples.
        kinds: of each row; kinds are interleaved evenly (`batching.deal`). Left out: all are the
            task's own.
        probes: examples that loss methods look at before the first step.
        rounds: of each row, see `batching.deal`; none where all are of one.
    """

    rows: Sequence[Encoded]
    kinds: Sequence[str] = ()
    probes: Sequence[Encoded] = ()
    rounds: Sequence[int] = ()

    def __post_init__(self) -> None:
        """Fill in the kinds."""
        if not self.kinds:
            object.__setattr__(self, "kinds", (TASK,) * len(self.rows))


def training_data(model: ModelRef, examples: Sequence[Example], spec: TrainSpec) -> TrainingData:
    """Tokenise and mask a training set; what its examples' ``meta["kind"]`` says is heeded.

    Raises:
        TrainingError: see `encode_all`.
    """
    encoded, examples, _ = encode_all(model, examples, spec)
    kinds = [str(example.meta.get("kind", TASK)) for example in examples]
    own = [place for place, kind in enumerate(kinds) if kind != PROBE]
    return TrainingData(
        [encoded[i] for i in own],
        [kinds[i] for i in own],
        [row for row, kind in zip(encoded, kinds, strict=True) if kind == PROBE],
        rounds_of([examples[i] for i in own]),
    )


def rounds_of(examples: Sequence[Example]) -> list[int]:
    """The round of each example (`batching.deal`); none where all are of one."""
    found = [int(one.meta.get(ROUND, 0)) for one in examples]
    return found if any(found) else []


def supervised(model: ModelRef, spec: TrainSpec, examples: Sequence[Example]) -> list[int]:
    """Tokens with a loss of each example; 0 for one that is too long to be trained on."""
    if not examples:
        return []
    rows, _, _ = encode_all(model, examples, spec.model_copy(update={"max_length": None}))
    most = spec.max_length
    return [0 if most is not None and len(row.ids) > most else row.cost.supervised for row in rows]


def beginnings(
    model: ModelRef, spec: TrainSpec, examples: Sequence[Example], every: int
) -> list[list[str]]:
    """The text of each answer after every so many of its tokens; the whole answer comes last."""
    rows, _, _ = encode_all(model, examples, spec.model_copy(update={"max_length": None}))
    tokenizer = models.load_tokenizer(model)
    found = []
    for row in rows:
        ids = row.ids[row.start :]
        ends = range(every, len(ids) + every, every)
        found.append([tokenizer.decode(ids[:end], skip_special_tokens=True) for end in ends])
    return found


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
    tokenizer = models.load_tokenizer(ref, chats=any(one.messages for one in examples))
    how = learned(tokenizer, ref, spec)
    told = how.completion_only, how.cut_header, how.train_on
    rows = [
        _marked(chat.encode(tokenizer, example, how.stops, *told), example.meta)
        for example in examples
    ]
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


def _marked(row: Encoded, meta: Mapping[str, Any]) -> Encoded:
    """A row with what loss methods wrote on its example.

    ``dropped`` are places in the answer without loss; ``kl`` is what the divergence from the base
    counts for, or a list of it for the answer's tokens, ``first_kl`` on the first ``first`` of
    them; an anchor has no cross-entropy at all.
    """
    labels = list(row.labels)
    for place in meta.get("dropped", ()):
        labels[row.start + place] = chat.IGNORED
    kl: tuple[float, ...] = ()
    if (weight := meta.get("kl")) is not None:
        count = len(row.ids) - row.start
        if isinstance(weight, Sequence):
            own = [float(one) for one in weight[:count]]
            own += [0.0] * (count - len(own))
            return replace(row, labels=tuple(labels), kl=(*[0.0] * row.start, *own))
        first = min(count, int(meta.get("first", 0)))
        strong = float(meta.get("first_kl", weight))
        kl = (*[0.0] * row.start, *[strong] * first, *[float(weight)] * (count - first))
    if meta.get("kind") == ANCHOR:
        labels = [chat.IGNORED] * len(labels)
    return replace(row, labels=tuple(labels), kl=kl)


def learned(tokenizer: PreTrainedTokenizerBase, ref: ModelRef, spec: TrainSpec) -> Learned:
    """How a study has examples learned: on what there is loss, and what ends the model's turn.

    The ids that end it are read from its tokenizer and its generation config.
    """
    return Learned(
        chat.stop_ids(tokenizer, _generation_config(ref)),
        spec.completion_only_loss,
        spec.cut_template_header,
        spec.train_on,
    )


def _generation_config(ref: ModelRef) -> GenerationConfig | None:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(ref.base, revision=ref.revision)
    except OSError:
        return None
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"its generation_config.json cannot be used: {str(error)[:300]}",
            where=ref.base,
            remedy="mend that file, or fetch it again",
        ) from error


def collate(
    batch: Sequence[Mapping[str, Sequence[Sequence[float]]]], pad: int, varlen: bool = False
) -> dict[str, torch.Tensor]:
    """Pad the rows of one micro-batch to a rectangle.

    Args:
        batch: one dataset row, whose values are lists of lists.
        pad: id of the pad token.
        varlen: see `packed.lay_out`, which does it where the dataset was made of packed passes.

    Returns:
        ``input_ids``, ``labels``, ``attention_mask`` and, where there are any, ``kl_weights``, each
        of shape (rows, longest).
    """
    import torch

    if ROWS in batch[0]:
        (slot,) = batch
        return _collate_packed(slot, pad, varlen)
    ids = [one for slot in batch for one in slot["input_ids"]]
    labels = [one for slot in batch for one in slot["labels"]]
    width = max(len(one) for one in ids)

    def padded(values: Sequence[Sequence[float]], filling: float) -> torch.Tensor:
        return torch.tensor([list(one) + [filling] * (width - len(one)) for one in values])

    mask = [[1] * len(one) for one in ids]
    found = {
        "input_ids": padded(ids, pad),
        "labels": padded(labels, chat.IGNORED),
        "attention_mask": padded(mask, 0),
    }
    if "kl_weights" in batch[0]:
        found["kl_weights"] = padded([o for slot in batch for o in slot["kl_weights"]], 0.0)
    return found


def _collate_packed(slot: Mapping[str, Any], pad: int, varlen: bool) -> packed.Batch:
    names = [name for name in ("input_ids", "labels", "kl_weights") if name in slot]
    examples = [
        dict(zip(names, values, strict=True))
        for values in zip(*(slot[name] for name in names), strict=True)
    ]
    return packed.lay_out(examples, slot[ROWS], pad, varlen) | {
        packed.SKIPPED: slot[packed.SKIPPED]
    }


def dataset(
    rows: Sequence[Encoded], slots: Sequence[Sequence[int]], passes: Passes | None = None
) -> Dataset:
    """One dataset row per micro-batch; an empty one becomes a short row without loss.

    Args:
        rows: the training examples.
        slots: indices of the rows of each micro-batch.
        passes: how the examples of these micro-batches are packed; None, or without rows: not.
    """
    from datasets import Dataset

    silent = Encoded(rows[0].ids[:2], (chat.IGNORED,) * 2)
    filled = [[rows[i] for i in slot] or [silent] for slot in slots]
    table: dict[str, object] = {
        "input_ids": [[one.ids for one in slot] for slot in filled],
        "labels": [[one.labels for one in slot] for slot in filled],
    }
    if any(row.kl for row in rows):
        table["kl_weights"] = _kl_weights(filled)
    if passes is not None and passes.rows is not None:
        table[ROWS] = [one or [0] for one in passes.rows]
        table[packed.SKIPPED] = [at in passes.skipped for at in range(len(filled))]
    return Dataset.from_dict(table)


def _kl_weights(filled: Sequence[Sequence[Encoded]]) -> list[list[list[float]]]:
    """Divergence weights such that anchors count as a mean of their own over the whole run.

    The loss of a step is divided by its supervised tokens. Anchors have none, so theirs are
    multiplied by the run's supervised tokens per anchor token: cross-entropy mean + weight x anchor
    mean, however many anchors fall into a step.
    """
    every = [row for slot in filled for row in slot]
    supervised = sum(row.cost.supervised for row in every)
    held = sum(sum(w > 0 for w in row.kl) for row in every if _is_anchor(row))
    share = supervised / held if held else 0.0
    return [
        [
            [w * (share if _is_anchor(row) else 1.0) for w in row.kl] or [0.0] * len(row.ids)
            for row in slot
        ]
        for slot in filled
    ]


def _is_anchor(row: Encoded) -> bool:
    return bool(row.kl) and row.cost.supervised == 0


def tokens_of(
    data: TrainingData, seen: Sequence[int], terms: Sequence[Term] = ()
) -> dict[str, int]:
    """What a run puts through the model.

    Args:
        data: what is trained on.
        seen: which of its rows, as often as they are seen.
        terms: what the loss methods do.

    Returns:
        ``supervised_tokens``, ``tokens`` in all, ``reference_tokens`` of the passes with the
        adapters switched off, ``probe_tokens`` of the passes there and back before the first step,
        ``generated_tokens`` and ``examples_seen``.
    """
    everywhere = any(term.reference for term in terms)
    compares = any(term.divergence for term in terms)
    looks = sum(term.prepare is not None for term in terms)
    rows = data.rows
    return {
        "supervised_tokens": sum(rows[i].cost.supervised for i in seen),
        "tokens": sum(rows[i].cost.tokens for i in seen),
        "reference_tokens": sum(
            len(rows[i].ids) * (everywhere + (compares and any(rows[i].kl))) for i in seen
        ),
        "probe_tokens": looks * sum(len(row.ids) for row in data.probes),
        "generated_tokens": 0,
        "examples_seen": len(seen),
    }
