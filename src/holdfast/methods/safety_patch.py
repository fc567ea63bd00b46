"""Safety patch: a few steps on one refusal, after training.

One general refusal, learned for ten epochs at a low rate, is reported to bring a fine-tuned model's
refusals back at no cost to the task (arXiv:2601.01887). The authors choose that one example out of
256 by a search over two nested problems, and say that general refusals do better than those of one
hazard and that more examples do worse; here the user names it. Every step is plain AdamW without
decay on the loss of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from holdfast import models
from holdfast.config import Section
from holdfast.data import chat
from holdfast.errors import TrainingError
from holdfast.memory.loading import loading
from holdfast.memory.out_of_memory import RAISED, failure_of, is_out_of_memory, unrecoverable
from holdfast.methods import Making, MethodContext, WeightMethod, _own_answers
from holdfast.models import adapter_weights, lora_files, precision
from holdfast.models.finite import not_finite
from holdfast.runs import store
from holdfast.types import Example, Message

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

SCALE = 1024.0
"""Of the loss in float16, where small gradients would vanish; they are divided by it again."""


class SafetyPatch(WeightMethod):
    """Train another arm's adapter a little longer, on one refusal."""

    options: Options

    class Options(Section):
        """Settings of ``safety_patch``."""

        prompt: str | None = None
        """The request that is to be refused; goes with `answer`."""
        answer: str | None = None
        """The refusal."""
        path: str | None = None
        """Or a jsonl with prompts and answers, in any form the task `jsonl` reads; one as
        published."""
        epochs: int = Field(10, ge=1)
        """How often each example is learned; 10 as published."""
        learning_rate: float = Field(2e-5, gt=0)
        """2e-5 as published."""
        checkpoints: Literal["last", "all"] = "last"
        """Patch the last checkpoint, or every one."""

        @model_validator(mode="after")
        def _has_data(self) -> Self:
            if self.path and (self.prompt is not None or self.answer is not None):
                raise ValueError("give `prompt` and `answer`, or `path`, and not both")
            own = bool((self.prompt or "").strip()) and bool((self.answer or "").strip())
            half = (self.prompt is None) != (self.answer is None)
            if half or own == bool(self.path):
                raise ValueError("a patch needs safety data: give `prompt` and `answer`, or `path`")
            return self

    loads = True

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.checkpoints = options.checkpoints

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        what = f"examples of {Path(given.path).name}" if given.path else "one refusal"
        return f"patched: {given.epochs} epochs on {what} at {given.learning_rate:g}"

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        own = self.options.model_dump(include={"epochs", "learning_rate", "checkpoints"})
        return {**own, "examples": store.fingerprint(self.examples())}

    def check(self, context: MethodContext) -> None:
        """Look at the examples before anything runs.

        Raises:
            DataError: the file is missing, malformed or empty.
            LeakError: they are evaluation questions.
        """
        context.leaks.refuse(self.examples(), self.options.path or "safety_patch")

    def lessons(self) -> tuple[Sequence[Example], int]:
        """See `WeightMethod.lessons`."""
        return self.examples(), self.options.epochs

    def examples(self) -> list[Example]:
        """What is learned."""
        given = self.options
        if given.path:
            return _own_answers.from_file(given.path)
        return [Example("patch", (Message("user", given.prompt or ""),), given.answer, "patch")]

    def make_from(
        self, making: Making, trained: Sequence[Path], folder: Path
    ) -> Mapping[str, object]:
        """See `WeightMethod.make_from`; takes one device, and one example at a time.

        Returns:
            Steps, the tokens that were learned in them (of answers alone, and in all), and the mean
            loss of the answers before and after.

        Raises:
            ModelError: the adapter does not fit the base.
            TrainingError: the weights became NaN or infinite.
            OutOfMemory: the model does not fit one device.
        """
        (source,) = trained
        lora_files.read(source)  # plain products only
        device = models.pick_device(making.device)
        dtype = precision.decide(device, [making.base]).dtype
        with loading():
            base = models.load_model(
                making.base, precision.torch_dtype(dtype), device, nf4=making.nf4
            )
            tuned = trainable(base, source)
        rows = self._rows(making, base)
        given = self.options
        try:
            before = mean_loss(tuned, rows)
            scale = SCALE if dtype == "float16" else 1.0
            learn(tuned, rows * given.epochs, given.learning_rate, scale)
            after = mean_loss(tuned, rows)
        except RAISED as error:
            if not is_out_of_memory(error):
                raise
            raise unrecoverable("forward", "a patch does not fit", failure_of(error)) from error
        finally:
            models.empty_cache()
        weights = ((name, one) for name, one in tuned.named_parameters() if one.requires_grad)
        if (broken := not_finite(weights)) is not None:
            raise TrainingError(
                f"the patched weights are NaN or infinite, first {broken}",
                where="safety_patch",
                remedy="lower safety_patch.learning_rate",
            )
        tuned.save_pretrained(folder)
        return {
            "steps": len(rows) * given.epochs,
            "supervised_tokens": sum(row.cost.supervised for row in rows) * given.epochs,
            "tokens": sum(len(row.ids) for row in rows) * given.epochs,
            "loss_before": before, "loss_after": after,
        }  # fmt: skip

    def _rows(self, making: Making, base: PreTrainedModel) -> list[chat.Encoded]:
        tokenizer = models.load_tokenizer(making.base)
        stops = chat.stop_ids(tokenizer, base.generation_config)
        return [chat.encode(tokenizer, one, stops) for one in self.examples()]


def trainable(base: PreTrainedModel, adapter: Path) -> PeftModel:
    """The base with an adapter that is trained on, without dropout."""
    from peft import PeftModel

    adapter_weights.check(adapter / lora_files.WEIGHTS)
    tuned: PeftModel = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    return tuned.eval()


def learn(model: PeftModel, rows: Sequence[chat.Encoded], rate: float, scale: float = 1.0) -> None:
    """One step of AdamW on each of the rows, in their order.

    Args:
        model: what of it is trained wants gradients.
        rows: encoded, with loss on the answer.
        rate: of learning, the same all along.
        scale: the loss is multiplied by it, and the gradients are divided by it again.
    """
    import torch

    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    for row in rows:
        (_loss(model, row) * scale).backward()
        for one in trained:
            if one.grad is not None:
                one.grad /= scale
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def mean_loss(model: PeftModel, rows: Sequence[chat.Encoded]) -> float:
    """The mean over the rows of the mean loss of their answers' tokens, in nats."""
    import torch

    with torch.no_grad():
        return sum(float(_loss(model, row)) for row in rows) / len(rows)


def _loss(model: PeftModel, row: chat.Encoded) -> torch.Tensor:
    """The mean loss of one answer's tokens."""
    import torch

    ids = torch.tensor([row.ids], device=model.device)
    labels = torch.tensor([row.labels[1:]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, labels[0].to(logits.device))
