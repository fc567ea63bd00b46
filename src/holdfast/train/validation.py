"""The loss of held-out examples while training, and the end of a training that no longer lowers it.

The examples are of the target's own training set, or in a file beside it, and the same for every
arm and seed; no arm trains on them, and no evaluation question is among them. The loss is that of
training: nats per supervised token, over all examples together.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.data.chat import IGNORED, Encoded
from holdfast.errors import TrainingError
from holdfast.models.rank import Rank
from holdfast.runs import store
from holdfast.runs.rows import as_row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE = "validation.jsonl"


@dataclass(frozen=True, slots=True)
class LossReading:
    """The loss of held-out examples after a step, and over how many tokens."""

    step: int
    eval_loss: float
    tokens: int = 0


class Validation:
    """Reads the loss of held-out examples, as transformers' `EarlyStoppingCallback` counts it.

    Attributes:
        stopped_at: the first checkpoint at which patience had run out; None: it had not.
        why: it stopped, in words.
        best: (loss, step) of the lowest reading.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        folder: Path,
        save_at: Collection[int],
        also_at: Collection[int] = (),
        patience: int | None = None,
        threshold: float = 0.0,
    ) -> None:
        """Name what is read, and when.

        Args:
            rows: the held-out examples.
            folder: of the run; gets ``validation.jsonl``.
            save_at: the steps of the checkpoints, at which a training may end.
            also_at: further steps at which the loss is read.
            patience: so many readings in a row may be no better; None: it never stops.
            threshold: how much lower a loss must be to be better.
        """
        self._rows, self._file = rows, folder / FILE
        self._save_at, self._also_at = frozenset(save_at), frozenset(also_at)
        self._patience, self._threshold = patience, threshold
        self._first = Rank.current().is_first
        self._forget()

    def _forget(self) -> None:
        self.stopped_at: int | None = None
        self.why = ""
        self.best: tuple[float, int] | None = None
        self.log: Mapping[str, float] = {}
        self._worse = 0

    def due(self, step: int) -> bool:
        """Whether the loss is read after a step that is no checkpoint."""
        return step in self._also_at

    def begin(self, model: PreTrainedModel, step: int) -> None:
        """Before training: count again what was read before an interruption.

        Args:
            model: is not looked at.
            step: that training goes on from; later readings are forgotten.
        """
        kept = [one for one in read(self._file.parent) if one["step"] <= step]
        if self._first:
            store.write_jsonl(self._file, kept)
        self._forget()
        for one in kept:
            self._judge(one["step"], one["eval_loss"])

    def read(self, model: PreTrainedModel, step: int) -> None:
        """Read the loss after a step, write it down, and see whether training should end.

        Args:
            model: without the wrapping of data parallel.
            step: optimiser steps done.

        Raises:
            TrainingError: it is no number.
        """
        was_training = model.training
        model.eval()
        try:
            sums = [_loss(model, row) for row in self._rows]
        finally:
            model.train(was_training)
        tokens = sum(count for _, count in sums)
        loss = sum(nats for nats, _ in sums) / max(1, tokens)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of held-out examples is {loss} at step {step}",
                remedy="lower train.learning_rate",
            )
        self.log = {"eval_loss": loss}
        if self._first:  # every process reads, since a sharded model needs all of them
            store.append_line(self._file, {"step": step, "eval_loss": loss, "tokens": tokens})
        self._judge(step, loss)

    def _judge(self, step: int, loss: float) -> None:
        better = self.best is None or loss < self.best[0] - self._threshold
        self._worse = 0 if better else self._worse + 1
        if self.best is None or loss < self.best[0]:
            self.best = (loss, step)
        tired = self._patience is not None and self._worse >= self._patience
        if tired and step in self._save_at and self.stopped_at is None:
            assert self.best is not None
            self.stopped_at = step
            self.why = (
                f"the loss of held-out examples is {loss:.3f}, and was {self.best[0]:.3f} at step "
                f"{self.best[1]}"
            )


def _loss(model: PreTrainedModel, row: Encoded) -> tuple[float, int]:
    """The sum of one example's losses, nats, and over how many tokens."""
    import torch

    first = next((i for i, label in enumerate(row.labels) if label != IGNORED), None)
    if not first:  # nothing to predict, or a first token that nothing predicts
        first = 1
    labels = torch.tensor(row.labels[first:], device=model.device)
    ids = torch.tensor([row.ids], device=model.device)
    with torch.no_grad():
        logits = model(input_ids=ids, logits_to_keep=len(labels) + 1, use_cache=False).logits
    kept = labels != IGNORED
    nats = torch.nn.functional.cross_entropy(
        logits[0, -len(labels) - 1 : -1].float()[kept], labels[kept], reduction="sum"
    )
    return float(nats), int(kept.sum())


def validated(validation: Validation | None) -> dict[str, object]:
    """What a training's summary says of it; nothing where nothing is held out."""
    if validation is None or validation.best is None:
        return {}
    loss, step = validation.best
    return {
        "validation": {"best_loss": loss, "best_step": step, "ended": bool(validation.stopped_at)}
    }


def read(folder: Path) -> list[dict[str, Any]]:
    """What was read in a run, in order of the steps; empty without held-out examples."""
    path = folder / FILE
    return [asdict(as_row(LossReading, row, str(path))) for row in store.read_lines(path)]
