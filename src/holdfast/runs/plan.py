"""The plan of a study: what is trained and measured where, as a value that ``plan.json`` holds.

A `Plan` is frozen and holds no engine, no data and no open file. `holdfast.study.plan` makes it,
a run writes it down, and whatever comes later (statistics, report, pruning, shipping) reads it
from the run folder instead of planning again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from holdfast.config import Study
from holdfast.errors import FolderError
from holdfast.runs import records, run_folder, sealed, stages, store
from holdfast.runs.chapters import Chapter, Trained, holding, trainings
from holdfast.runs.stages import PlannedStage
from holdfast.types import BASE, FieldUse, ModelRef, Point, SourceUse

PLAN = "plan.json"
FORMAT = 1
"""Of ``plan.json``; raised whenever an older one can no longer be read."""
NOTICES = "preflight.json"
"""In the run folder: what the checks before the first stage noticed."""
MEMBERS = "members"
"""Folder of what each judge of an ensemble said."""
RUN_AGAIN = "run the study or comparison again: finished stages are kept, the plan is written anew"


@dataclass(frozen=True, slots=True)
class Seat:
    """One judge of an ensemble: its folder below ``members/`` and what it is called in figures."""

    folder: str
    title: str


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """How one ability is measured.

    Attributes:
        name: of its section in the study.
        label: what the figure is, word for word.
        how: split, decoding and judge, in words.
        items: how many are asked.
        inverted: shown as 1 - mean (an unsafe rate).
        unit: of a figure that is no share, see `Task`.
        judge: identity of the judge; empty where the task grades alone.
        judge_title: what the judge is called beside figures.
        seats: the judges of an ensemble, in order; empty for a single judge.
        perplexity: the untouched model scores every reply as well.
        available: items that there are in all; None where the task makes as many as are asked for.
    """

    name: str
    label: str
    how: str
    items: int
    inverted: bool = False
    unit: str = ""
    judge: Mapping[str, object] | None = None
    judge_title: str = ""
    seats: tuple[Seat, ...] = ()
    perplexity: bool = False
    available: int | None = None


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """One arm, sweeps written out.

    Attributes:
        name: of its folders.
        family: the arm of the study file that it belongs to.
        source: the arm whose training it uses: itself, another one, or ``base``.
        recipe: all of it in words.
        training: its settings, as the figures of costs and the model card need them.
        seeds: of its points; ``(None,)`` where there is one point over all seeds.
        places: (step, scale) of everything that is measured, per seed.
        merged: its weights are made of several trainings.
        shared: names of the shared stages that its data or loss rests on.
        asked: how it is asked, where it is asked otherwise: (in words, the settings).
        model: of a model that was trained elsewhere; None for an arm of a study.
    """

    name: str
    family: str
    source: str
    recipe: str
    training: Mapping[str, object]
    seeds: tuple[int | None, ...]
    places: tuple[tuple[int, float], ...]
    merged: bool = False
    shared: tuple[str, ...] = ()
    asked: tuple[tuple[str, Mapping[str, object]], ...] = ()
    model: ModelRef | None = None

    @property
    def trains(self) -> bool:
        """Whether it has a training of its own."""
        return self.source == self.name


@dataclass(frozen=True, repr=False)
class Plan:
    """A checked study, before any model is loaded.

    Attributes:
        study: what the user wrote, ``auto`` resolved.
        folder: the run folder; not written down, so that a run folder can be moved.
        model: the untouched model.
        steps: optimiser steps of every arm and seed; 0 where nothing is trained.
        save_at: the steps after which a checkpoint is measured.
        training_items: examples of the training set, or of those of all chapters.
        nf4: models are measured in 4 bits.
        tasks: by name, in the study's order.
        arms: by name, in the study's order; without ``base``.
        stages: everything that is done, needs first.
        notices: what was found in the data and settings that whoever reads the figures must know.
        fields: what became of every column of the user's data.
        sources: how much of each of its sources was taken.
        chapters: tasks that are learned one after the other; empty where all are at once.
    """

    study: Study
    folder: Path
    model: ModelRef
    steps: int
    save_at: tuple[int, ...]
    training_items: int
    nf4: bool
    tasks: Mapping[str, TaskPlan]
    arms: Mapping[str, ArmPlan]
    stages: tuple[PlannedStage, ...] = ()
    notices: tuple[str, ...] = ()
    fields: tuple[FieldUse, ...] = ()
    sources: tuple[SourceUse, ...] = ()
    chapters: tuple[Chapter, ...] = ()

    def __repr__(self) -> str:
        """One line: what is trained and measured, and where."""
        return (
            f"Plan({self.study.name}: {self.study.model.id}, {len(self.trained)} trainings of "
            f"{self.steps} steps, {len(self.points())} models on {', '.join(self.tasks)}, "
            f"{len(self.stages)} stages in {self.folder})"
        )

    @property
    def trained(self) -> list[tuple[str, int]]:
        """(arm, seed) of every training."""
        trained = [arm.name for arm in self.arms.values() if arm.trains]
        return [(arm, seed) for arm in trained for seed in self.study.seeds]

    @property
    def candidates(self) -> int:
        """Models to choose from."""
        return sum(not self.untouched(point.arm) for point in self.points())

    @property
    def repeats(self) -> range:
        """The further times that base is asked."""
        return range(2, self.study.answer.repeats + 1)

    def untouched(self, arm: str) -> bool:
        """Whether nothing is trained for an arm: its weights are the base's own, or foreign."""
        return arm == BASE or self.arms[arm].source == BASE

    def seeds(self, arm: str) -> tuple[int | None, ...]:
        """The seeds of an arm's points; None where there is one point over all of them."""
        return (None,) if arm == BASE else self.arms[arm].seeds

    def places(self, arm: str) -> tuple[tuple[int, float], ...]:
        """(step, scale) of everything of an arm that is measured, per seed."""
        return ((0, 1.0),) if arm == BASE else self.arms[arm].places

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
            other = None if point.arm == BASE else self.arms[point.arm].model
            return self.model if other is None else other
        folder = str(self.folder / self.made_in(point))
        if self.study.train.method == "full":
            return replace(self.model, base=folder, revision=None)
        return replace(self.model, adapter=folder, scale=point.scale)

    def made_in(self, point: Point) -> str:
        """The folder of a point's weights below the run folder."""
        arm = self.arms[point.arm]
        scaled = self.study.train.method == "full" and point.scale != 1
        if arm.merged or scaled:
            whole = Point(point.arm, point.seed, point.step)
            return f"weights/{point_folder(point if scaled else whole)}"
        return self.checkpoint(arm.source, point.seed, point.step)

    def ended(self, arm: str, seed: int | None) -> int | None:
        """The step at which a meter ended a training; None: it went to its end."""
        record = records.read(self.folder / f"train/{arm}/seed{seed}")
        return None if record is None else record["summary"].get("stopped_at")

    def repeated(self, point: Point) -> bool:
        """Whether a point is the same model as an earlier one, because its training had ended."""
        if self.untouched(point.arm):
            return False
        ended = self.ended(self.arms[point.arm].source, point.seed)
        if ended is None or point.step <= ended:
            return False
        return any(
            ended <= step < point.step and scale == point.scale
            for step, scale in self.places(point.arm)
        )

    def checkpoint(self, arm: str, seed: int | None, step: int) -> str:
        """The folder of what a training had come to after `step` steps, or when it ended."""
        step = min(step, self.ended(arm, seed) or step)
        made = holding(self.trainings(arm, seed), step)
        return f"{made.stage}/{checkpoint_name(step - made.before)}"

    def trained_in(self, arm: str, seed: int | None, step: int) -> str:
        """The stage that trains the weights of a step."""
        return holding(self.trainings(arm, seed), step).stage

    def trainings(self, arm: str, seed: int | None) -> tuple[Trained, ...]:
        """What trains an arm: one training, or one for each chapter."""
        return trainings(self.chapters, arm, seed)


