"""The `arms:` and `meters:` sections: how arms differ, and what is watched while they train."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from holdfast.config.section import Section

Steps = tuple[dict[str, dict[str, object] | None], ...]


class ArmSpec(Section):
    """How one arm differs from plain fine-tuning: short lists that compose."""

    data: Steps = ()
    """What is trained on, in order: `[selfgen, {replay: {share: 0.1}}]`."""
    loss: Steps = ()
    """What is made of it in a training step: `[{token_mask: {max_perplexity: 2.5}}, kl]`."""
    weights: Steps = ()
    """What becomes of the weights after training: `[{scale: {factors: [0.4, 0.6, 0.8]}}]`."""
    ask: Steps = ()
    """How the tuned model is asked: `[{system_prompt: {text: ...}}]`."""
    train: dict[str, object] = Field({})
    """Settings of `train` that differ here; a list is a sweep: `{learning_rate: [1e-5, 1e-4]}`."""
    source: str | None = Field(None, validation_alias=AliasChoices("from", "source"))
    """Use the training of another arm, or of `base`, and only change `weights` and `ask`. [from]"""

    @field_validator("data", "loss", "weights", "ask", mode="before")
    @classmethod
    def _bare_names(cls, steps: object) -> object:
        if isinstance(steps, str | dict):
            steps = [steps]
        if isinstance(steps, list | tuple):
            return [{step: None} if isinstance(step, str) else step for step in steps]
        return steps

    @field_validator("data", "loss", "weights", "ask")
    @classmethod
    def _one_key(cls, steps: Steps) -> Steps:
        for step in steps:
            if len(step) != 1:
                raise ValueError("each entry is one method with its settings: {replay: {...}}")
        return steps

    @model_validator(mode="after")
    def _nothing_to_train(self) -> Self:
        if self.source and (self.data or self.loss or self.train):
            raise ValueError(
                f"`from: {self.source}` takes over that arm's training; `data`, `loss` and `train` "
                "belong there"
            )
        return self


class MeterSpec(Section):
    """Forgetting seen while training, without old data: the drift on the task's own prompts."""

    probes: int = Field(16, ge=0, le=100_000)
    """Training questions, answered by the untouched model, that the meters read; 0: no meters."""
    stop: dict[Literal["kl", "cross_entropy"], float] = Field({})
    """Stop training when a meter passes this, in nats per token: `{kl: 0.3}`."""

    @model_validator(mode="after")
    def _can_stop(self) -> Self:
        if self.stop and not self.probes:
            raise ValueError("`stop` needs meters: give `probes`")
        if any(limit < 0 for limit in self.stop.values()):
            raise ValueError("`stop`: a limit below 0 would end every training at once")
        return self
