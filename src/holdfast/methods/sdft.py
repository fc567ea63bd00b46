"""On-policy self-distillation: the model learns from itself having seen the answer.

The student answers a training question; the same model, shown the worked answer, says how it would
have gone on at every token, and the student is drawn towards that. What it learns stays in its own
words, and the demonstration brings what it did not know (SDFT, arXiv:2601.19897). Trained by TRL's
`SDFTTrainer`, used as it is; it renders conversations with the tokenizer's template, as we do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from holdfast.config import Section, TrainSpec
from holdfast.data.rendering import fixed_date, variables
from holdfast.errors import DataError, StudyError, TrainingError
from holdfast.memory.estimate.method_overhead import Logits, MethodOverhead
from holdfast.methods import Lesson, LossMethod, MethodContext
from holdfast.methods._counting import TokenCounts, each_step
from holdfast.methods._rewriting import check_questions

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, TrainerCallback

AVERAGED = {"lora", "rslora"}
"""Variants of LoRA that are the base where their matrices are zero."""
DEMONSTRATION = (
    "{question}\n\nThis is an example for a response to the question:\n{answer}\n\n"
    "Now answer with a response of your own, including the thinking process:"
)


class SDFT(LossMethod):
    """Learn from the same model that has seen the answer."""

    options: Options

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

    def __init__(self, options: Options) -> None:
        """Take the settings; no checkpoint holds a teacher that is a running mean."""
        super().__init__(options)
        self.resumable = options.ema is None

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        support = "whole vocabulary" if given.top_k is None else f"top {given.top_k}"
        teacher = "the untouched base" if given.ema is None else f"a running mean ({given.ema:g})"
        return (
            f"on-policy self-distillation from {teacher} shown the answer ({support}, "
            f"alpha {given.alpha:g}, temperature {given.temperature:g})"
        )

    def check(self, context: MethodContext) -> None:
        """Refuse training data that TRL's trainer would not see whole.

        Raises:
            DataError: it holds other things than questions with answers in words, or tools.
        """
        check_questions("sdft", context.plain)
        for one in context.plain:
            if one.tools or any(turn.extra for turn in one.messages):
                raise DataError(
                    f"the training example {one.id} has tools, or turns with more than a role and "
                    "a content, which TRL's SDFTTrainer is not given",
                    where="sdft",
                    remedy="take sdft out of this arm, or such rows out of the training data",
                )

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        logits: Logits = "policy+reference" if self.options.top_k else "divergence"
        return MethodOverhead(("sdft",), logits, generated_tokens=self.options.max_new_tokens)

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse a running mean of adapters that are not the base where they are zero."""
        if self.options.ema is not None and spec.lora.variant not in AVERAGED:
            raise StudyError(
                f"a running mean of {spec.lora.variant} adapters is no teacher: TRL begins it at "
                "zero",
                remedy="leave sdft.ema out, or set train.lora.variant: lora",
            )

    def trainer(self, lesson: Lesson) -> Trainer:
        """TRL's `SDFTTrainer`: prompts are asked, and their gold answers shown to the teacher."""
        from datasets import Dataset
        from trl.experimental.sdft import SDFTConfig, SDFTTrainer

        asked = [lesson.examples[index] for index in lesson.order]
        for example in asked:
            if example.tools or example.extra or any(turn.extra for turn in example.messages):
                raise TrainingError(
                    f"example {example.id} has tools, calls or thinking, which TRL would not see",
                    remedy="leave sdft out, or train it on plain turns",
                )
        turns = [[{"role": m.role, "content": m.content} for m in e.messages] for e in asked]
        tokenizer = fixed_date(lesson.tokenizer)  # TRL renders with the clock's
        table = {"prompt": turns, "privileged_context": [example.target for example in asked]}
        trainer = SDFTTrainer(
            model=lesson.model,
            args=lesson.config(
                SDFTConfig, **self.arguments(), num_generations=1, max_prompt_length=None,
                shuffle_dataset=False, chat_template_kwargs=variables(tokenizer),
                per_device_train_batch_size=lesson.micro_batch,
            ),
            train_dataset=Dataset.from_dict(table),
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.add_callback(counting(lesson.counts, self.options.skip))
        return trainer

    def arguments(self) -> dict[str, object]:
        """The settings in the words of TRL's ``SDFTConfig``."""
        given = self.options
        template = given.demonstration.replace("{question}", "{prompt}")
        return {
            "teacher_prompt_template": template.replace("{answer}", "{privileged_context}"),
            "distillation_mode": "full_logits" if given.top_k is None else "topk_logits",
            "distillation_topk": given.top_k,
            "distillation_alpha": given.alpha,
            "temperature": given.temperature,
            "max_completion_length": given.max_new_tokens,
            "num_loss_tokens_to_skip": given.skip,
            "teacher_model_kind": "base" if given.ema is None else "ema",
            "teacher_update_rate": 1.0 if given.ema is None else given.ema,
        }


def counting(counts: TokenCounts, skip: int) -> TrainerCallback:
    """What hears from `SDFTTrainer` which tokens were drawn.

    Args:
        counts: is added to.
        skip: first tokens of an answer that have no loss.
    """

    def prepared(
        *, completion_ids: torch.Tensor, teacher_attention_mask: torch.Tensor, **_: object
    ) -> None:
        answers = teacher_attention_mask[:, -completion_ids.shape[1] :]
        counts.add(
            int(answers.sum()), int(answers[:, skip:].sum()), int(teacher_attention_mask.sum())
        )

    return each_step(prepared=prepared)
