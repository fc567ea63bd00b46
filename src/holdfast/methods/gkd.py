"""Generalised knowledge distillation: what if a teacher corrects the student's own answers?

A share of the micro-batches is answered by the student, the rest are the gold answers; at every
token of either the student is drawn towards what the teacher would have said (GKD,
arXiv:2306.13649). The gold answers are only places to compare at: what is learned is the teacher.
Trained by TRL's `GKDTrainer`, see `holdfast.train.distill`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from holdfast import models
from holdfast.config import ModelSpec, Section
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.memory.model.shape import read_shape
from holdfast.methods import Entry, Setting, Shared, Term
from holdfast.models import ModelRef
from holdfast.types import Example

NOTHING_NEW = (
    "gkd: the teacher is the untouched base, which is also where the student starts; it can hold "
    "the model where it is and cannot teach it anything"
)


class GKD:
    """Learn from what a teacher would have said."""

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

    entry: ClassVar[Entry] = "loss"
    version: ClassVar[str] = "1"
    mixes: ClassVar[bool] = False
    trainer: ClassVar[str | None] = "gkd"

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """See `Method.recipe`."""
        one = self.options
        return (
            f"distillation from {one.teacher or 'the untouched base'} ({one.lmbda:.0%} on-policy, "
            f"beta {one.beta:g}, temperature {one.temperature:g})"
        )

    def check(self, setting: Setting) -> None:
        """Look whether the teacher's folder is usable.

        Raises:
            ModelError: it lacks what is needed.
        """
        self.teacher()

    def identity(self) -> Mapping[str, Any]:
        """See `Method.identity`; the teacher by its content."""
        found, teacher = self.options.model_dump(), self.teacher()
        found["teacher"] = None if teacher is None else models.identity(teacher)
        return found

    def shared(self, setting: Setting) -> list[Shared]:
        """No work apart from training."""
        return []

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """The examples as they are, and a warning where there is nothing to learn."""
        return list(examples), [] if self.options.teacher else [NOTHING_NEW]

    def demand(self) -> MethodOverhead:
        """See `LossMethod.demand`."""
        other = self.teacher()
        return MethodOverhead(
            ("gkd",), "divergence", everywhere=True, generated_tokens=self.options.max_new_tokens,
            teacher_parameters=read_shape(other.base, other.revision).parameters if other else 0,
        )  # fmt: skip

    def term(self) -> Term | None:
        """Nothing in our own trainer's steps."""
        return None

    def teacher(self) -> ModelRef | None:
        """The other model that teaches; None: the base."""
        name = self.options.teacher
        return None if name is None else models.reference(ModelSpec(id=name))

    def arguments(self) -> dict[str, Any]:
        """The settings in the words of TRL's ``GKDConfig``."""
        return self.options.model_dump(exclude={"teacher"})
