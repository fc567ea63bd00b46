"""Sends a study's figures to trackers: TensorBoard, W&B, MLflow, Trackio, or one of the user's own.

A tracker derives from `Tracker` and is named under ``track:`` by its name in `TRACKERS`, by an
entry point of the group ``holdfast.trackers``, or by its file (``my_tracker.py:Mine``). It runs in
a process of its own (`holdfast.report.trackers.sending`) and reads the run folder, so that one
which fails, hangs or is slow changes nothing of the study.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from holdfast.config import Section
from holdfast.config.arms import Steps
from holdfast.config.load import parse
from holdfast.config.section import made_usable
from holdfast.environment import install_command
from holdfast.errors import MissingDependency, StudyError
from holdfast.registry import Registry
from holdfast.report.trackers.content import AGAIN, STUDY, Batch, Sent, key_of
from holdfast.runs import store
from holdfast.runs.chapters import data_of
from holdfast.runs.plan import Plan
from holdfast.types import BASE, Point

TRACKERS = {
    "tensorboard": "holdfast.report.trackers.tensorboard:TensorBoard",
    "wandb": "holdfast.report.trackers.wandb:WandB",
    "mlflow": "holdfast.report.trackers.mlflow:MLflow",
    "trackio": "holdfast.report.trackers.trackio:Trackio",
}
FOLDER = "tracking"
"""In the run folder: what trackers keep on this machine, and what was sent where."""
END_S = 30.0
"""So long a tracker may go on when its study has ended."""
SECRET = re.compile(
    r"(?<=://)[^/?#\s]*@|\?[^\s'\"]*(?:token|key|secret|passw)[^\s'\"]*", re.IGNORECASE
)
"""Of an address: who asks, or a query with a key."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """One run in a tracker: a training with its seed, the untouched model, or the whole study.

    Attributes:
        key: ``sft/seed1``, ``base`` or ``study``; what figures name it by.
        name: the same, and of a training that was made again the how-manieth it is.
        id: the same whenever the study goes on, and of no other run.
        group: the study, by name; its runs are shown together.
        params: settings by dotted name.
        lineage: model and data that it is made from, by name and hash.
    """

    key: str
    name: str
    id: str
    group: str
    params: Mapping[str, str | int | float | bool]
    lineage: Mapping[str, str]


class Tracker(ABC):
    """Where the figures of a study are shown besides its report.

    Attributes:
        Options: the tracker's keys in a study file.
        package: that it needs; also the extra that installs it. "": none.
        plugin: the name that it is registered under.
        code: a hash of its file, where it is a class in a file of the user's.
        options: the values of `Options`.
        folder: in the run folder, for what it keeps on this machine; made when it is needed.
    """

    Options: ClassVar[type[Section]] = Section
    package: ClassVar[str] = ""
    plugin: str = ""
    code: str = ""

    def __init__(self, options: Any, folder: Path) -> None:
        """Connect to nothing yet."""
        self.options, self.folder = options, folder

    def check(self) -> None:  # noqa: B027
        """Refuse what cannot work before the study begins; asks no server.

        Raises:
            HoldfastError: a key that is not set, a setting that cannot be.
        """

    def destination(self) -> str:
        """Where it sends to; to another place everything is sent anew."""
        return ""

    @abstractmethod
    def start(self, run: TrackedRun) -> None:
        """Begin a run, or go on with the one of its `id`; called once, before anything of it."""

    @abstractmethod
    def send(self, run: TrackedRun, batch: Batch) -> None:
        """Send what is new of a run; when it returns without an error, that has arrived."""

    def finish(self, run: TrackedRun, done: bool) -> None:  # noqa: B027
        """Nothing more comes of a run for now; `done`: the study is finished."""


REGISTRY = Registry("trackers", (Tracker,), TRACKERS)


def build(name: str, options: Mapping[str, object] | None, folder: Path, where: str) -> Tracker:
    """The tracker that a study names, with its settings.

    Args:
        name: registered, an entry point's, or ``path/to/file.py:Class``.
        options: its settings.
        folder: the run folder.
        where: it is named, for messages.

    Raises:
        StudyError: no such tracker, no such setting, or one that holds a secret.
    """
    plugin = REGISTRY.find(name, where)
    made = parse(plugin.make.Options, dict(options or {}), where, at=("track", name))
    for key, value in flat(made.model_dump(mode="json")).items():
        if isinstance(value, str) and SECRET.search(value):
            raise StudyError(
                "holds a user name, password or token, which would be written into the run folder",
                where=f"{where}: track.{name}.{key}",
                remedy="leave it out of the address and set the tracker's environment variable "
                "(docs/tracking.md names them)",
            )
    return plugin.build(made, folder / FOLDER / made_usable(plugin.name))


def named(track: Steps) -> dict[str, Mapping[str, object]]:
    """The trackers of a study's list, each with its settings."""
    return {name: options or {} for one in track for name, options in one.items()}


