"""Keeps weights of earlier steps beside those in training, and goes on with them when resumed.

Loss methods keep what they compare with (`Term.kept`); a moving average of what is trained is kept
for arms that measure it. Both are in one file of every checkpoint, every average also in its form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import TrainingError
from holdfast.methods import Term
from holdfast.models.averages import averaged_name
from holdfast.runs.plan import checkpoint_name
from holdfast.train.checkpoints import KEPT

if TYPE_CHECKING:
    import torch
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )


class Average:
    """A moving average of everything that is trained, in float32, on the device of each weight.

    It begins with the weights before the first step, which under LoRA are the untouched model, and
    after every step becomes decay times itself plus (1 - decay) times the weights.

    Attributes:
        decay: how much of it stays in every step.
        values: by the names of the parameters.
    """

    def __init__(self, decay: float, model: torch.nn.Module) -> None:
        """Begin with the weights as they are."""
        self.decay = decay
        self.values = {
            name: one.detach().float().clone()
            for name, one in model.named_parameters()
            if one.requires_grad
        }

    def update(self, model: torch.nn.Module) -> None:
        """Take in the weights after one more step."""
        for name, one in model.named_parameters():
            if name in self.values:
                self.values[name].lerp_(one.detach().float(), 1 - self.decay)

    def restore(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go on with what was kept."""
        for name, one in self.values.items():
            one.copy_(values[name])

    @contextmanager
    def in_place(self, model: torch.nn.Module) -> Iterator[None]:
        """For as long as this lasts the model has the average for weights."""
        before = {}
        for name, one in model.named_parameters():
            if name in self.values:
                before[name] = one.data
                one.data = self.values[name].to(one.dtype)
        try:
            yield
        finally:
            for name, one in model.named_parameters():
                if name in before:
                    one.data = before[name]


def keeping(trainer: Trainer, terms: Sequence[Term], decays: Sequence[float]) -> TrainerCallback:
    """The callback that does it; to be added before the one that marks checkpoints as complete.

    Args:
        trainer: the one that it is added to.
        terms: what the arm's loss methods do in a step.
        decays: of the moving averages.
    """
    import torch
    from transformers import TrainerCallback

    class Keeping(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
        averages: Sequence[Average] = ()

        def on_train_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            if trainer.is_fsdp_enabled:
                raise TrainingError(
                    "weights of earlier steps cannot be kept of a model that is sharded",
                    remedy="give it a GPU that holds the model, or train.method: qlora",
                )
            self.averages = [Average(one, trainer.model) for one in decays]
            if not state.global_step:
                return
            path = Path(args.output_dir) / checkpoint_name(state.global_step) / KEPT
            if not path.is_file():
                raise TrainingError(
                    f"lacks {KEPT}, without which training would go on otherwise than it began",
                    where=str(path.parent),
                    remedy="remove this folder and run again: an earlier one is gone on from",
                )
            found = torch.load(path, map_location="cpu", weights_only=True)
            for average in self.averages:
                average.restore(found["averages"][averaged_name(average.decay)])
            for term, values in zip(terms, found["terms"], strict=True):
                if term.kept is not None:
                    term.kept.clear()
                    term.kept.update(placed(values, trainer.model))

        def on_step_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            for begin in filter(None, (one.begin for one in terms)):
                begin(trainer.model, state.global_step, state.max_steps)

        def on_step_end(self, *_: object, **__: object) -> None:
            for end in filter(None, (one.end for one in terms)):
                end(trainer.model)
            for average in self.averages:
                average.update(trainer.model)

        def on_save(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            if args.process_index:
                return
            folder = Path(args.output_dir) / checkpoint_name(state.global_step)
            averages = {averaged_name(one.decay): one.values for one in self.averages}
            kept = {"averages": averages, "terms": [dict(term.kept or {}) for term in terms]}
            torch.save(kept, folder / KEPT)
            model = trainer.accelerator.unwrap_model(trainer.model)
            for average in self.averages:
                with average.in_place(trainer.model):
                    model.save_pretrained(folder / averaged_name(average.decay))

    return Keeping()


def placed(values: Mapping[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Tensors by the names of parameters, each on the device of its parameter."""
    where = {name: one.device for name, one in model.named_parameters()}
    return {name: one.to(where[name]) if name in where else one for name, one in values.items()}
