"""How are TRL's distillation trainers fed, and how is counted what they draw?

The trainers are used as they are. Prompts reach them in the order that was dealt; the untouched
base reaches them as the student with its adapters switched off; tokens are counted where TRL draws
and compares them, because nobody knows beforehand how many there will be.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast import models
from holdfast.data.chat import IGNORED, Encoded
from holdfast.errors import TrainingError
from holdfast.methods.gkd import GKD
from holdfast.methods.sdft import SDFT
from holdfast.models import ModelRef
from holdfast.runs import store
from holdfast.train.data import collate, dataset
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import TrainerCallback

DRAWN = "drawn.jsonl"
"""In the run's folder: the tokens of each step that were drawn, bore loss, and a teacher read."""
SHARED = (
    "output_dir", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "optim",
    "weight_decay", "max_grad_norm", "activation_checkpointing", "bf16", "fp16", "use_cpu", "seed",
    "data_seed", "logging_steps", "logging_nan_inf_filter", "save_strategy", "report_to",
    "remove_unused_columns", "disable_tqdm", "dataloader_pin_memory",
)  # fmt: skip
"""Arguments of our own trainer that hold for TRL's too."""


OLD_NAMES = "`(is_)?gradient_checkpointing"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is taught, and in which order.

    Attributes:
        ref: the base model.
        examples: the training set.
        rows: the same, encoded, with loss on the answers only.
        order: which of them is asked when; `steps` times the same number.
        steps: optimiser steps.
        micro_batch: prompts per forward pass; divides those of a step.
        ours: the arguments that our own trainer would get.
    """

    ref: ModelRef
    examples: Sequence[Example]
    rows: Sequence[Encoded]
    order: Sequence[int]
    steps: int
    micro_batch: int
    ours: Any

    def arguments(self) -> dict[str, Any]:
        """What both of TRL's configurations are given."""
        return {name: getattr(self.ours, name) for name in SHARED} | {
            "gradient_accumulation_steps": len(self.order) // self.steps // self.micro_batch
        }


