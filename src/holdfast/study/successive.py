"""What a study learns: all targets at once, or one after the other (`stages`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.config import Study, TrainSpec
from holdfast.config.successive import unfit_for_stages
from holdfast.data.batching import checkpoint_steps, steps_of
from holdfast.data.leakage import LeakIndex
from holdfast.data.text_leaks import normalise
from holdfast.errors import StudyError, located
from holdfast.runs.chapters import Chapter
from holdfast.study import targets
from holdfast.study.abilities import Measuring
from holdfast.study.session import Arm
from holdfast.tasks._targets import named
from holdfast.types import Example, ModelRef

ALONE = {"orthogonal": "loss", "replay_earlier": "data"}
"""Methods that do nothing without stages."""


@dataclass(frozen=True, slots=True)
class ToLearn:
    """What the plain arm of a study learns.

    Attributes:
        plain: its training set; of a study with stages all of them, one after the other.
        held: examples that no arm trains on.
        notices: what to say of these.
        steps: optimiser steps, of all stages together.
        save_at: the steps after which a checkpoint is measured.
        chapters: the stages; empty where all is learned at once.
        plains: the training set of each stage, by task.
    """

    plain: Sequence[Example]
    held: Sequence[Example]
    notices: Sequence[str]
    steps: int
    save_at: tuple[int, ...]
    chapters: tuple[Chapter, ...] = ()
    plains: Mapping[str, Sequence[Example]] = field(default_factory=dict)


def to_learn(
    study: Study, measuring: Measuring, leaks: LeakIndex, model: ModelRef, source: str
) -> ToLearn:
    """What is learned, in how many steps, and when it is measured.

    Args:
        study: with or without `stages`.
        measuring: its tasks.
        leaks: every evaluation question.
        model: whose tokenizer cuts texts.
        source: the study file's name, for messages.

    Raises:
        StudyError: stages that cannot be compared with each other, or settings of no use.
        DataError: there is nothing to train on.
        LeakError: a training set holds evaluation questions.
    """
    train = study.train
    if study.stages:
        return _in_stages(study, measuring, leaks, model, source)
    found = targets.training(study, measuring.tasks, leaks, model, source)
    with located(f"{source}: train"):
        steps = _steps(train, found.plain)
        save_at = checkpoint_steps(steps, train.checkpoints, train.save_steps)
    return ToLearn(found.plain, found.held, found.said, steps, save_at)


def _in_stages(
    study: Study, measuring: Measuring, leaks: LeakIndex, model: ModelRef, source: str
) -> ToLearn:
    _units(study.stages, measuring, source)
    _shared_items(study.stages, measuring, source)
    chapters: list[Chapter] = []
    plains: dict[str, Sequence[Example]] = {}
    before = 0
    for number, name in enumerate(study.stages, 1):
        alone = study.model_copy(update={"stages": (name,)})
        plain = plains[name] = targets.training(alone, measuring.tasks, leaks, model, source).plain
        with located(f"{source}: train"):
            steps = _steps(study.train, plain)
            saved = _saved(study.train, steps)
        chapters.append(Chapter(number, name, before, steps, saved, len(plain)))
        before += steps
    return ToLearn(
        [named(name, example) for name, plain in plains.items() for example in plain], (), (),
        before,
        tuple(one.before + step for one in chapters for step in one.save_at),
        tuple(chapters), plains,
    )  # fmt: skip


def _steps(train: TrainSpec, plain: Sequence[Example]) -> int:
    return steps_of(len(plain), train.batch_size, train.num_train_epochs, train.max_steps)


def _saved(train: TrainSpec, steps: int) -> tuple[int, ...]:
    """Steps of a chapter after which it is measured: its last one, unless more are asked for."""
    if {"checkpoints", "save_steps"}.isdisjoint(train.model_fields_set):
        return (steps,)
    return checkpoint_steps(steps, train.checkpoints, train.save_steps)


def _units(stages: Sequence[str], measuring: Measuring, source: str) -> None:
    """Refuse a stage whose figure is no share: there would be no accuracy to average.

    Raises:
        StudyError: naming it and its unit.
    """
    for name in stages:
        if unit := measuring.tasks[name].unit:
            raise StudyError(
                f"{name!r} is measured in {unit}, and average accuracy, transfer and forgetting "
                "are of shares of right answers",
                where=f"{source}: stages",
                remedy="take it out of `stages` and make it `role: retained`, or leave `stages` "
                "out, so that it is mixed with the other targets",
            )


def _shared_items(stages: Sequence[str], measuring: Measuring, source: str) -> None:
    """Refuse two stages that are measured by the same items: one would be learned twice.

    Raises:
        StudyError: naming both, and one of the items.
    """
    first: dict[tuple[str, ...], str] = {}
    for name in stages:
        for example in measuring.asked[name]:
            words = normalise(example.question) or (example.question,)
            other = first.setdefault(words, name)
            if other != name:
                raise StudyError(
                    f"{other!r} and {name!r} are measured by the same items, such as "
                    f"{example.question[:80]!r}",
                    where=f"{source}: stages",
                    remedy="give each stage items of its own, or leave one of them out",
                )


def check(study: Study, arms: Mapping[str, Arm], source: str) -> None:
    """Refuse arms and settings that do not go with stages, and those that need them.

    Raises:
        StudyError: naming both.
    """
    for name, arm in arms.items():
        where = f"{source}: arms.{name}"
        for what in _of_stages(arm) if not study.stages else ():
            raise StudyError(
                f"{what} works from stage to stage, and this study has no stages",
                where=where,
                remedy="name the tasks to learn one after the other under `stages`",
            )
        for setting, why in unfit_for_stages(arm.train) if study.stages and arm.trains else ():
            raise StudyError(
                f"train.{setting} does not go with `stages`: {why}",
                where=where,
                remedy=f"leave train.{setting} out",
            )
    if study.stages and study.meters.stop:
        raise StudyError(
            "meters.stop does not go with `stages`: a stage that ends early would leave the next "
            "ones another start than in other arms",
            where=source,
            remedy="leave meters.stop out",
        )


def _of_stages(arm: Arm) -> Iterator[str]:
    """What an arm has that needs stages."""
    yield from (one.plugin for one in arm.made if one.plugin in ALONE)
    yield from (f"{one.plugin} with `stages: true`" for one in arm.weights if one.over_stages)