def of(track: Steps, folder: Path, source: str) -> list[Tracker]:
    """The trackers that the list of a study names.

    Raises:
        StudyError: see `build`.
    """
    return [build(name, options, folder, source) for name, options in named(track).items()]


def ready(tracker: Tracker) -> Tracker:
    """The tracker, if it can work here; nothing is sent.

    Raises:
        MissingDependency: its package is not installed.
        HoldfastError: see `Tracker.check`.
    """
    name = tracker.package
    if name and importlib.util.find_spec(name) is None:
        raise MissingDependency(
            f"tracking with {tracker.plugin} needs the package {name}",
            remedy=f"{install_command(name, name)}, or leave {tracker.plugin} out of `track`",
        )
    tracker.check()
    return tracker


def runs_of(plan: Plan, mark: str, sent: Sent) -> dict[str, TrackedRun]:
    """Every run of a study, by key.

    Args:
        plan: of the study.
        mark: of the sending, so that the same study run anew has other runs.
        sent: what was sent before.
    """
    study, stages = plan.study, {stage.name: stage for stage in plan.stages}
    base = {"model": plan.model.base, "revision": plan.model.revision or "", "study": study.name}
    settings = study.model_dump(mode="json", exclude_unset=True, exclude={"track"})
    found: dict[str, TrackedRun] = {}

    def add(key: str, params: object, lineage: Mapping[str, str]) -> None:
        time = int(sent.get(f"{AGAIN}/{key}", 1))
        name = key if time == 1 else f"{key} ({time})"
        own = hashlib.sha256(f"{mark}/{name}".encode()).hexdigest()[:16]
        found[key] = TrackedRun(key, name, own, study.name, flat(params), lineage)

    add(STUDY, settings, base)
    for point in [*plan.points(), *(Point(arm, seed) for arm, seed in plan.trained)]:
        key = key_of(point)
        if key in found:
            continue
        lineage = dict(base)
        params: dict[str, object] = {"arm": point.arm}
        if point.arm != BASE:
            arm = plan.arms[point.arm]
            params |= {"recipe": arm.recipe, "steps": plan.steps, "train": arm.training}
            params |= {} if point.seed is None else {"seed": point.seed}
            trained = [one.stage for one in plan.trainings(arm.source, point.seed)]
            for name in (*data_of(plan.chapters, arm.source), *trained):
                if (stage := stages.get(name)) is not None:
                    lineage[_mark(name)] = store.fingerprint(stage.identity)
                    lineage["model_identity"] = store.fingerprint(stage.identity.get("model"))
        add(key, params, lineage)
    return found


def _mark(stage: str) -> str:
    """What a stage is in a run's lineage: ``train``; of one for a chapter ``train/2-code``."""
    kind, _, *more = stage.split("/")
    return "/".join([kind, *(more if kind == "data" else more[1:])])


def flat(value: object, prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings by dotted names; lists and what is empty as text."""
    if isinstance(value, Mapping) and value:
        found: dict[str, str | int | float | bool] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    if isinstance(value, str | int | float | bool):
        return {prefix: value}
    if isinstance(value, Sequence) and all(isinstance(one, str | int | float) for one in value):
        return {prefix: ", ".join(map(str, value))}
    return {prefix: "" if value is None else str(value)}
