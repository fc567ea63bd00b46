"""The whole study file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from holdfast.config.answering import AnswerSpec, TaskSpec
from holdfast.config.arms import ArmSpec, MeterSpec, Steps
from holdfast.config.hardware import HardwareSpec
from holdfast.config.model import ModelSpec
from holdfast.config.section import LONGEST_NAME, NAME, Section, twins, unusable
from holdfast.config.shipping import ShipSpec
from holdfast.config.successive import check_stages
from holdfast.config.training import TrainSpec


class Study(Section):
    """A whole study: a model, what it learns, what it must keep, and the arms to compare."""

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Name of the run folder."""
    model: ModelSpec
    """Hub id, local folder or `lab`; or a mapping with `id`, `revision`, `trust_remote_code`."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (1126,), min_length=1, max_length=1000
    )
    """One training run per arm and seed."""
    tasks: dict[str, TaskSpec] = Field(min_length=1)
    """What is measured; those with `role: target` are trained on, mixed by their `share`."""
    stages: tuple[str, ...] = ()
    """Targets to learn one after the other, not mixed: `[math, code]`, all that there are; every
    task is measured after each of them."""
    train: TrainSpec = TrainSpec()
    """Settings shared by all arms."""
    arms: dict[str, ArmSpec] = Field(default={"sft": ArmSpec()}, min_length=1)
    """The arms; `base`, the untouched model, is always measured and needs no entry."""
    answer: AnswerSpec = AnswerSpec()
    """How the models are asked."""
    meters: MeterSpec = MeterSpec()
    """What is watched while training."""
    ship: ShipSpec = ShipSpec()
    """Which checkpoint may be shipped; see `holdfast ship`."""
    hardware: HardwareSpec = HardwareSpec()
    """Where it runs."""
    track: Steps = ()
    """Where figures go besides the report: `[tensorboard, {mlflow: {uri: ...}}]`; `tensorboard`,
    `wandb`, `mlflow`, `trackio`. Never part of what is measured."""

    @field_validator("name")
    @classmethod
    def _usable(cls, value: str) -> str:
        if why := unusable(value):
            raise ValueError(why)
        return value

    @field_validator("model", mode="before")
    @classmethod
    def _bare_model(cls, value: object) -> object:
        return {"id": value} if isinstance(value, str | Path) else value

    @field_validator("hardware", mode="before")
    @classmethod
    def _auto_hardware(cls, value: object) -> object:
        return {} if value == "auto" else value

    @field_validator("track", mode="before")
    @classmethod
    def _bare_trackers(cls, value: object) -> object:
        if isinstance(value, dict):
            return [{name: options} for name, options in value.items()]
        some = [value] if isinstance(value, str) else value
        if isinstance(some, list | tuple):
            return [{one: None} if isinstance(one, str) else one for one in some]
        return value

    @field_validator("track")
    @classmethod
    def _each_tracker_once(cls, value: Steps) -> Steps:
        if any(len(one) != 1 for one in value):
            raise ValueError("each entry is one tracker with its settings: {mlflow: {...}}")
        names = [name for one in value for name in one]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"{twice[0]} is named twice; `holdfast track` sends to a further place"
            )
        return value

    @field_validator("arms", "tasks", mode="before")
    @classmethod
    def _empty_sections(cls, value: object) -> object:
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names(self) -> Self:
        for kind, names in (("arm", self.arms), ("task", self.tasks)):
            for name in names:
                if why := unusable(name):
                    shown = repr(name) if len(name) <= 60 else f"{name[:40]!r}..."
                    raise ValueError(f"{kind} name {shown}: {why}")
            if same := twins(names):
                raise ValueError(
                    f"{kind} names {' and '.join(map(repr, same))} differ in case only, which is "
                    "one folder on some file systems: rename one"
                )
        if "base" in self.arms:
            raise ValueError("an arm cannot be called 'base': that is the untouched model")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ from each other")
        targets = [name for name, task in self.tasks.items() if task.role == "target"]
        if not targets:
            raise ValueError("at least one task needs `role: target`, which training is for")
        if "stages" in self.model_fields_set:
            check_stages(self.stages, {name: one.role for name, one in self.tasks.items()})
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The names of the tasks that training is for; stages in their order."""
        named = (name for name, task in self.tasks.items() if task.role == "target")
        return self.stages or tuple(named)