class Drawn:
    """Counts tokens per optimiser step; what a checkpoint was made of is written before it."""

    def __init__(self, folder: Path, step: int) -> None:
        """Take up the counts in `folder` of the steps up to and including `step`."""
        self.path = folder / DRAWN
        before = store.read_objects(self.path) if step else ()
        self.steps = [one for _, one in before if one["step"] <= step]
        self.generated = self.supervised = self.reference = 0

    def total(self, name: str) -> int:
        """Sum over the steps of one of their counts."""
        return sum(one[name] for one in self.steps)

    def write(self) -> None:
        """Keep the counts."""
        store.write_jsonl(self.path, self.steps)

    def listen(self, trainer: Any) -> None:
        """Wrap what `GKDTrainer` calls to draw and to compare; it tells its callbacks neither."""
        draw, compare = trainer.generate_on_policy_outputs, trainer.generalized_jsd_loss

        def drawing(*arguments: Any) -> Any:
            ids, mask, labels = draw(*arguments)
            self.generated += int((labels != IGNORED).sum())
            return ids, mask, labels

        def comparing(*, labels: Any, **more: Any) -> Any:
            self.supervised += int((labels != IGNORED).sum())
            return compare(labels=labels, **more)

        def teaching(_: Any, inputs: Any, more: Mapping[str, Any]) -> None:
            self.reference += int(more["attention_mask"].sum())

        trainer.generate_on_policy_outputs, trainer.generalized_jsd_loss = drawing, comparing
        trainer.teacher_model.register_forward_pre_hook(teaching, with_kwargs=True)

    def callback(self, skip: int = 0) -> TrainerCallback:
        """What closes a step, and hears from `SDFTTrainer` what was drawn.

        Args:
            skip: first tokens of an answer that bear no loss.
        """
        from transformers import TrainerCallback

        drawn = self

        class Counting(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
            def on_self_distillation_batch_prepared(
                self, *, completion_ids: Any, teacher_attention_mask: Any, **_: Any
            ) -> None:
                answers = teacher_attention_mask[:, -completion_ids.shape[1] :]
                drawn.generated += int(answers.sum())
                drawn.supervised += int(answers[:, skip:].sum())
                drawn.reference += int(teacher_attention_mask.sum())

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                drawn.steps.append({
                    "step": state.global_step,
                    "generated_tokens": drawn.generated,
                    "supervised_tokens": drawn.supervised,
                    "reference_tokens": drawn.reference,
                })  # fmt: skip
                drawn.generated = drawn.supervised = drawn.reference = 0

            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                drawn.write()

        return Counting()


def sdft_trainer(lesson: Lesson, method: SDFT, model: Any) -> Any:
    """TRL's `SDFTTrainer`; it renders conversations with the tokenizer's template, as we do.

    Args:
        lesson: what is asked.
        method: the teacher and the divergence.
        model: the student, with adapters.
    """
    from datasets import Dataset
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    asked = [lesson.examples[index] for index in lesson.order]
    turns = [[{"role": m.role, "content": m.content} for m in one.messages] for one in asked]
    table = {"prompt": turns, "privileged_context": [one.target for one in asked]}
    arguments = SDFTConfig(
        **lesson.arguments(), **method.arguments(), num_generations=1, max_prompt_length=None,
        shuffle_dataset=False, per_device_train_batch_size=lesson.micro_batch,
    )  # fmt: skip
    return SDFTTrainer(
        model=model,
        args=_one_gpu(arguments),
        train_dataset=Dataset.from_dict(table),
        processing_class=models.load_tokenizer(lesson.ref),
    )


def gkd_trainer(lesson: Lesson, method: GKD, model: Any) -> Any:
    """TRL's `GKDTrainer`, with a loss that is a mean over the tokens that it is taken on.

    Args:
        lesson: what is asked.
        method: the teacher and the divergence.
        model: the student, with adapters.

    Raises:
        TrainingError: the teacher has another vocabulary.
    """
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    tokenizer = models.load_tokenizer(lesson.ref)
    order, size = lesson.order, lesson.micro_batch
    slots = [order[start : start + size] for start in range(0, len(order), size)]
    arguments = GKDConfig(
        **lesson.arguments(), **method.arguments(), per_device_train_batch_size=1, packing=False,
        train_sampling_strategy="sequential", max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )  # fmt: skip
    trainer = GKDTrainer(
        model=model,
        teacher_model=_teacher(method, lesson.ref, tokenizer, model),
        args=_one_gpu(arguments),
        data_collator=lambda batch: with_prompts(batch, tokenizer.pad_token_id),
        train_dataset=dataset(lesson.rows, slots),
        processing_class=tokenizer,
    )
    # TRL would divide by the tokens of the gold answers, even where the student's own are compared.
    trainer.model_accepts_loss_kwargs = False
    return trainer


def with_prompts(batch: Sequence[Mapping[str, Any]], pad: int) -> dict[str, Any]:
    """One micro-batch for `GKDTrainer`: conversations, and their prompts to be answered.

    Args:
        batch: one dataset row, see `rows.collate`.
        pad: id of the pad token.

    Returns:
        What `rows.collate` returns, ``prompts`` and ``prompt_attention_mask``, each of shape
        (rows, longest prompt), padded on the left.
    """
    import torch

    prompts = []
    for slot in batch:
        for ids, labels in zip(slot["input_ids"], slot["labels"], strict=True):
            start = next(place for place, label in enumerate(labels) if label != IGNORED)
            prompts.append(list(ids[:start]))
    width = max(map(len, prompts))
    return collate(batch, pad) | {
        "prompts": torch.tensor([[pad] * (width - len(one)) + one for one in prompts]),
        "prompt_attention_mask": torch.tensor(
            [[0] * (width - len(one)) + [1] * len(one) for one in prompts]
        ),
    }


def _teacher(method: GKD, ref: ModelRef, tokenizer: Any, model: Any) -> Any:
    other = method.teacher()
    if other is None:
        return untouched(model)
    if models.load_tokenizer(other).get_vocab() != tokenizer.get_vocab():
        raise TrainingError(
            f"the teacher {other.base} has another vocabulary than {ref.base}",
            remedy="name a larger model of the same family in gkd.teacher",
        )
    teacher = models.load_model(other, model.dtype, model.device.type)
    return teacher.requires_grad_(False).eval()


def untouched(model: Any) -> Any:
    """The base of an adapted model, as a model of its own that shares all its weights.

    Args:
        model: a `PeftModel`; it is not registered as a part, so that moving the base, or putting
            it into evaluation mode, leaves the student alone.
    """
    import torch

    class Base(torch.nn.Module):  # type: ignore[misc]  # mypy does not follow torch
        config = model.config

        def forward(self, **inputs: Any) -> Any:
            with torch.no_grad(), model.disable_adapter():
                return model(**inputs)

    return Base()


def _one_gpu(arguments: Any) -> Any:
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process, one GPU, as in `arguments`
    return arguments


@contextmanager
def quiet() -> Iterator[None]:
    """Keep TRL from saying that these trainers may change, and what it thinks of adapters.

    Its calls of transformers' older names for activation checkpointing are passed over too.
    """
    from trl.import_utils import TRLExperimentalWarning

    log = logging.getLogger("trl.experimental")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TRLExperimentalWarning)
            warnings.filterwarnings("ignore", OLD_NAMES, FutureWarning)
            yield
    finally:
        log.setLevel(before)
