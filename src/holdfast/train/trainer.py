"""The one Trainer subclass: it replays a training step in halves when its memory runs out.

When a micro-batch does not fit, all micro-batches of the optimiser step
so far are replayed in halves from the saved random state. Each half is normalised by the tokens of
the whole step, as its micro-batch was, so loss and gradients are those of the unsplit step. What
cannot be replayed (one example, a half-done update, several processes, a save) ends in
`OutOfMemory`, and a fresh process goes on from the last checkpoint with the next plan.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from trl import SFTTrainer

from holdfast.errors import Phase, TrainingError
from holdfast.memory.fault_injection import FaultInjector
from holdfast.memory.out_of_memory import (
    RAISED,
    Failure,
    event,
    failure_of,
    free,
    is_out_of_memory,
    unrecoverable,
)
from holdfast.methods import Term
from holdfast.models.cpu_head import on_cpu
from holdfast.train import packed
from holdfast.train.objective import WEIGHTS, Objective, Outputs

if TYPE_CHECKING:
    from transformers.trainer_utils import TrainOutput

SPLIT = "split.json"
"""In a checkpoint: how many examples at a time its run had come down to."""

Batch = dict[str, Any]


@dataclass(slots=True)
class _Step:
    """One optimiser step under way: what a replay of it needs."""

    random: tuple[torch.Tensor, list[torch.Tensor]]
    metrics: dict[str, int]
    tokens: int
    batches: list[Batch] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)


class Trainer(SFTTrainer):  # type: ignore[misc]  # mypy does not follow trl
    """`SFTTrainer` that halves a micro-batch when its memory runs out.

    Attributes:
        events: one mapping per failure: phase, step, from_micro_batch, to_micro_batch (None: given
            up), allocated_bytes, reserved_bytes (None without a GPU) and message.
        most_examples: examples per forward pass since the last failure; None: as they come.
    """

    current_gradient_accumulation_steps: int

    def __init__(
        self,
        *args: object,
        terms: Sequence[Term] = (),
        recover: bool = True,
        say: Callable[[str], None] | None = None,
        **kwargs: object,
    ) -> None:
        """Take what `SFTTrainer` takes.

        Args:
            args: see `SFTTrainer`.
            terms: what the arm's loss methods do in a step.
            recover: False: every failure ends the run.
            say: gets one line per failure; None: the log.
            kwargs: see `SFTTrainer`.
        """
        super().__init__(*args, **kwargs)
        self.events: list[dict[str, object]] = []
        self.most_examples: int | None = None
        self._objective = Objective(terms, self.is_fsdp_enabled) if terms else None
        self._recover, self._say = recover, say or logging.getLogger(__name__).warning
        self._phase: Phase = "load"
        self._step: _Step | None = None
        self._size, self._tokens = 0, 0  # of the forward pass under way
        self._faults = FaultInjector.from_environment()
        self._faults.halfway_backward(self.model, lambda: self._tokens)

    def train(
        self, resume_from_checkpoint: str | None = None, *args: object, **kwargs: object
    ) -> TrainOutput:
        """Train; see `SFTTrainer.train`.

        Raises:
            OutOfMemory: memory ran out where nothing in this process can mend it.
            TrainingError: the checkpoint's state is damaged, or would run code when read.
        """
        self._phase, self._step = "load", None
        split = Path(str(resume_from_checkpoint)) / SPLIT
        if split.is_file():  # else its random numbers would differ from those of an unbroken run
            self.most_examples = json.loads(split.read_text(encoding="utf-8"))["most_examples"]
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except (pickle.UnpicklingError, EOFError) as error:
            raise TrainingError(
                "the state to go on from is damaged, or holds more than numbers",
                where=str(resume_from_checkpoint),
                remedy="remove this folder and run again: an earlier one is gone on from",
            ) from error
        except RAISED as error:
            if not is_out_of_memory(error):
                raise
            failure = failure_of(error)
        raise self._give_up(f"{self._phase} ran out of memory", failure)

    def get_batch_samples(
        self, *args: object, **kwargs: object
    ) -> tuple[list[Batch], torch.Tensor | None]:
        """Fetch the micro-batches of one optimiser step, which starts here."""
        self._phase, self._step = "forward", None
        batches, items = super().get_batch_samples(*args, **kwargs)
        return batches, items

    def training_step(
        self, model: torch.nn.Module, inputs: Batch, num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Forward and backward of one micro-batch, and of those before it when it has to split.

        Returns:
            What this call adds to the step's loss, shape (): after a replay that is the loss of all
            micro-batches so far less what was returned for them before.
        """
        if inputs.get(packed.SKIPPED):  # on every process, so that none waits for another
            return torch.zeros((), device=self.args.device)
        if self._step is None:
            self._step = self._begin()
        step = self._step
        step.batches.append(inputs)
        done = self._attempt(model, [inputs], num_items_in_batch)
        if not isinstance(done, Failure):
            step.losses += done
            return done[0]
        while isinstance(done, Failure):
            self._shrink(done, num_items_in_batch)
            self._rewind(model, step)
            done = self._attempt(model, step.batches, num_items_in_batch)
        change = sum(done) - sum(step.losses)
        step.losses = done
        return change

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        """See `SFTTrainer.compute_loss`; what follows it is the backward pass."""
        self._phase = "forward"
        self._faults.at("forward", self._tokens)
        with on_cpu(self.accelerator.unwrap_model(self.model)):
            if self._objective is None:
                run = _packed(model) if packed.EXAMPLES in inputs else model
                found = super().compute_loss(run, inputs, return_outputs, num_items_in_batch)
            else:
                found = self._compute_terms(self._objective, model, inputs, num_items_in_batch)
        self._phase = "backward"
        return found

    def _compute_terms(
        self,
        objective: Objective,
        model: torch.nn.Module,
        inputs: Batch,
        items: torch.Tensor | None,
    ) -> torch.Tensor:
        """TRL's loss, and what the terms add to it."""
        outputs: list[Outputs] = []
        weights = inputs.pop(WEIGHTS, None)

        def forward(fused_lm_head: bool = True, **given: torch.Tensor) -> Outputs:
            plain, places = self.accelerator.unwrap_model(self.model), given.get(packed.EXAMPLES)
            given = packed.for_model(given)
            outputs.append(objective.forward(model, plain, given, weights, places))
            return outputs[-1]

        loss = super().compute_loss(forward, inputs, False, items)
        here = outputs[0].label_mask.sum()
        more = outputs[0].extra
        if (penalty := objective.penalties(self.model)) is not None:
            more = more + penalty * here.to(penalty.device)  # over a step this adds up to one
        for name, value in objective.said.items():
            self._metrics["train"][name].append(value)
        every = torch.as_tensor(here if items is None else items).clamp(min=1)
        processes = self.accelerator.num_processes if items is not None else 1
        return loss + (more / every.to(more.device) * processes).to(loss.device)

    def create_optimizer(self, *args: object, **kwargs: object) -> torch.optim.Optimizer:
        """See `SFTTrainer.create_optimizer`."""
        optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.register_step_post_hook(lambda *_: self._faults.at("step"))
        return optimizer

    def _save_checkpoint(self, *args: object, **kwargs: object) -> None:
        self._phase = "save"
        super()._save_checkpoint(*args, **kwargs)
        self._faults.at("save")
        if self.most_examples is not None:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            text = json.dumps({"most_examples": self.most_examples})
            (folder / SPLIT).write_text(text, encoding="utf-8")
        self._phase = "step"

    def _attempt(
        self, model: torch.nn.Module, batches: Sequence[Batch], items: torch.Tensor | None
    ) -> list[torch.Tensor] | Failure:
        """Their losses, or what went wrong; the exception and what it holds are gone by then."""
        try:
            losses = [self._micro_batch(model, batch, items) for batch in batches]
        except RAISED as error:
            if not is_out_of_memory(error):
                raise
            return failure_of(error)
        self._phase = "step"
        return losses

    def _micro_batch(
        self, model: torch.nn.Module, inputs: Batch, items: torch.Tensor | None
    ) -> torch.Tensor:
        """Forward and backward, in as many pieces as needed; returns the sum of their losses."""
        pieces = split(inputs, self.most_examples)
        before = self._lengths()
        accumulation = self.current_gradient_accumulation_steps
        self.current_gradient_accumulation_steps = accumulation * len(pieces)  # of means (MoE)
        losses = []
        try:
            for piece in pieces:
                self._size, width = piece["input_ids"].shape
                self._tokens = self._size * width
                self._size = len(piece.get(packed.EXAMPLES, range(self._size)))
                losses.append(super().training_step(model, piece, items))
        finally:
            self.current_gradient_accumulation_steps = accumulation
        if len(pieces) > 1:
            self._join(before, [supervised(piece) for piece in pieces])
        return sum(losses[1:], losses[0])

    def _begin(self) -> _Step:
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        random = (torch.get_rng_state(), gpus)
        return _Step(random, self._lengths(), self._total_train_tokens)

    def _rewind(self, model: torch.nn.Module, step: _Step) -> None:
        """Back to the start of the step: gradients, random state, TRL's running metrics."""
        model.zero_grad()
        drain()
        free()
        torch.set_rng_state(step.random[0])
        if step.random[1]:
            torch.cuda.set_rng_state_all(step.random[1])
        for key, values in self._metrics["train"].items():
            del values[step.metrics.get(key, 0) :]
        self._total_train_tokens = step.tokens

    def _shrink(self, failure: Failure, items: torch.Tensor | None) -> None:
        """Halve what goes in at once, or give up."""
        if why := self._cannot_replay(items):
            raise self._give_up(why, failure)
        size, self.most_examples = self._size, (self._size + 1) // 2
        step = self.state.global_step + 1
        self.events.append(event(self._phase, step, size, self.most_examples, failure))
        self._say(
            f"step {step}: out of memory in the {self._phase} pass of {size} examples; the step is "
            f"replayed with at most {self.most_examples} at a time, and so are those to come"
        )

    def _cannot_replay(self, items: torch.Tensor | None) -> str:
        """Why the step cannot be replayed in smaller pieces; "" when it can."""
        if not self._recover:
            return "out of memory, and recovery is off"
        if self._size <= 1:
            return f"one example of {self._tokens} tokens does not fit"
        if self.args.world_size > 1 or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return "out of memory while other processes wait for this one"
        if self.args.activation_offloading:
            return "out of memory while activations are offloaded"  # trl keeps what it had packed
        if items is None:
            return "out of memory under a loss that is not normalised over the whole step"
        return ""

    def _give_up(self, why: str, failure: Failure) -> Exception:
        step, size = None, None
        if self._phase != "load":
            step = self.state.global_step + (self._phase != "save")
        if self._phase in {"forward", "backward"}:
            size = self._size
        self.events.append(event(self._phase, step, size, None, failure))
        for path in Path(self.args.output_dir).glob(f"checkpoint-*/{SPLIT}"):
            path.unlink()  # the next plan has a micro-batch of its own
        return unrecoverable(self._phase, why, failure)

    def _lengths(self) -> dict[str, int]:
        return {key: len(values) for key, values in self._metrics["train"].items()}

    def _join(self, before: Mapping[str, int], weights: Sequence[int]) -> None:
        """Make TRL's entries for the pieces one entry for their micro-batch: their means.

        Entropy and accuracy are means over supervised tokens, so the weighted mean is exact.
        """
        for key, values in self._metrics["train"].items():
            own = values[before.get(key, 0) :]
            if len(own) == len(weights):  # num_tokens is a running total, kept as one entry
                mean = sum(v * w for v, w in zip(own, weights, strict=True)) / max(1, sum(weights))
                values[before.get(key, 0) :] = [mean]


def _packed(model: torch.nn.Module) -> Callable[..., object]:
    """The model as it takes packed rows: their mask only counts tokens."""
    return lambda **inputs: model(**packed.for_model(inputs))


def split(inputs: Batch, most: int | None) -> list[Batch]:
    """A micro-batch in even pieces of at most `most` examples, without needless padding.

    Args:
        inputs: tensors of shape (examples, width), padded on the right; ``attention_mask`` says
            where. Other values go into every piece as they are. Packed ones: `packed.pieces`.
        most: None: in one piece.
    """
    if most is not None and len(inputs.get(packed.EXAMPLES, ())) > most:
        return packed.pieces(inputs, most)
    if packed.EXAMPLES in inputs:
        return [dict(inputs)]
    rows, width = inputs["input_ids"].shape
    count = 1 if most is None else -(-rows // most)
    if count == 1:
        return [dict(inputs)]
    pieces: list[Batch] = [dict(inputs) for _ in range(count)]
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
