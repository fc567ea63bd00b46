"""What is known of a study before the first model is loaded?

A `Plan` holds the checked parts of a study and says what is measured where. It is made by
`holdfast.study.plan` and read by everything that comes after.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.config import Sampling, Study
from holdfast.config.sweeps import BASE, Variant, settings_of
from holdfast.data.leakage import LeakIndex
from holdfast.engines.pool import EnginePool
from holdfast.judges import JudgeContext
from holdfast.memory.hardware.devices import GPU
from holdfast.methods import AskMethod, DataMethod, LossMethod, Method, MethodContext, WeightMethod
from holdfast.models import ModelRef
from holdfast.models.external import Foreign
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.stages import Stage
from holdfast.tasks import Task
from holdfast.train import checkpoint_name
from holdfast.types import Example, Point

__all__ = ["BASE", "Arm", "Plan", "place"]

SCORES = "scores.jsonl"
PAID = "paid"
"""In the run folder: the base's losses of answers, by content."""


@dataclass(frozen=True)
class Arm:
    """One arm, its methods built; `foreign` is a model that was trained elsewhere."""

    variant: Variant
    data: tuple[DataMethod, ...] = ()
    loss: tuple[LossMethod, ...] = ()
    weights: tuple[WeightMethod, ...] = ()
    ask: tuple[AskMethod, ...] = ()
    foreign: Foreign | None = field(default=None, kw_only=True)

    @property
    def made(self) -> tuple[DataMethod | LossMethod, ...]:
        """Everything that has a hand in the training set, in order."""
        return (*self.data, *self.loss)

    @property
    def merges(self) -> WeightMethod | None:
        """The method that makes its weights anew, if there is one."""
        return next((one for one in self.weights if one.makes), None)

    @property
    def recipe(self) -> str:
        """All of it in words."""
        if self.foreign is not None:
            return self.foreign.recipe
        every: list[Method] = [*self.data, *self.loss, *self.weights, *self.ask]
        parts = [method.recipe() for method in every]
        variant = self.variant
        parts += [f"{key} {value}" for key, value in _differs(variant).items()]
        if not variant.trains:
            source = (
                "the untouched model" if variant.source == BASE else f"weights of {variant.source}"
            )
            return "; ".join([source, *parts])
        return "; ".join(parts) or "plain fine-tuning on the task's own answers"


