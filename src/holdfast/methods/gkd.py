"""Generalised knowledge distillation: a teacher corrects the student's own answers.

A share of the micro-batches is answered by the student, the rest are the gold answers; at every
token of either the student is drawn towards what the teacher would have said (GKD,
arXiv:2306.13649). The gold answers are only places to compare at: what is learned is the teacher.
Trained by TRL's `GKDTrainer`, with a loss that is a mean over the tokens that it is taken on. The
untouched base teaches as the student with its adapters switched off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from holdfast import models
from holdfast.config import ModelSpec, Section
from holdfast.data.chat import IGNORED
from holdfast.errors import DataError, TrainingError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.memory.model.reading import read_shape
from holdfast.methods import Lesson, LossMethod, MethodContext
from holdfast.methods._context import Batch
from holdfast.methods._counting import TokenCounts
from holdfast.models import ModelRef
from holdfast.types import Example

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import Trainer
    from transformers.modeling_outputs import ModelOutput
    from trl.experimental.gkd import GKDTrainer

NOTHING_NEW = (
    "gkd: the teacher is the untouched base, which is also where the student starts; it can hold "
    "the model where it is and cannot teach it anything"
)


class GKD(LossMethod):
    """Learn from what a teacher would have said."""

    options: Options

    class Options(Section):
        """Settings of ``gkd``."""

        teacher: str | None = None
        """Hub id or folder of a model with the same vocabulary; left out: the untouched base."""
        lmbda: float = Field(0.5, ge=0, le=1)
        """Share of micro-batches that the student answers; the others are the gold answers."""
        beta: float = Field(0.5, ge=0, le=1)
        """Divergence: 0 is KL(teacher, student), 1 KL(student, teacher), between them a mixture."""
        temperature: float = Field(1.0, gt=0)
        """Of the drawing only."""
        max_new_tokens: int = Field(256, ge=1)
        """Longest answer that is drawn."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        return (
            f"distillation from {given.teacher or 'the untouched base'} "
            f"({given.lmbda:.0%} on-policy, beta {given.beta:g}, "
            f"temperature {given.temperature:g})"
        )

    def check(self, context: MethodContext) -> None:
        """Look whether the teacher's folder is usable.

        Raises:
            ModelError: it lacks what is needed.
            DataError: the training data holds plain text, which has no question to answer.
        """
        self.teacher()
        plain = next((one for one in context.plain if not one.messages), None)
        if plain is not None:
            raise DataError(
                f"the training example {plain.id} is plain text: there is no question to answer",
                where="gkd",
                remedy="take gkd out of this arm, or plain text out of the training data",
            )

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`; the teacher by its content."""
        found, teacher = self.options.model_dump(), self.teacher()
        found["teacher"] = None if teacher is None else models.identity(teacher)
        return found

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """The examples as they are, and a warning where there is nothing to learn."""
        return list(examples), [] if self.options.teacher else [NOTHING_NEW]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        other = self.teacher()
        return MethodOverhead(
            ("gkd",), "divergence", everywhere=True, generated_tokens=self.options.max_new_tokens,
            teacher_parameters=read_shape(other.base, other.revision).parameters if other else 0,
        )  # fmt: skip

    def teacher(self) -> ModelRef | None:
        """The other model that teaches; None: the base."""
        name = self.options.teacher
        return None if name is None else models.reference(ModelSpec(id=name))

    def trainer(self, lesson: Lesson) -> Trainer:
        """TRL's `GKDTrainer`.

        Raises:
            TrainingError: the teacher has another vocabulary.
        """
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        pad = lesson.tokenizer.pad_token_id
        trainer = GKDTrainer(
            model=lesson.model,
            teacher_model=self._teaching(lesson),
            args=lesson.batched_config(GKDConfig, **self.arguments()),
            data_collator=lambda batch: lesson.collate(batch) | prompts_of(batch, pad),
            train_dataset=lesson.micro_batches(),
            processing_class=lesson.tokenizer,
        )
        # TRL would divide by the tokens of the gold answers, even where the student's own are
        # compared.
        trainer.model_accepts_loss_kwargs = False
        listen(trainer, lesson.counts)
        return trainer

    def arguments(self) -> dict[str, object]:
        """The settings in the words of TRL's ``GKDConfig``."""
        return self.options.model_dump(exclude={"teacher"})

    def _teaching(self, lesson: Lesson) -> torch.nn.Module:
        other = self.teacher()
        if other is None:
            return untouched(lesson.model)
        if models.load_tokenizer(other).get_vocab() != lesson.tokenizer.get_vocab():
            raise TrainingError(
                f"the teacher {other.base} has another vocabulary than {lesson.ref.base}",
                remedy="name a larger model of the same family in gkd.teacher",
            )
        teacher = models.load_model(other, lesson.model.dtype, lesson.model.device.type)
        return teacher.requires_grad_(False).eval()


def prompts_of(batch: Batch, pad: int) -> dict[str, torch.Tensor]:
    """The prompts of one micro-batch, to be answered.

    Args:
        batch: one dataset row, see `Lesson.micro_batches`.
        pad: id of the pad token.

    Returns:
        ``prompts`` and ``prompt_attention_mask``, each of shape (rows, longest prompt), padded on
        the left.
    """
    import torch

    prompts = []
    for slot in batch:
        for ids, labels in zip(slot["input_ids"], slot["labels"], strict=True):
            start = next(place for place, label in enumerate(labels) if label != IGNORED)
            prompts.append(list(ids[:start]))
    width = max(map(len, prompts))
    return {
        "prompts": torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts]),
        "prompt_attention_mask": torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        ),
    }


def listen(trainer: GKDTrainer, counts: TokenCounts) -> None:
    """Wrap what `GKDTrainer` calls to draw and to compare; it tells its callbacks neither."""
    draw, compare = trainer.generate_on_policy_outputs, trainer.generalized_jsd_loss

    def drawing(*arguments: object) -> tuple[torch.Tensor, ...]:
        ids, mask, labels = draw(*arguments)
        counts.generated += int((labels != IGNORED).sum())
        return ids, mask, labels

    def comparing(*, labels: torch.Tensor, **more: object) -> torch.Tensor:
        counts.supervised += int((labels != IGNORED).sum())
        return compare(labels=labels, **more)

    def teaching(_: object, inputs: object, more: Mapping[str, torch.Tensor]) -> None:
        counts.reference += int(more["attention_mask"].sum())

    trainer.generate_on_policy_outputs, trainer.generalized_jsd_loss = drawing, comparing
    trainer.teacher_model.register_forward_pre_hook(teaching, with_kwargs=True)


def untouched(model: PeftModel) -> torch.nn.Module:
    """The base of an adapted model, as a model of its own that shares all its weights.

    Args:
        model: a `PeftModel`; it is not registered as a part, so that moving the base, or putting
            it into evaluation mode, leaves the student alone.
    """
    import torch

    class Base(torch.nn.Module):  # type: ignore[misc]  # mypy does not follow torch
        config = model.config

        def forward(self, **inputs: object) -> ModelOutput:
            with torch.no_grad(), model.disable_adapter():
                return model(**inputs)

    return Base()
