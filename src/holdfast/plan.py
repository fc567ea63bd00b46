"""What is known of a study before the first model is loaded?

A `Plan` holds the checked parts of a study and says what is measured where. It is made by
`holdfast.study.plan` and read by everything that comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.evaluate import EnginePool
from holdfast.leak import LeakIndex
from holdfast.memory.devices import GPU
from holdfast.methods import DataMethod, Setting
from holdfast.models import ModelRef
from holdfast.spec import Sampling, Study
from holdfast.stages import Stage
from holdfast.tasks import Task
from holdfast.train import checkpoint_name
from holdfast.types import Example

BASE = "base"


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the first model is loaded."""

    study: Study
    folder: Path
    ref: ModelRef
    tasks: Mapping[str, Task]
    samplings: Mapping[str, Sampling]
    asked: Mapping[str, Sequence[Example]]
    plain: Sequence[Example]
    steps: int
    save_at: tuple[int, ...]
    methods: Mapping[str, Sequence[DataMethod]]
    leaks: LeakIndex
    pool: EnginePool
    identity: Mapping[str, Any]
    gpus: tuple[GPU, ...] = ()
    stages: list[Stage] = field(default_factory=list)

    def setting(self) -> Setting:
        """What the methods may use."""
        target = self.study.target
        return Setting(
            self.tasks[target],
            self.plain,
            self.samplings[target],
            lambda: self.pool.engine(self.ref),
            self.leaks,
            self.study.seeds[0],
        )

    def points(self) -> list[tuple[str, int | None, int]]:
        """Everything that is measured, as (arm, seed, step); the base has no seed and step 0."""
        tuned = [
            (arm, seed, step)
            for arm in self.study.arms
            for seed in self.study.seeds
            for step in self.save_at
        ]
        return [(BASE, None, 0), *tuned]

    def weights(self, arm: str, seed: int | None, step: int) -> ModelRef:
        """The model at one point."""
        if arm == BASE:
            return self.ref
        made = str(self.folder / "train" / arm / f"seed{seed}" / checkpoint_name(step))
        remote = self.ref.trust_remote_code
        if self.study.train.method == "full":
            return ModelRef(made, None, None, remote)
        return ModelRef(self.ref.base, self.ref.revision, made, remote)


def place(arm: str, seed: int | None, step: int, task: str) -> str:
    """The folder of one point below ``replies/``, ``verdicts/`` and ``readings/``."""
    return f"{BASE}/{task}" if arm == BASE else f"{arm}/seed{seed}/{checkpoint_name(step)}/{task}"
