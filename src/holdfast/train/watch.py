"""The trainer callback that checks placement and gradients, rehearses, and asks for checkpoints.

Before the first: is everything as planned, and does the longest micro-batch fit? After it: did the
gradients arrive? Then: progress, a loss that is lost, and checkpoints where they were asked for.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from holdfast.errors import TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import placement
from holdfast.models.finite import not_finite
from holdfast.models.rank import Rank
from holdfast.progress import Progress
from holdfast.progress.remaining import in_words
from holdfast.runs import store
from holdfast.runs.plan import checkpoint_name
from holdfast.train.checkpoints import keep_running, mark_complete, meet, take_up_running
from holdfast.train.job import HISTORY
from holdfast.train.optimizers import settle
from holdfast.train.rehearsal import rehearse
from holdfast.train.saving import Background
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


WRITTEN_BYTES_PER_S = 2e8
"""Of a disk, when a checkpoint that nobody planned is weighed against what it saves."""
TOLD_S = 10.0
"""How long a step takes is told where it is longer."""


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


def tokens_so_far(trainer: SFTTrainer) -> int:
    """Tokens that went through the model, as far as the trainer counts them."""
    return int(getattr(trainer, "_total_train_tokens", 0) or 0)


def saving_s(model: torch.nn.Module) -> float:
    """About how long a checkpoint takes to write: weights and two moments of an optimiser."""
    trained = (one.numel() * one.element_size() for one in model.parameters() if one.requires_grad)
    return 3.0 * int(sum(trained)) / WRITTEN_BYTES_PER_S


class LiveLog:
    """Writes what a trainer logs to ``log.jsonl`` as it comes, so that others can follow it.

    Every row says when it was written (`time`, seconds since 1970), how many tokens per second went
    through the model since the row before, and the bytes that this process holds: of the GPU, or of
    the host without one.
    """

    def __init__(self, folder: Path, first: bool) -> None:
        """Write nothing yet; `first` is the process that writes, where there are several."""
        self._file, self._first = folder / HISTORY, first
        self._rows, self._tokens, self._since = 0, 0, time.monotonic()

    def begin(self, history: Sequence[Mapping[str, object]], tokens: int) -> None:
        """Go on from a checkpoint's history; what was logged after it is forgotten."""
        self._rows, self._tokens, self._since = len(history), tokens, time.monotonic()
        if self._first:
            store.write_jsonl(self._file, history)

    def add(self, history: Sequence[MutableMapping[str, float]], tokens: int) -> None:
        """Complete and append the rows that are new.

        Args:
            history: the trainer's; its new rows get the further values.
            tokens: that went through the model so far.
        """
        new, self._rows = history[self._rows :], len(history)
        now = time.monotonic()
        for row in new:
            row["time"] = round(time.time(), 3)
            if "loss" in row:
                row["memory_bytes"] = _held_bytes()
                if tokens > self._tokens:
                    row["tokens_per_s"] = round((tokens - self._tokens) / (now - self._since), 3)
                self._tokens, self._since = tokens, now
            if self._first:
                store.append_line(self._file, row)


def _held_bytes() -> int:
    """Memory that this process has taken of its GPUs, else of the host; 0: nobody knows."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return sum(map(torch.cuda.memory_reserved, range(torch.cuda.device_count())))
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def watch(
    trainer: SFTTrainer,
    save_at: Collection[int],
    progress: Progress,
    planned: Planned | None,
    longest: Mapping[str, torch.Tensor] | None,
    readers: Sequence[Reader] = (),
    writer: Background | None = None,
) -> TrainerCallback:
    """The callback that does it.

    Args:
        trainer: the one that it is added to.
        save_at: steps after which a checkpoint is written.
        progress: is advanced per step, and told of loss and tokens; when somebody wants the work
            to end, a checkpoint is written first, unless that takes longer than to train again.
        planned: what to compare with; None: no comparison.
        longest: the collated micro-batch to rehearse; None: no rehearsal.
        readers: read before each checkpoint; training may end there.
        writer: writes checkpoints while training goes on; None: training waits for them.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
        checked, stopping = False, False
        tokens, since, ended = 0, 0.0, 0.0
        live = LiveLog(Path(trainer.args.output_dir), Rank.current().is_first)

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
            self.tokens, self.since = tokens_so_far(trainer), time.monotonic()
            self.ended = self.since
            self.live.begin(state.log_history, self.tokens)

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
            before, self.tokens = self.tokens, tokens_so_far(trainer)
            progress.worked(self.tokens - before)
            step, saves = state.global_step, state.global_step in save_at
            self.stopping = progress.stop.by(step)
            lost_s = time.monotonic() - self.since
            alone = args.world_size == 1  # several would have to agree on the time
            if self.stopping and not saves and alone and lost_s < saving_s(trainer.model):
                progress.stop.release()
            if saves or self.stopping:
                settle(trainer.optimizer)
                check_numbers(trainer.model, step)
            for reader in readers:
                if saves or reader.due(step):
                    reader.read(trainer.model, step)
                    if reader.log:
                        state.log_history.append({"step": step, **reader.log})
                        self.live.add(state.log_history, self.tokens)
            if saves and (ended := ended_by(readers)) is not None:
                progress.say(f"step {step}: {ended.why}; training ends here")
                control.should_training_stop = True
            if saves or self.stopping:
                if trainer.is_fsdp_enabled:
                    folder = Path(args.output_dir) / checkpoint_name(state.global_step)
                    with writer.deferred() if writer else nullcontext():
                        save_shards(trainer, folder)
                    self.on_save(args, state, control)
                else:
                    control.should_save = True
            step_s, self.ended = time.monotonic() - self.ended, time.monotonic()
            if not self.stopping and step < state.max_steps:
                takes = f" (about {in_words(step_s)})" if step_s > TOLD_S else ""
                progress.stop.hold(f"step {step + 1} of {state.max_steps}{takes} and a checkpoint")
            return control

        def on_train_end(self, *_: object, **__: object) -> None:
            progress.stop.release()

        def on_log(
            self,
            args: TrainingArguments,
            state: TrainerState,
            control: TrainerControl,
            logs: Mapping[str, float] | None = None,
            **_: object,
        ) -> None:
            loss = (logs or {}).get("loss")
            self.live.add(state.log_history, tokens_so_far(trainer))
            if loss is not None:
                progress.worked(loss=loss)
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
            if writer is not None:
                writer.finish(lambda: mark_complete(folder))
                over = control.should_training_stop or state.global_step >= state.max_steps
                if self.stopping or over:
                    writer.wait()
            elif args.process_index == 0:
                mark_complete(folder)
            meet()
            self.since = time.monotonic()
            if self.stopping:
                progress.stop.release()

    return Watch()
