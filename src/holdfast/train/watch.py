"""The trainer callback that checks placement and gradients, rehearses, and asks for checkpoints.

Before the first: is everything as planned, and does the longest micro-batch fit? After it: did the
gradients arrive? Then: progress, a loss that is lost, and checkpoints where they were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from holdfast.errors import TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import placement
from holdfast.models.finite import not_finite
from holdfast.models.rank import Rank
from holdfast.progress import Progress
from holdfast.runs.plan import checkpoint_name
from holdfast.train.checkpoints import keep_running, mark_complete, meet, take_up_running
from holdfast.train.optimizers import settle
from holdfast.train.rehearsal import rehearse
from holdfast.train.shards import save_shards

if TYPE_CHECKING:
    import torch
    from transformers import (
        PreTrainedModel,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from trl import SFTTrainer


@dataclass(frozen=True, slots=True)
class Planned:
    """What the run is compared with before its first step."""

    plan: MemoryPlan
    method: str
    device: str
    rank: Rank


class Reader(Protocol):
    """Something that reads the model while it trains, and may end the training at a checkpoint.

    Attributes:
        stopped_at: the step at which training should end; None: it should go on.
        why: in words.
        log: of the last reading, for the trainer's log.
    """

    stopped_at: int | None
    why: str
    log: Mapping[str, float]

    def begin(self, model: PreTrainedModel, step: int) -> None:
        """Look at the model before training goes on from a step."""

    def due(self, step: int) -> bool:
        """Whether it reads after a step that is no checkpoint, too."""

    def read(self, model: PreTrainedModel, step: int) -> None:
        """Read the model after a step."""


def ended_by(readers: Sequence[Reader]) -> Reader | None:
    """The reader that ended a training; None: none did."""
    ended = [one for one in readers if one.stopped_at is not None]
    return min(ended, key=lambda one: one.stopped_at or 0, default=None)


def check_numbers(model: torch.nn.Module, step: int) -> None:
    """Refuse to write a checkpoint of weights that are NaN or infinite.

    Raises:
        TrainingError: naming the first such tensor.
    """
    trained = ((name, one) for name, one in model.named_parameters() if one.requires_grad)
    name = not_finite(trained)
    if name is not None:
        raise TrainingError(
            f"the weights are NaN or infinite at step {step}, first {name}",
            remedy="lower train.learning_rate, set train.max_grad_norm: 1.0, or train in float32 "
            "(train.bf16: false)",
        )


def watch(
    trainer: SFTTrainer,
    save_at: Collection[int],
    progress: Progress,
    planned: Planned | None,
    longest: Mapping[str, torch.Tensor] | None,
    readers: Sequence[Reader] = (),
) -> TrainerCallback:
    """The callback that does it.

    Args:
        trainer: the one that it is added to.
        save_at: steps after which a checkpoint is written.
        progress: is advanced per step.
        planned: what to compare with; None: no comparison.
        longest: the collated micro-batch to rehearse; None: no rehearsal.
        readers: read before each checkpoint; training may end there.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
        checked = False

        def on_train_begin(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            if planned is not None:
                placement.check_start(
                    trainer.model, planned.plan, planned.method, planned.device, planned.rank
                )
            if longest is not None:
                rehearse(trainer, longest)
            take_up_running(trainer, Path(args.output_dir) / checkpoint_name(state.global_step))

        def on_pre_optimizer_step(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            if planned is not None and not self.checked:
                placement.check_gradients(trainer.model)
                self.checked = True

        def on_step_end(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> TrainerControl:
            progress.advance(1)
            step, saves = state.global_step, state.global_step in save_at
            if saves:
                settle(trainer.optimizer)
                check_numbers(trainer.model, step)
            for reader in readers:
                if saves or reader.due(step):
                    reader.read(trainer.model, step)
                    if reader.log:
                        state.log_history.append({"step": step, **reader.log})
            if saves:
                if (ended := ended_by(readers)) is not None:
                    progress.say(f"step {step}: {ended.why}; training ends here")
                    control.should_training_stop = True
                if trainer.is_fsdp_enabled:
                    folder = Path(args.output_dir) / checkpoint_name(state.global_step)
                    save_shards(trainer, folder)
                    self.on_save(args, state, control)
                else:
                    control.should_save = True
            return control

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: Mapping[str, float] | None = None,
            **_: object,
        ) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} at step {state.global_step}",
                    remedy="lower train.learning_rate; under float16 set train.fp16: false",
                )

        def on_save(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
        ) -> None:
            folder = Path(args.output_dir) / checkpoint_name(state.global_step)
            keep_running(trainer, folder)
            meet()  # other ranks write their random states
            if args.process_index == 0:
                mark_complete(folder)
            meet()

    return Watch()
