"""The `tasks:` and `answer:` sections: what is measured, and how the models are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from holdfast.config.section import STRICT, Section

LATER = ("stop", "top_k", "min_p", "repetition_penalty")
"""Fields of `Sampling` that stand in files and fingerprints only where they are used."""


class Sampling(Section):
    """How answers are generated; part of the identity of every reply."""

    max_new_tokens: int = Field(
        512, ge=1, le=1_000_000, validation_alias=AliasChoices("max_new_tokens", "max_tokens")
    )
    """Longest answer, in tokens, thinking included. [max_tokens]"""
    temperature: float = Field(0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling; only with a temperature."""
    samples: int = Field(
        1, ge=1, le=100_000, validation_alias=AliasChoices("samples", "num_return_sequences")
    )
    """Answers per prompt. [num_return_sequences]"""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the sampling; no effect on greedy decoding."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), validation_alias=AliasChoices("stop", "stop_strings")
    )
    """Texts at which an answer ends, before the first of them; one, or a list. [stop_strings]"""
    top_k: int = Field(0, ge=0)
    """Draw from so many of the likeliest tokens; 0: from all. Only with a temperature."""
    min_p: float = Field(0.0, ge=0, lt=1)
    """Draw from tokens that are at least this share as likely as the likeliest; 0: from all. Only
    with a temperature."""
    repetition_penalty: float = Field(1.0, gt=0)
    """Above 1, tokens that stand in prompt or answer already become less likely
    (arXiv:1909.05858); for greedy decoding too."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one_text(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _sparse(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without later fields that are not used: what was asked without them stays the same."""
        found: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in found.items()
            if name not in LATER or getattr(self, name) != fields[name].default
        }

    @classmethod
    def by_name(cls, given: Mapping[str, object]) -> dict[str, object]:
        """Settings by the fields' own names, so that one source's win over another's."""
        own = {
            str(alias): name
            for name, field in cls.model_fields.items()
            if isinstance(field.validation_alias, AliasChoices)
            for alias in field.validation_alias.choices
        }
        return {own.get(key, key): value for key, value in given.items()}

    @model_validator(mode="after")
    def _several_need_heat(self) -> Self:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several greedy answers are all the same: give a temperature")
        return self


class AnswerSpec(Section):
    """How the models are asked."""

    engine: str = "hf"
    """Where tokens come from: `hf` (here), `vllm` (started here, `hardware.vllm`), `remote`."""
    server: str | None = None
    """For `remote`: where `model` is served, `http://127.0.0.1:8000/v1#name`. Adapters are loaded
    into it; what a server cannot do, such as perplexity, is done here."""
    sampling: Sampling = Sampling()
    """Defaults for every task; a task may override single fields."""
    batch_size: int | None = Field(None, ge=1, le=65_536)
    """Prompts answered together. Left out: as many as memory holds, while more are faster."""
    repeats: int = Field(2, ge=1, le=100)
    """How often the untouched model is asked: what differs between them is the noise floor."""
    quantize: Literal["auto", "none", "nf4"] = "auto"
    """`auto` measures in the precision of training: NF4 after QLoRA, else full precision."""

    @model_validator(mode="after")
    def _a_server_answers(self) -> Self:
        if self.server is not None and self.engine != "remote":
            raise ValueError("server: is what `engine: remote` asks; set engine: remote as well")
        return self


class ShotsSpec(Section):
    """Worked examples put before every question, in training and in measuring alike."""

    n: int = Field(0, ge=0)
    """How many."""
    mode: Literal["fixed", "random"] = "fixed"
    """`fixed`: the same for every question (and never trained on); `random`: drawn per question."""
    seed: int = 1126
    """Seed of the drawing."""


class TaskSpec(Section):
    """One ability. Keys beyond these belong to the task itself (see `holdfast tasks`)."""

    model_config: ClassVar[ConfigDict] = {**STRICT, "extra": "allow"}

    kind: str | None = None
    """Which task, or a file's class, which is run: `my_task.py:MyTask`. Left out: its name here."""
    role: Literal["target", "retained"] = "retained"
    """`target`: what training is for; several are mixed. `retained`: what must not be lost."""
    share: float | None = Field(None, gt=0, le=1)
    """Of a target among several: its share of the training set. Left out: all it has."""
    split: str = "test"
    """Which split measures."""
    limit: int | None = Field(None, ge=1)
    """Measure only N items, evenly spaced over the split, so that every part is represented."""
    shots: ShotsSpec = ShotsSpec()
    """Worked examples before the question."""
    sampling: dict[str, object] = Field({})
    """Fields of `answer.sampling` that differ for this task."""
    judge: str | dict[str, dict[str, object] | None] | None = None
    """Who says whether a reply is safe, where the task asks: `refusal`, `{qwen3guard: {...}}`."""

    @field_validator("judge")
    @classmethod
    def _one_judge(cls, value: object) -> object:
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError("name one judge: {qwen3guard: {...}}; several go into `ensemble`")
        return value
