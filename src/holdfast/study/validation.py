"""Holds examples out of a study's training set, so that their loss can be read while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast import tasks
from holdfast.config import TaskSpec, TrainSpec
from holdfast.data.holdout import hold_out, without
from holdfast.data.leakage import LeakIndex
from holdfast.errors import StudyError
from holdfast.methods import EXAMPLES
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.stages import Stage
from holdfast.tasks import Task
from holdfast.train.data import encode_all
from holdfast.types import Example, ModelRef

VALIDATION = "validation"
Split = tuple[list[Example], list[Example], tuple[str, ...]]


def split(
    train: TrainSpec,
    name: str,
    spec: TaskSpec,
    task: Task,
    plain: Sequence[Example],
    leaks: LeakIndex,
    source: str,
) -> Split:
    """What is trained on, what is held out, and what to say of it.

    Args:
        train: how the study trains.
        name: of the target.
        spec: the target as the user wrote it.
        task: the same, built.
        plain: its training set.
        leaks: the evaluation questions; none of them may be held out either, or training would end
            where the evaluation is best.
        source: the study file's name, for messages.

    Raises:
        StudyError: nothing would be left to train on, or the task takes no file of its own.
        DataError: the file cannot be read.
        LeakError: it holds evaluation questions.
    """
    if not train.validates:
        return list(plain), [], ()
    if train.val_size:
        trained, held = hold_out(plain, train.val_size)
    else:
        held = _read(train.val_path, name, spec, task, source)
        leaks.refuse(held, f"{source}: train.val_path")
        trained = without(plain, held)
        if not trained:
            raise StudyError(
                "holds every training question, so nothing is left to train on",
                where=f"{source}: train.val_path",
                remedy="name another file, or use val_size",
            )
    gone = len(plain) - len(trained)
    said = (
        f"{len(held)} examples are held out: no arm trains on them, and their loss is read at "
        "every checkpoint"
    )
    if train.val_path and gone:
        said += f"; {gone} training examples that ask the same are left out"
    return trained, held, (said,)


def stage_of(
    model: ModelRef, train: TrainSpec, held: Sequence[Example], identity: Mapping[str, object]
) -> Stage:
    """The stage that writes down what is held out, once for all arms, encoded to see any fault.

    Args:
        model: whose tokenizer encodes it.
        train: how the study trains.
        held: what is held out.
        identity: of a set of this study's examples.
    """
    asked = [[one.id, one.messages, one.target] for one in held]

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        rows, kept, _ = encode_all(model, held, train)
        store.write_jsonl(folder / EXAMPLES, kept)
        return {"examples": len(kept), "supervised_tokens": sum(r.cost.supervised for r in rows)}

    return Stage(VALIDATION, {**identity, "examples": store.fingerprint(asked)}, make)


def _read(path: str | None, name: str, spec: TaskSpec, task: Task, source: str) -> list[Example]:
    if "train_path" not in type(task.options).model_fields:
        raise StudyError(
            f"the task {task.plugin} has no train_path, so no file can stand beside it",
            where=f"{source}: train.val_path",
            remedy="use val_size, which holds a part of the training set out",
        )
    given = spec.model_dump(exclude_unset=True) | {"train_path": path}
    beside = TaskSpec.model_validate(given)
    return tasks.training_set(tasks.build(name, beside, source), beside)
