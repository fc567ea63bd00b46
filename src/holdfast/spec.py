"""What may a human write in a study file?

One frozen model per section, one docstring under each field (they are also the JSON schema's
descriptions). Unknown keys are refused with the nearest known one. The names are those of
transformers and TRL; the short names in brackets are accepted too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

STRICT = ConfigDict(
    frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True
)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """The base of every section: frozen, unknown keys refused."""

    model_config = STRICT


class ModelSpec(Section):
    """Which model to start from."""

    id: str
    """Hub id, local folder, or `lab` for the built-in model."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models you trust."""


class Sampling(Section):
    """How answers are generated; part of the identity of every reply."""

    max_new_tokens: int = Field(512, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling; only with a temperature."""
    samples: int = Field(1, ge=1)
    """Answers per prompt."""
    seed: int = Field(0, ge=0)
    """Seed of the sampling; no effect on greedy decoding."""

    @model_validator(mode="after")
    def _several_need_heat(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several greedy answers are all the same: give a temperature")
        return self


class AnswerSpec(Section):
    """How the models are asked."""

    engine: str = "hf"
    """Where tokens come from: `hf` (transformers, here)."""
    sampling: Sampling = Sampling()
    """Defaults for every task; a task may override single fields."""
    batch_size: int | None = Field(None, ge=1)
    """Prompts answered together. Left out: by the device."""
    quantize: Literal["auto", "none", "nf4"] = "auto"
    """`auto` measures in the precision of training: NF4 after QLoRA, else full precision."""


class ShotsSpec(Section):
    """Worked examples put before every question, in training and in measuring alike."""

    n: int = Field(0, ge=0)
    """How many."""
    mode: Literal["fixed", "random"] = "fixed"
    """`fixed`: the same for every question (and never trained on); `random`: drawn per question."""
    seed: int = 1126
    """Seed of the drawing."""


class TaskSpec(BaseModel):
    """One ability. Keys beyond these belong to the task itself (see `holdfast tasks`)."""

    model_config = {**STRICT, "extra": "allow"}

    kind: str | None = None
    """Which task: `gsm8k`, `ailuminate`, `jsonl`, ... Left out: the name of the section."""
    role: Literal["target", "retained"] = "retained"
    """`target`: what training is for. `retained`: what must not be lost."""
    split: str = "test"
    """Which split measures."""
    limit: int | None = Field(None, ge=1)
    """Measure only N items, evenly spaced over the split, so that every part is represented."""
    shots: ShotsSpec = ShotsSpec()
    """Worked examples before the question."""
    sampling: dict[str, Any] = {}
    """Fields of `answer.sampling` that differ for this task."""
    judge: str | None = None
    """Who says whether a reply is safe; only for tasks that need a judge."""


class LoraSpec(Section):
    """Low-rank adapters."""

    r: int = Field(16, ge=1, validation_alias=AliasChoices("r", "lora_r", "rank"))
    """Rank. [lora_r, rank]"""
    alpha: int = Field(16, ge=1, validation_alias=AliasChoices("alpha", "lora_alpha"))
    """Scale: the update is multiplied by alpha / r. [lora_alpha]"""
    dropout: float = Field(
        0.05, ge=0, lt=1, validation_alias=AliasChoices("dropout", "lora_dropout")
    )
    """Dropout on the adapter's input. [lora_dropout]"""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Which layers: `all-linear` or a list such as [q_proj, v_proj]."""


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
    """bfloat16; `auto` where the device does it fast, else float32."""
    gradient_checkpointing: bool = Field(
        True, validation_alias=AliasChoices("gradient_checkpointing", "activation_checkpointing")
    )
    """Recompute activations: less memory, more time. [activation_checkpointing]"""
    group_by_length: bool = True
    """Batch examples of similar length together."""
    completion_only_loss: bool = True
    """Train on the answer only; false: on the whole conversation."""
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
    data_seed: int | None = None
    """Seed of the data order. Left out: the seed of the run."""

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
    def accumulation(self) -> int:
        """Micro-batches per optimiser step."""
        if self.global_batch_size is not None:
            return self.global_batch_size // self.per_device_train_batch_size
        return self.gradient_accumulation_steps or 4

    @property
    def batch_size(self) -> int:
        """Examples per optimiser step under plain training."""
        return self.per_device_train_batch_size * self.accumulation


class ArmSpec(Section):
    """How one arm differs from plain fine-tuning."""

    data: tuple[dict[str, dict[str, Any] | None], ...] = ()
    """Steps that change what is trained on, in order: `[{replay: {share: 0.1}}]`."""

    @field_validator("data", mode="before")
    @classmethod
    def _bare_names(cls, steps: Any) -> Any:
        if isinstance(steps, list | tuple):
            return [{one: None} if isinstance(one, str) else one for one in steps]
        return steps

    @field_validator("data")
    @classmethod
    def _one_key(cls, steps: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for step in steps:
            if len(step) != 1:
                raise ValueError("each entry is one method with its settings: {replay: {...}}")
        return steps


class HardwareSpec(Section):
    """Where it runs; never part of what is measured."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPUs when there are any."""
    gpus: str | None = None
    """Plan for these GPUs instead of those found: `2x24GiB`, `rtx4090`, ..."""
    strategy: str | None = None
    """Insist on one way of placing the work: `single`, `ddp`, `split`, `fsdp2`, `qlora`, ..."""
    allow: tuple[Literal["bf16_adapters", "nf4"], ...] = ()
    """What may be tried after `OutOfMemoryError` although it changes what is learned."""


class Study(Section):
    """A whole study: a model, what it learns, what it must keep, and the arms to compare."""

    name: str = Field(pattern=NAME)
    """Name of the run folder."""
    model: ModelSpec
    """Hub id, local folder or `lab`; or a mapping with `id`, `revision`, `trust_remote_code`."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((1126,), min_length=1)
    """One training run per arm and seed."""
    tasks: dict[str, TaskSpec] = Field(min_length=1)
    """What is measured; exactly one has `role: target`."""
    train: TrainSpec = TrainSpec()
    """Settings shared by all arms."""
    arms: dict[str, ArmSpec] = Field(default={"sft": ArmSpec()}, min_length=1)
    """The arms; `base`, the untouched model, is always measured and needs no entry."""
    answer: AnswerSpec = AnswerSpec()
    """How the models are asked."""
    hardware: HardwareSpec = HardwareSpec()
    """Where it runs."""

    @field_validator("model", mode="before")
    @classmethod
    def _bare_model(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str | Path) else value

    @field_validator("hardware", mode="before")
    @classmethod
    def _auto_hardware(cls, value: Any) -> Any:
        return {} if value == "auto" else value

    @field_validator("arms", "tasks", mode="before")
    @classmethod
    def _empty_sections(cls, value: Any) -> Any:
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names(self) -> Self:
        import re

        for kind, names in (("arm", self.arms), ("task", self.tasks)):
            for name in names:
                if not re.match(NAME, name):
                    raise ValueError(f"{kind} name {name!r}: letters, digits, dot, dash only")
        if "base" in self.arms:
            raise ValueError("an arm cannot be called 'base': that is the untouched model")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        targets = [name for name, task in self.tasks.items() if task.role == "target"]
        if len(targets) != 1:
            raise ValueError(f"exactly one task needs `role: target`; found {targets or 'none'}")
        return self

    @property
    def target(self) -> str:
        """The name of the task that training is for."""
        return next(name for name, task in self.tasks.items() if task.role == "target")
