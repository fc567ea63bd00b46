"""The `train:` section: how a model is trained, as every arm inherits it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from holdfast.config.lora import LoraSpec
from holdfast.config.names import ELSEWHERE, own_names, spelled_out
from holdfast.config.section import Section

ANY_PRECISION: tuple[Literal["bfloat16", "float16", "float32"], ...] = (
    "bfloat16", "float16", "float32",
)  # fmt: skip
"""What may be computed in where nobody says; the best first."""
LATER = {
    "adam_beta1", "adam_beta2", "adam_epsilon", "early_stopping_patience",
    "early_stopping_threshold", "eval_steps", "fp16", "lr_scheduler_kwargs", "neftune_noise_alpha",
    "optim_args", "optim_target_modules", "val_path", "val_size",
}  # fmt: skip
"""Settings of `train` that came later: what is at its default is not part of an identity, so that
fingerprints of before stay as they are."""


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
    lr_scheduler_kwargs: dict[str, int | float | bool | str] = Field({})
    """What the schedule takes beyond that: `{min_lr_rate: 0.1}` for `cosine_with_min_lr`."""
    warmup_steps: float = Field(0, ge=0)
    """Steps, or a share of the run when below 1. [warmup_ratio]"""
    num_train_epochs: float = Field(
        2,
        gt=0,
        le=100_000,
        validation_alias=AliasChoices("num_train_epochs", "epochs", "num_epochs"),
    )
    """Rounds over the target's training set; fixes the steps of every arm. [epochs, num_epochs]"""
    max_steps: int | None = Field(None, ge=1, le=10_000_000)
    """Steps, instead of epochs."""
    per_device_train_batch_size: int = Field(
        1,
        ge=1,
        le=65_536,
        validation_alias=AliasChoices("per_device_train_batch_size", "micro_batch_size"),
    )
    """Examples per forward pass. [micro_batch_size]"""
    gradient_accumulation_steps: int | None = Field(None, ge=1, le=65_536)
    """Forward passes per step. Left out: 4, or what `global_batch_size` asks for."""
    global_batch_size: int | None = Field(None, ge=1, le=65_536)
    """Examples per step, instead of `gradient_accumulation_steps`."""
    optim: str = Field("paged_adamw_32bit", validation_alias=AliasChoices("optim", "optimizer"))
    """Any optimiser of transformers. [optimizer]"""
    optim_args: dict[str, int | float | bool | str] = Field({})
    """What the optimiser takes beyond that: `{momentum: 0.9}`, or TRL's "momentum=0.9"."""
    optim_target_modules: str | tuple[str, ...] | None = None
    """Which matrices GaLore and APOLLO project: a list, a regex, or `all-linear`."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Adam's decay of the mean."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's decay of the square."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """Adam's term against a division by zero."""
    max_grad_norm: float = Field(
        1.0, ge=0, validation_alias=AliasChoices("max_grad_norm", "gradient_clipping")
    )
    """Gradient clipping; 0: none. [gradient_clipping]"""
    neftune_noise_alpha: float | None = Field(
        None, gt=0, validation_alias=AliasChoices("neftune_noise_alpha", "noisy_embedding_alpha")
    )
    """NEFTune: noise on the embeddings while training, e.g. 5. [noisy_embedding_alpha]"""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16; `auto`: where the device has it in hardware (on a CPU, only for models
    that are stored in 16 bits); false, with `fp16` left out: float32."""
    fp16: bool | Literal["auto"] = "auto"
    """Compute in float16, with loss scaling; `auto`: on GPUs that only emulate bfloat16 (T4, V100,
    RTX 20), unless they are slow at it or the model overflows; else float32."""
    gradient_checkpointing: bool = Field(
        True, validation_alias=AliasChoices("gradient_checkpointing", "activation_checkpointing")
    )
    """Recompute activations where memory would not suffice without: less memory, more time. On a
    CPU that is decided when a training begins, on GPUs by the memory plan; false: never.
    [activation_checkpointing]"""
    group_by_length: bool = True
    """Batch examples of similar length together."""
    packing: bool = Field(
        False, validation_alias=AliasChoices("packing", "sample_packing", "neat_packing")
    )
    """Several examples in one row of at most `max_length` tokens (left out: the longest example),
    kept apart. [sample_packing, neat_packing]"""
    kernels: Literal["liger"] | None = None
    """`liger`: norms, rotary positions and feed-forward parts by Liger's Triton kernels (GPUs)."""
    torch_compile: bool | Literal["default", "reduce-overhead", "max-autotune"] = False
    """Compile the decoder layers; a word is torch's mode."""
    async_save: bool = False
    """Write checkpoints in the background, from a copy in the host's memory."""
    dataloader_num_workers: int = Field(0, ge=0, le=64)
    """Processes that lay out the micro-batches to come; 0: the training's own, between steps."""
    dataloader_prefetch_factor: int | None = Field(None, ge=1, le=1024)
    """Micro-batches that each of them keeps ready. Left out: 2."""
    completion_only_loss: bool = True
    """Train on the answer only; false: on the whole conversation."""
    train_on: Literal["last", "all"] = "last"
    """Which answers of a conversation are learned: the last one, or every turn of the model."""
    cut_template_header: bool = False
    """Only to reproduce the course's starter: in training, but not when asked, leave out the
    template's system header, up to and including the first end-of-turn token."""
    max_length: int | None = Field(
        None,
        ge=8,
        validation_alias=AliasChoices(
            "max_length", "max_seq_length", "cutoff_len", "sequence_len", "max_seq_len"
        ),
    )
    """Longest conversation in tokens. Left out: the longest example.
    [max_seq_length, cutoff_len, sequence_len, max_seq_len]"""
    overlong: Literal["error", "drop"] = "error"
    """What to do with examples over `max_length`; they are never cut."""
    keep_shortest: float = Field(1.0, gt=0, le=1)
    """Train on the shortest share of the target's training set, e.g. 0.3334 for a third."""
    logging_steps: float = Field(0.1, gt=0)
    """Steps between log lines, or a share of the run when below 1."""
    val_size: float = Field(
        0, ge=0, le=10_000_000, validation_alias=AliasChoices("val_size", "val_set_size")
    )
    """Held out of the target's training set: a share below 1, or so many; the loss of them is read
    at every checkpoint. [val_set_size]"""
    val_path: str | None = None
    """Instead: a file like the target's `train_path`."""
    eval_steps: float | None = Field(None, gt=0)
    """Read that loss every so many steps as well, or every share of the run when below 1."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """End a training at the first checkpoint at which so many readings had not been better."""
    early_stopping_threshold: float = Field(0.0, ge=0)
    """How much lower that loss must be to be better, nats per token."""
    checkpoints: int | None = Field(None, ge=1, le=10_000)
    """How many checkpoints, evenly spaced; each is measured. Left out: as `save_steps` says."""
    save_steps: float = Field(0.1, gt=0)
    """Steps between checkpoints, or a share of the run when below 1."""
    save_total_limit: int | None = Field(None, ge=1)
    """Checkpoints kept per run once all are measured; those on the frontier are never deleted."""
    data_seed: int | None = None
    """Seed of the data order. Left out: the seed of the run."""

    @model_validator(mode="before")
    @classmethod
    def _names_of_elsewhere(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        own = own_names(cls)
        found = spelled_out(values)
        for section, names in ((found, own), (found.get("lora"), own_names(LoraSpec))):
            _once(section, names)
        return found

    @field_validator("lr_scheduler_kwargs", "optim_args", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        if isinstance(value, str):  # "a=1, b=2", as transformers spells it
            pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
            if not all(equals for _, equals, _ in pairs):
                raise ValueError("write a mapping, or name=value with commas between them")
            value = {name.strip(): text.strip() for name, _, text in pairs}
        if not isinstance(value, Mapping):
            return value
        return {name: _number(one) for name, one in value.items()}

    @model_validator(mode="after")
    def _validation(self) -> Self:
        if self.lora.r > 65_536:
            raise ValueError("lora.r: no matrix has a rank beyond 65,536")
        if self.val_size >= 1 and self.val_size != int(self.val_size):
            raise ValueError("val_size: a share below 1, or a whole number of examples")
        if self.val_size and self.val_path:
            raise ValueError("give val_size or val_path, not both")
        early = self.early_stopping_patience is not None
        if (early or self.eval_steps) and not self.validates:
            name = "early_stopping_patience" if early else "eval_steps"
            raise ValueError(f"{name} needs held-out examples: give val_size, e.g. 0.05")
        if self.early_stopping_threshold and not early:
            raise ValueError("early_stopping_threshold needs early_stopping_patience")
        if self.packing and self.neftune_noise_alpha:
            raise ValueError("packing: neftune_noise_alpha's noise would go by the packed row")
        if self.dataloader_prefetch_factor and not self.dataloader_num_workers:
            raise ValueError("dataloader_prefetch_factor needs dataloader_num_workers, e.g. 1")
        return self

    @property
    def validates(self) -> bool:
        """Whether the loss of held-out examples is read while training."""
        return bool(self.val_size or self.val_path)

    def identity(self, leave_out: set[str]) -> dict[str, object]:
        """The settings, without some; of those that came later, only what is in use."""
        found = self.model_dump(mode="json", exclude=leave_out)
        fields = type(self).model_fields
        plain = {name for name in LATER if getattr(self, name) == fields[name].default}
        return {name: value for name, value in found.items() if name not in plain}

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

    def row_tokens(self, longest: int | None) -> int | None:
        """Tokens of the longest row: the longest example, or what a packed row is filled up to."""
        return (self.packing and self.max_length) or longest or self.max_length

    @property
    def of_our_trainer(self) -> str:
        """What is asked for that only Holdfast's own trainer has."""
        names = ("packing", "kernels", "torch_compile")
        return ", ".join(f"train.{name}" for name in names if getattr(self, name))

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


def own_name(key: str) -> str:
    """A setting's own name, dotted below `train`, when it is given under one of its others."""
    head, _, last = key.rpartition(".")
    if head == "lora":
        return f"lora.{own_names(LoraSpec).get(last, last)}"
    if head:
        return key
    return ELSEWHERE[key][0] if key in ELSEWHERE else own_names(TrainSpec).get(key, key)


def _once(section: object, names: Mapping[str, str]) -> None:
    """Refuse one setting under two of its names."""
    given: dict[str, str] = {}
    for key in section if isinstance(section, Mapping) else ():
        own = names.get(str(key))
        if own in given:
            raise ValueError(f"{given[own]} and {key} are one setting: give it once")
        if own is not None:
            given[own] = str(key)


def _number(value: object) -> object:
    """YAML reads 1e-6 as a text; so does a command line."""
    if isinstance(value, str):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(value)
    return value
