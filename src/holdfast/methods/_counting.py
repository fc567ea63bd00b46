"""Counts the tokens of a training that has a trainer of its own, step by step.

The trainer knows what it draws and what it learns from; the driver knows nothing of it. So a
method says what it does where a step ends, and the counts outlast an interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.runs import store

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerState

COUNTS = "drawn.jsonl"
"""In the run's folder: the tokens of each step that were generated, had a loss, and were read by a
reference model."""


class TokenCounts:
    """Counts tokens per optimiser step, over interruptions too.

    A trainer that generates, or has a loss on other tokens than the gold answers', adds to the
    counters as it goes. Where nothing is ever added the gold answers are taken to be what was
    learned.

    Attributes:
        generated: tokens drawn in the step under way.
        supervised: tokens with a loss in the step under way.
        reference: tokens that a teacher or the base read in the step under way, or the model
            itself without learning from them.
        prompts: tokens of prompts that were learned from in the step under way, where that is more
            than once for each example.
        examples: seen for the first time in the step under way, where not every step sees others.
        steps: the counts of every finished step.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Take up the counts in `folder` of the steps up to and including `step`."""
        self.path = folder / COUNTS
        before = store.read_objects(self.path) if step else ()
        self.steps: list[dict[str, int]] = [row for _, row in before if row["step"] <= step]
        self.generated = self.supervised = self.reference = self.prompts = self.examples = 0

    def add(
        self, generated: int = 0, supervised: int = 0, reference: int = 0, prompts: int = 0
    ) -> None:
        """Count tokens of the step under way."""
        self.generated += generated
        self.supervised += supervised
        self.reference += reference
        self.prompts += prompts

    def total(self, name: str) -> int:
        """Sum over the steps of ``generated_tokens``, ``supervised_tokens``, ..."""
        return sum(step.get(name, 0) for step in self.steps)

    def write(self) -> None:
        """Keep the counts."""
        store.write_jsonl(self.path, self.steps)

    def callback(self) -> TrainerCallback:
        """What closes a step, and writes the counts before a checkpoint is made of them."""
        return each_step(self._close, save=self.write)

    def _close(self, step: int) -> None:
        self.steps.append({
            "step": step,
            "generated_tokens": self.generated,
            "supervised_tokens": self.supervised,
            "reference_tokens": self.reference,
            **({"prompt_tokens": self.prompts} if self.prompts else {}),
            **({"examples": self.examples} if self.examples else {}),
        })  # fmt: skip
        self.generated = self.supervised = self.reference = self.prompts = self.examples = 0


def each_step(
    end: Callable[[int], None] | None = None,
    *,
    begin: Callable[[int], None] | None = None,
    save: Callable[[], None] | None = None,
    prepared: Callable[..., None] | None = None,
) -> TrainerCallback:
    """A callback of transformers' trainer, of what is done at its events.

    Args:
        end: of every step, with the number of steps behind it.
        begin: of the training, with the number of steps behind it.
        save: where a checkpoint is written.
        prepared: of a batch of TRL's self-distillation, with what that event tells.
    """
    from transformers import TrainerCallback

    class Counting(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
        def on_train_begin(
            self, args: object, state: TrainerState, control: object, **_: object
        ) -> None:
            if begin is not None:
                begin(state.global_step)

        def on_step_end(
            self, args: object, state: TrainerState, control: object, **_: object
        ) -> None:
            if end is not None:
                end(state.global_step)

        def on_save(self, args: object, state: object, control: object, **_: object) -> None:
            if save is not None:
                save()

        def on_self_distillation_batch_prepared(self, **told: object) -> None:
            if prepared is not None:
                prepared(**told)

    return Counting()
