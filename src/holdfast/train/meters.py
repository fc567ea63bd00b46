"""Measures forgetting while training, without any old data, and ends training at a limit.

Two meters read the model on the task's own prompts, answered beforehand by the untouched model:
the divergence per token KL(base‖tuned), which predicted forgetting best in RL's Razor
(arXiv:2509.04259), and the cross-entropy of the tuned model to the base's answers (Kalajdzievski,
arXiv:2401.05605). A third, the norm of the change, is there to be compared with. They are read at
every checkpoint; when one passes its limit, training ends there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.data.chat import Encoded
from holdfast.models import weight_delta
from holdfast.models.rank import Rank
from holdfast.runs import store
from holdfast.runs.rows import as_row

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FILE = "meters.jsonl"


@dataclass(frozen=True, slots=True)
class MeterReading:
    """What the meters read after a step."""

    step: int
    kl: float
    cross_entropy: float
    norm: float | None = None


class Meters:
    """Reads a model in training.

    Attributes:
        stopped_at: the step at which a limit was passed; None: none was.
        why: which one, in words.
        log: empty: meters have a file of their own.
    """

    def __init__(self, rows: Sequence[Encoded], stop: Mapping[str, float], folder: Path) -> None:
        """Name what is read.

        Args:
            rows: the base's own answers to questions of the task, drawn at temperature 1.
            stop: limits by meter, nats per token.
            folder: of the run; gets ``meters.jsonl``.
        """
        self._rows, self._stop, self._file = rows, dict(stop), folder / FILE
        self._first = Rank.current().is_first
        self._base: list[torch.Tensor] | None = None
        self.stopped_at: int | None = None
        self.why = ""
        self.log: Mapping[str, float] = {}

    def begin(self, model: PreTrainedModel, step: int) -> None:
        """Before training: note what the base thinks of its answers where it will not be at hand.

        Args:
            model: the untouched model, with fresh adapters or as a whole.
            step: that training goes on from; later readings are forgotten.
        """
        if not hasattr(model, "disable_adapter"):
            self._base = [_of_labels(self._log_probs(model, row), row) for row in self._rows]
        kept = [one for one in read(self._file.parent) if one["step"] <= step]
        if self._first:
            store.write_jsonl(self._file, kept)
        self._judge(kept[-1] if kept else {})

    def due(self, step: int) -> bool:
        """Meters are read at checkpoints only."""
        return False

    def read(self, model: PreTrainedModel, step: int) -> None:
        """Read all meters after a step, write them down, and see whether training should end.

        Args:
            model: without the wrapping of data parallel.
            step: optimiser steps done.
        """
        was_training = model.training
        model.eval()
        try:
            kl, entropy, tokens = 0.0, 0.0, 0
            for number, row in enumerate(self._rows):
                more, surprise, count = self._compare(model, row, number)
                kl, entropy, tokens = kl + more, entropy + surprise, tokens + count
        finally:
            model.train(was_training)
        found = {
            "step": step,
            "kl": kl / max(1, tokens),
            "cross_entropy": entropy / max(1, tokens),
            "norm": self._norm(model),
        }
        if self._first:  # every process reads, since a sharded model needs all of them
            store.append_line(self._file, found)
        self._judge(found)

    def _judge(self, found: Mapping[str, Any]) -> None:
        passed = [
            f"{name} is {found[name]:.3f}, above its limit {limit:g}"
            for name, limit in self._stop.items()
            if found.get(name, 0.0) > limit
        ]
        if passed:
            self.stopped_at, self.why = int(found["step"]), passed[0]

    def _compare(
        self, model: PreTrainedModel, row: Encoded, number: int
    ) -> tuple[float, float, int]:
        """Sums over one answer: KL and cross-entropy in nats, and its tokens."""
        now = self._log_probs(model, row)
        said = _of_labels(now, row)
        if self._base is not None:  # the answer was drawn from the base: this is unbiased
            kl = float((self._base[number] - said).sum())
        else:
            with model.disable_adapter():
                before = self._log_probs(model, row)
            kl = float((before.exp() * (before - now)).sum())
        return kl, float(-said.sum()), len(said)

    def _log_probs(self, model: PreTrainedModel, row: Encoded) -> torch.Tensor:
        """Log-probabilities at the answer's positions, shape (tokens, words), float32."""
        import torch

        ids = torch.tensor([row.ids], device=model.device)
        count = len(row.ids) - row.start
        with torch.no_grad():
            logits = model(input_ids=ids, logits_to_keep=count + 1, use_cache=False).logits
        return torch.log_softmax(logits[0, -count - 1 : -1].float(), -1)

    def _norm(self, model: PreTrainedModel) -> float | None:
        adapted = hasattr(model, "disable_adapter")
        if not adapted or not weight_delta.only_low_rank(model, experts=True):
            return None
        return math.sqrt(float(weight_delta.square(model, None).detach()))


def _of_labels(log_probs: torch.Tensor, row: Encoded) -> torch.Tensor:
    """Log-probabilities of the answer's own tokens, shape (tokens,)."""
    import torch

    labels = torch.tensor(row.ids[row.start :], device=log_probs.device)
    return log_probs.gather(1, labels[:, None]).squeeze(1)


def read(folder: Path) -> list[dict[str, Any]]:
    """What was read in a run, in order of the steps; empty without meters."""
    return [asdict(one) for one in _readings(folder)]


def _readings(folder: Path) -> list[MeterReading]:
    path = folder / FILE
    return [as_row(MeterReading, row, str(path)) for row in store.read_lines(path)]
