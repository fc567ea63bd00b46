"""The `train:` section: how a model is trained, as every arm inherits it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, model_validator

from holdfast.config.lora import LoraSpec
from holdfast.config.section import Section

ANY_PRECISION: tuple[Literal["bfloat16", "float16", "float32"], ...] = (
    "bfloat16", "float16", "float32",
)  # fmt: skip
"""What may be computed in where nobody says; the best first."""


class TrainSpec(Section):
    """What every arm inherits, so that the budget is equal."""

    method: Literal["auto", "lora", "qlora", "full"] = "lora"
    """LoRA, LoRA on an NF4 base, or all weights; `auto`: one of the first two, by the GPUs."""
    lora: LoraSpec = LoraSpec()
    """Adapter settings."""
    learning_rate: float = Field(2e-4, gt=0, validation_alias=AliasChoices("learning_rate", "lr"))
    """Peak learning rate. [lr]"""
    lr_scheduler_type: str = Field(
        "linear", validation_alias=AliasChoices("lr_scheduler_type", "lr_scheduler")
    )
    """Any schedule of transformers. [lr_scheduler]"""
    warmup_steps: float = Field(0, ge=0)
    """Steps, or a share of the run when below 1."""
    num_train_epochs: float = Field(
        2, gt=0, validation_alias=AliasChoices("num_train_epochs", "epochs", "num_epochs")
    )
    """Rounds over the target's training set; fixes the steps of every arm. [epochs, num_epochs]"""
    max_steps: int | None = Field(None, ge=1)
    """Steps, instead of epochs."""
    per_device_train_batch_size: int = Field(
        1, ge=1, validation_alias=AliasChoices("per_device_train_batch_size", "micro_batch_size")
    )
    """Examples per forward pass. [micro_batch_size]"""
    gradient_accumulation_steps: int | None = Field(None, ge=1)
    """Forward passes per step. Left out: 4, or what `global_batch_size` asks for."""
    global_batch_size: int | None = Field(None, ge=1)
    """Examples per step, instead of `gradient_accumulation_steps`."""
    optim: str = Field("paged_adamw_32bit", validation_alias=AliasChoices("optim", "optimizer"))
    """Any optimiser of transformers. [optimizer]"""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Gradient clipping."""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16; `auto`: where the device has it in hardware (on a CPU, only for models
    that are stored in 16 bits); false, with `fp16` left out: float32."""
    fp16: bool | Literal["auto"] = "auto"
    """Compute in float16, with loss scaling; `auto`: on GPUs that only emulate bfloat16 (T4, V100,
    RTX 20), unless they are slow at it or the model overflows; else float32."""
    gradient_checkpointing: bool = Field(
        True, validation_alias=AliasChoices("gradient_checkpointing", "activation_checkpointing")
    )
    """Recompute activations: less memory, more time. [activation_checkpointing]"""
    group_by_length: bool = True
    """Batch examples of similar length together."""
    completion_only_loss: bool = True
    """Train on the answer only; false: on the whole conversation."""
    train_on: Literal["last", "all"] = "last"
    """Which answers of a conversation are learned: the last one, or every turn of the model."""
    cut_template_header: bool = False
    """Only to reproduce the course's starter: in training, but not when asked, leave out the
    template's system header, up to and including the first end-of-turn token."""
    max_length: int | None = Field(None, ge=8)
    """Longest conversation in tokens. Left out: the longest example."""
    overlong: Literal["error", "drop"] = "error"
    """What to do with examples over `max_length`; they are never cut."""
    keep_shortest: float = Field(1.0, gt=0, le=1)
    """Train on the shortest share of the target's training set, e.g. 0.3334 for a third."""
    logging_steps: float = Field(0.1, gt=0)
    """Steps between log lines, or a share of the run when below 1."""
    checkpoints: int | None = Field(None, ge=1)
    """How many checkpoints, evenly spaced; each is measured. Left out: as `save_steps` says."""
    save_steps: float = Field(0.1, gt=0)
    """Steps between checkpoints, or a share of the run when below 1."""
    save_total_limit: int | None = Field(None, ge=1)
    """Checkpoints kept per run once all are measured; those on the frontier are never deleted."""
    data_seed: int | None = None
    """Seed of the data order. Left out: the seed of the run."""

    @model_validator(mode="after")
    def _one_precision(self) -> Self:
        if self.bf16 is True and self.fp16 is True:
            raise ValueError("give bf16 or fp16, not both")
        return self

    @model_validator(mode="after")
    def _one_batch_size(self) -> Self:
        if self.global_batch_size is not None:
            if self.gradient_accumulation_steps is not None:
                raise ValueError("give global_batch_size or gradient_accumulation_steps, not both")
            if self.global_batch_size % self.per_device_train_batch_size:
                raise ValueError(
                    f"global_batch_size {self.global_batch_size} is not a multiple of "
                    f"per_device_train_batch_size {self.per_device_train_batch_size}"
                )
        return self

    @property
    def precisions(self) -> tuple[Literal["bfloat16", "float16", "float32"], ...]:
        """What may be computed in, the best first; only one where it is said."""
        if self.bf16 is True:
            return ("bfloat16",)
        if self.fp16 is True:
            return ("float16",)
        if self.bf16 is False:
            return ("float32",)
        return ("bfloat16", "float32") if self.fp16 is False else ANY_PRECISION

    @property
    def reference_by_switch(self) -> bool:
        """Whether the trained model with its adapters switched off is exactly the base."""
        return self.method != "full"

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimiser step."""
        if self.global_batch_size is not None:
            return self.global_batch_size // self.per_device_train_batch_size
        return self.gradient_accumulation_steps or 4

    @property
    def batch_size(self) -> int:
        """Examples per optimiser step under plain training."""
        return self.per_device_train_batch_size * self.accumulation