def checkpoint_name(step: int) -> str:
    """The folder of a checkpoint, as transformers names it."""
    return f"checkpoint-{step}"


def point_folder(point: Point) -> str:
    """The folder of one point below ``replies/``: ``sft/seed1/checkpoint-60@0.8``."""
    parts = [point.arm]
    if point.seed is not None:
        parts.append(f"seed{point.seed}")
    if point.step:
        share = "" if point.scale == 1 else f"@{point.scale:g}"
        parts.append(checkpoint_name(point.step) + share)
    return "/".join(parts)


def place(point: Point, task: str) -> str:
    """The folder of one point and task below ``replies/``, ``verdicts/`` and ``readings/``."""
    return f"{point_folder(point)}/{task}"


def again_place(time: int, task: str) -> str:
    """That of one further asking of the base."""
    return f"{BASE}@{time}/{task}"


def member_place(seat: str, where: str) -> str:
    """The folder of what one judge of an ensemble said of one folder of replies."""
    return f"{MEMBERS}/{seat}/{where}"


def write_plan(plan: Plan) -> None:
    """Write ``plan.json`` into the run folder."""
    store.write_sealed(plan.folder / PLAN, to_json(plan))


def to_json(plan: Plan) -> dict[str, object]:
    """A plan as JSON values, without its folder; every stage with its fingerprint."""
    marks = stages.fingerprints(plan.stages)
    return {
        "format": FORMAT,
        "study": plan.study.model_dump(mode="json", exclude_unset=True),
        "model": asdict(plan.model),
        "steps": plan.steps,
        "save_at": plan.save_at,
        "training_items": plan.training_items,
        "nf4": plan.nf4,
        "tasks": [asdict(task) for task in plan.tasks.values()],
        "arms": [asdict(arm) for arm in plan.arms.values()],
        "stages": [{**asdict(stage), "fingerprint": marks[stage.name]} for stage in plan.stages],
        "notices": plan.notices,
        "fields": [asdict(one) for one in plan.fields],
        "sources": [asdict(one) for one in plan.sources],
        **({"chapters": list(map(asdict, plan.chapters))} if plan.chapters else {}),
    }


