"""The `tasks:` and `answer:` sections: what is measured, and how the models are asked."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from holdfast.config.section import STRICT, Section


class Sampling(Section):
    """How answers are generated; part of the identity of every reply."""

    max_new_tokens: int = Field(512, ge=1, le=1_000_000)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling; only with a temperature."""
    samples: int = Field(1, ge=1, le=100_000)
    """Answers per prompt."""
    seed: int = Field(0, ge=0, lt=2**32)
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
    batch_size: int | None = Field(None, ge=1, le=65_536)
    """Prompts answered together. Left out: by the device."""
    repeats: int = Field(2, ge=1, le=100)
    """How often the untouched model is asked: what differs between them is the noise floor."""
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
    """Which task: `gsm8k`, `ailuminate`, `jsonl`, ..., or a class in a Python file of your own,
    `my_task.py:MyTask`, whose code is run. Left out: the name of the section."""
    role: Literal["target", "retained"] = "retained"
    """`target`: what training is for. `retained`: what must not be lost."""
    split: str = "test"
    """Which split measures."""
    limit: int | None = Field(None, ge=1)
    """Measure only N items, evenly spaced over the split, so that every part is represented."""
    shots: ShotsSpec = ShotsSpec()
    """Worked examples before the question."""
    sampling: dict[str, object] = {}
    """Fields of `answer.sampling` that differ for this task."""
    judge: str | dict[str, dict[str, object] | None] | None = None
    """Who says whether a reply is safe, where the task asks: `refusal`, `{qwen3guard: {...}}`."""

    @field_validator("judge")
    @classmethod
    def _one_judge(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError("name one judge: {qwen3guard: {...}}; several go into `ensemble`")
        return value
