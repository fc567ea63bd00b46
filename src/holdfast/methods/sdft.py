"""On-policy self-distillation: what if the model learns from itself having seen the answer?

The student answers a training question; the same model, shown the worked answer, says how it would
have gone on at every token, and the student is drawn towards that. What it learns stays in its own
words, and the demonstration brings what it did not know (SDFT, arXiv:2601.19897). Trained by TRL's
`SDFTTrainer`, see `holdfast.train.distill`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from holdfast.config import Section
from holdfast.memory.estimate.method_overhead import Logits, MethodOverhead
from holdfast.methods import Entry, Setting, Shared, Term
from holdfast.types import Example

DEMONSTRATION = (
    "{question}\n\nThis is an example for a response to the question:\n{answer}\n\n"
    "Now answer with a response of your own, including the thinking process:"
)


class SDFT:
    """Learn from the same model that has seen the answer."""

    class Options(Section):
        """Settings of ``sdft``."""

        demonstration: str = DEMONSTRATION
        """What the teacher is asked; ``{question}``: the last user turn, ``{answer}``: the gold."""
        top_k: int | None = Field(20, ge=1)
        """Likeliest tokens of the student that are compared; null: the whole vocabulary."""
        alpha: float = Field(1.0, ge=0, le=1)
        """Divergence: 1 is KL(student, teacher), 0 KL(teacher, student), between them a mixture."""
        temperature: float = Field(1.0, gt=0)
        """Of the drawing, and of both distributions that are compared."""
        max_new_tokens: int = Field(256, ge=1)
        """Longest answer that is drawn."""
        skip: int = Field(0, ge=0)
        """First tokens of an answer without loss; a teacher may open with "As in the example"."""
        ema: float | None = Field(None, gt=0, le=1)
        """The teacher is a running mean that takes up this share each step; left out: the base."""

        @field_validator("demonstration")
        @classmethod
        def _shows_both(cls, value: str) -> str:
            try:
                value.format(question="", answer="")
            except (KeyError, IndexError, ValueError) as error:
                raise ValueError("write braces that are text twice: {{ and }}") from error
            if "{question}" not in value or "{answer}" not in value:
                raise ValueError("must contain {question} and {answer}")
            return value

    entry: ClassVar[Entry] = "loss"
    version: ClassVar[str] = "1"
    mixes: ClassVar[bool] = False
    trainer: ClassVar[str | None] = "sdft"

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """See `Method.recipe`."""
        one = self.options
        support = "whole vocabulary" if one.top_k is None else f"top {one.top_k}"
        teacher = "the untouched base" if one.ema is None else f"a running mean ({one.ema:g})"
        return (
            f"on-policy self-distillation from {teacher} shown the answer ({support}, "
            f"alpha {one.alpha:g}, temperature {one.temperature:g})"
        )

    def check(self, setting: Setting) -> None:
        """See `DataMethod.check`; it reads no files."""

    def identity(self) -> Mapping[str, Any]:
        """See `Method.identity`."""
        return self.options.model_dump()

    def shared(self, setting: Setting) -> list[Shared]:
        """No work apart from training."""
        return []

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """The examples as they are: their prompts are asked, their targets shown to the teacher."""
        return list(examples), []

    def demand(self) -> MethodOverhead:
        """See `LossMethod.demand`."""
        logits: Logits = "policy+reference" if self.options.top_k else "divergence"
        return MethodOverhead(("sdft",), logits, generated_tokens=self.options.max_new_tokens)

    def term(self) -> Term | None:
        """Nothing in our own trainer's steps."""
        return None

    def arguments(self) -> dict[str, Any]:
        """The settings in the words of TRL's ``SDFTConfig``."""
        one = self.options
        template = one.demonstration.replace("{question}", "{prompt}")
        return {
            "teacher_prompt_template": template.replace("{answer}", "{privileged_context}"),
            "distillation_mode": "full_logits" if one.top_k is None else "topk_logits",
            "distillation_topk": one.top_k,
            "distillation_alpha": one.alpha,
            "temperature": one.temperature,
            "max_completion_length": one.max_new_tokens,
            "num_loss_tokens_to_skip": one.skip,
            "teacher_model_kind": "base" if one.ema is None else "ema",
            "teacher_update_rate": 1.0 if one.ema is None else one.ema,
        }