def read_plan(folder: Path) -> Plan:
    """The plan that a run wrote down; reads this one file and no data.

    Args:
        folder: the run folder.

    Raises:
        FolderError: no run folder, none of this format, or a plan that is missing, torn or of
            another format.
    """
    run_folder.check_run(folder, must_exist=True)
    file = folder / PLAN
    if not file.is_file():
        raise FolderError(f"holds no {PLAN}", where=str(folder), remedy=RUN_AGAIN)
    value = sealed.read(file, RUN_AGAIN)
    found = value.get("format")
    if found != FORMAT:
        raise FolderError(
            f"is of another format ({found}; this version reads {FORMAT})",
            where=str(file),
            remedy=RUN_AGAIN,
        )
    try:
        return _from_json(value, folder)
    except (LookupError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise FolderError(
            f"is not whole: {type(error).__name__}: {error}", where=str(file), remedy=RUN_AGAIN
        ) from error


def _inside(plan: Plan) -> Plan:
    """The plan, if all that it names lies in its folder, and its parts speak of the same tasks.

    Raises:
        ValueError: a name that leads out of it, a seed or step that is no number, another task.
    """
    names = [*plan.tasks, *(one.folder for one in plan.chapters)]
    names += [seat.folder for task in plan.tasks.values() for seat in task.seats]
    for arm in plan.arms.values():
        names += [arm.name, arm.source, *arm.shared]
        numbers = [*(seed for seed in arm.seeds if seed is not None), *dict(arm.places)]
        if not all(type(one) is int for one in numbers):
            raise ValueError(f"seeds and steps of the arm {arm.name!r} are no whole numbers")
        if not all(type(scale) in (int, float) for _, scale in arm.places):
            raise ValueError(f"scales of the arm {arm.name!r} are no numbers")
    for stage in plan.stages:
        names += [stage.name, *stage.needs]
    for name in names:
        parts = name.split("/")
        if {"", ".", ".."} & set(parts) or "\0" in name or name.endswith(".tmp"):
            raise ValueError(f"{name!r} is no place in a run folder")
    rule, tasks = plan.study.ship, {*plan.tasks}
    if tasks != {*plan.study.tasks} or not tasks.issuperset(
        {*rule.retain, *filter(None, [rule.maximize])}
    ):
        raise ValueError("the tasks are not those of its study, or of its rule for shipping")
    return plan


def _from_json(value: Mapping[str, Any], folder: Path) -> Plan:
    return _inside(
        Plan(
            study=Study.model_validate(value["study"]),
            folder=folder,
            model=ModelRef.from_json(value["model"]),
            steps=value["steps"],
            save_at=tuple(value["save_at"]),
            training_items=value["training_items"],
            nf4=value["nf4"],
            tasks={task["name"]: _task(task) for task in value["tasks"]},
            arms={arm["name"]: _arm(arm) for arm in value["arms"]},
            stages=tuple(
                PlannedStage(
                    stage["name"], stage["identity"], tuple(stage["needs"]), stage.get("asks")
                )
                for stage in value["stages"]
            ),
            notices=tuple(value.get("notices", ())),
            fields=tuple(FieldUse(**one) for one in value.get("fields", ())),
            sources=tuple(
                SourceUse(**{**one, "notes": tuple(one["notes"])})
                for one in value.get("sources", ())
            ),
            chapters=tuple(Chapter.from_json(one) for one in value.get("chapters", ())),
        )
    )


def _task(value: Mapping[str, Any]) -> TaskPlan:
    return replace(TaskPlan(**value), seats=tuple(Seat(**seat) for seat in value["seats"]))


def _arm(value: Mapping[str, Any]) -> ArmPlan:
    arm = ArmPlan(**value)
    return replace(
        arm,
        seeds=tuple(value["seeds"]),
        places=tuple((step, scale) for step, scale in value["places"]),
        shared=tuple(value["shared"]),
        asked=tuple((words, settings) for words, settings in value["asked"]),
        model=None if value["model"] is None else ModelRef.from_json(value["model"]),
    )