def _differs(variant: Variant) -> dict[str, Any]:
    """The settings that the arm itself gives, as they are in this variant."""
    train: Mapping[str, Any] = variant.train.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name in settings_of(variant.spec.train):
        head, _, last = name.rpartition(".")
        found[name] = (train[head] if head else train)[last]
    return found


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
    arms: Mapping[str, Arm]
    leaks: LeakIndex
    pool: EnginePool
    identity: Mapping[str, Any]
    gpus: tuple[GPU, ...] = ()
    stages: list[Stage] = field(default_factory=list)

    def setting(self) -> MethodContext:
        """What the methods may use."""
        target = self.study.target
        return MethodContext(
            self.tasks[target],
            self.plain,
            self.samplings[target],
            lambda: self.pool.engine(self.ref),
            self.leaks,
            self.study.seeds[0],
            self.folder / SCORES,
            {"model": self.identity, "nf4": self.pool.nf4, "bf16": self.study.train.bf16},
            self.pool.charge,
        )

    def desk(self, folder: Path, progress: Progress) -> JudgeContext:
        """What a judge may use."""
        return JudgeContext(folder, progress, self.pool.engine, self.folder / PAID)

    @property
    def trained(self) -> list[tuple[str, int]]:
        """(arm, seed) of every training."""
        return [
            (name, seed)
            for name, arm in self.arms.items()
            if arm.variant.trains
            for seed in self.study.seeds
        ]

    def untouched(self, arm: str) -> bool:
        """Whether nothing is trained for an arm: its weights are the base's own, or foreign."""
        return arm == BASE or self.arms[arm].variant.source == BASE

    def seeds(self, arm: str) -> tuple[int | None, ...]:
        """The seeds of an arm's points; None where there is one point over all of them."""
        if self.untouched(arm):
            return (None,)
        merge = self.arms[arm].merges
        return (None,) if merge is not None and merge.over_seeds else self.study.seeds

    def places(self, arm: str) -> list[tuple[int, float]]:
        """(step, scale) of everything of an arm that is measured, per seed."""
        if self.untouched(arm):
            return [(0, 1.0)]
        found: list[tuple[int, float]] = []
        own = self.arms[arm]
        for step in self.save_at:
            last = step == self.save_at[-1]
            used = [one for one in own.weights if last or one.checkpoints == "all"]
            scales = sorted({factor for one in used for factor in one.factors} - {1.0})
            if own.variant.trains or not own.weights or (own.merges in used):
                found.append((step, 1.0))
            found += [(step, scale) for scale in scales]
        return found

    def points(self) -> list[Point]:
        """Everything that is measured, the untouched model first."""
        tuned = [
            Point(arm, seed, step, scale)
            for arm in self.arms
            for seed in self.seeds(arm)
            for step, scale in self.places(arm)
        ]
        return [Point(BASE), *tuned]

    def weights(self, point: Point) -> ModelRef:
        """The model at one point."""
        if self.untouched(point.arm):
            foreign = None if point.arm == BASE else self.arms[point.arm].foreign
            return self.ref if foreign is None else foreign.ref
        made, full = self.made_in(point), self.study.train.method == "full"
        folder = str(self.folder / made)
        remote = self.ref.trust_remote_code
        if full:
            return ModelRef(folder, None, None, remote)
        return ModelRef(self.ref.base, self.ref.revision, folder, remote, point.scale)

    def made_in(self, point: Point) -> str:
        """The folder of a point's weights below the run folder."""
        own = self.arms[point.arm]
        scaled = self.study.train.method == "full" and point.scale != 1
        if own.merges is not None or scaled:
            return f"weights/{_place(point if scaled else _whole(point))}"
        return self.checkpoint(own.variant.source, point.seed, point.step)

    def ended(self, arm: str, seed: int | None) -> int | None:
        """The step at which a meter ended a training; None: it went to its end."""
        record = self.folder / f"train/{arm}/seed{seed}" / store.RECORD
        if not record.is_file():
            return None
        stopped: int | None = store.read_json(record)["summary"].get("stopped_at")
        return stopped

    def repeated(self, point: Point) -> bool:
        """Whether a point is the same model as an earlier one, because its training had ended."""
        if self.untouched(point.arm):
            return False
        ended = self.ended(self.arms[point.arm].variant.source, point.seed)
        if ended is None or point.step <= ended:
            return False
        return any(
            ended <= step < point.step and scale == point.scale
            for step, scale in self.places(point.arm)
        )

    def checkpoint(self, arm: str, seed: int | None, step: int) -> str:
        """The folder of what a training had come to after `step` steps, or when it ended."""
        step = min(step, self.ended(arm, seed) or step)
        return f"train/{arm}/seed{seed}/{checkpoint_name(step)}"

    def ask(self, arm: str, task: str) -> Sequence[Example]:
        """The items of a task as an arm is asked them."""
        changes = self.arms[arm].ask if arm in self.arms else ()
        found = list(self.asked[task])
        for method in changes:
            found = [method.change(one, task) for one in found]
        return found


def _whole(point: Point) -> Point:
    return Point(point.arm, point.seed, point.step)


def _place(point: Point) -> str:
    parts = [point.arm]
    if point.seed is not None:
        parts.append(f"seed{point.seed}")
    if point.step:
        share = "" if point.scale == 1 else f"@{point.scale:g}"
        parts.append(checkpoint_name(point.step) + share)
    return "/".join(parts)


def place(point: Point, task: str) -> str:
    """The folder of one point below ``replies/``, ``verdicts/`` and ``readings/``."""
    return f"{_place(point)}/{task}"
