"""What training is for: one target, or several mixed into one training set, texts cut into windows.

Of a study with stages every stage is one target (`study.successive`).

Each target's examples are read, compared with all that measures, and held out from before they are
mixed. A target with a `share` gives so much of the examples that result, drawn by `SEED`; one
without gives all it has. Texts are one stream of documents, each with the token that ends a text
behind it, cut into windows (`data.windows`); a window counts as one example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast import models, tasks
from holdfast.config import Sampling, Study
from holdfast.config.data import SourceSpec
from holdfast.data.encoding import IDS, ending_ids
from holdfast.data.leakage import LeakIndex
from holdfast.data.sources import Source, drawn
from holdfast.data.windows import USUAL, end_to_end
from holdfast.errors import DataError, StudyError, located
from holdfast.memory.model.reading import read_shape
from holdfast.methods import TASK
from holdfast.study import validation
from holdfast.tasks import Task
from holdfast.tasks._targets import named, of
from holdfast.types import Example, ModelRef

SEED = 1126
"""Draws the examples of a target with a share, the same ones for every arm and seed."""
NOTICED = 0.02
"""A share of a target that methods change by so much is told."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What plain training learns.

    Attributes:
        plain: the training set.
        held: what no arm trains on.
        said: what a reader must know of both.
    """

    plain: list[Example]
    held: list[Example]
    said: tuple[str, ...]


def sampling(samplings: Mapping[str, Sampling], targets: Sequence[str]) -> Sampling:
    """How the model's own answers to training questions are drawn; of several targets, alike.

    The longest answers of any target are allowed for.

    Args:
        samplings: of all tasks.
        targets: one or more, those that are asked questions.

    Raises:
        StudyError: they are asked in ways that differ otherwise.
    """
    first, *others = (samplings[name] for name in targets)
    most = max(one.max_new_tokens for one in (first, *others))
    found = first.model_copy(update={"max_new_tokens": most})
    for name, other in zip(targets[1:], others, strict=True):
        if other.model_copy(update={"max_new_tokens": most}) != found:
            raise StudyError(
                f"the targets {targets[0]} and {name} are sampled differently, and the model's own "
                "answers to training questions are drawn in one way",
                where=f"tasks.{name}.sampling",
                remedy="give both the same sampling; max_new_tokens may differ",
            )
    return found


def with_width(study: Study, built: Mapping[str, Task], model: ModelRef) -> Study:
    """The study with `train.max_length` as wide as its windows, where it trains on text alone."""
    if study.train.max_length is not None or any(built[one].chats for one in study.targets):
        return study
    width = min(USUAL, read_shape(model.base, model.revision).max_positions)
    return study.model_copy(update={"train": study.train.model_copy(update={"max_length": width})})


def training(
    study: Study, built: Mapping[str, Task], leaks: LeakIndex, model: ModelRef, source: str
) -> Trained:
    """The plain arm's training set.

    Args:
        study: what the user wrote, with the width of windows (`with_width`).
        built: its tasks.
        leaks: all that measures.
        model: whose tokenizer cuts texts.
        source: the study file's name, for messages.

    Raises:
        UsageError: see `tasks.training_set`, `validation.split`, `sources.drawn`; or settings that
            do not go with text or with several targets.
        LeakError: training data that gives away what measures.
    """
    _check(study, built, source)
    every: list[Example] = []
    for name in study.targets:
        with located(f"{source}: tasks.{name}"):
            mine = tasks.training_set(built[name], study.tasks[name], study.train.keep_shortest)
        leaks.refuse(mine, f"{source}: tasks.{name}")
        every += mine if len(study.targets) == 1 else [named(name, one) for one in mine]
    first = study.targets[0]
    with located(f"{source}: train"):
        plain, held, said = validation.split(
            study.train, first, study.tasks[first], built[first], every, leaks, source
        )
    told = list(said)
    plain = _mixed(study, built, model, plain, source, told)
    held = _mixed(study, built, model, held, source, None) if held else held
    return Trained(plain, held, tuple(told))


def _check(study: Study, built: Mapping[str, Task], source: str) -> None:
    """Refuse settings that do not go with several targets, or with text."""
    targets, train = study.targets, study.train
    for name, spec in study.tasks.items():
        if spec.sampling and not built[name].chats:
            raise StudyError(
                "sampling: no answers are drawn where texts are measured by their loss",
                where=f"{source}: tasks.{name}",
                remedy="leave it out",
            )
        if spec.share is not None and study.stages:
            raise StudyError(
                "share: is of targets that are mixed, and `stages` are learned one after the other",
                where=f"{source}: tasks.{name}",
                remedy="leave it out; max_steps and num_train_epochs say how long a stage is "
                "trained",
            )
        if spec.share is not None and (len(targets) == 1 or name not in targets):
            raise StudyError(
                "share: is of one target among several",
                where=f"{source}: tasks.{name}",
                remedy="leave it out, or give another task `role: target`",
            )
    if len(targets) > 1 and train.val_path:
        raise StudyError(
            "is a file in the form of one target's train_path, and there are several targets",
            where=f"{source}: train.val_path",
            remedy="use val_size, which holds out of all of them",
        )
    texts = [name for name in targets if not built[name].chats]
    idle = {
        "keep_shortest": train.keep_shortest < 1,
        "train_on": train.train_on != "last",
        "cut_template_header": train.cut_template_header,
    }
    for key in [key for key, given in idle.items() if given and texts]:
        raise StudyError(
            f"{key}: is of conversations, and {texts[0]} is plain text",
            where=f"{source}: train",
            remedy=f"leave {key} out",
        )


def _mixed(
    study: Study,
    built: Mapping[str, Task],
    model: ModelRef,
    every: Sequence[Example],
    source: str,
    told: list[str] | None,
) -> list[Example]:
    """The targets' examples, texts as windows, as many of each as its share says.

    Args:
        study: see `training`.
        built: see `training`.
        model: see `training`.
        every: all examples, those of several targets `named`.
        source: see `training`.
        told: gets what to say; None: nothing is drawn, all are taken.
    """
    targets = study.targets
    parts: list[list[Example]] = []
    for name in targets:
        mine = list(every) if len(targets) == 1 else of(name, every)
        if mine and not built[name].chats:
            mine = _windows(model, mine, study.train.max_length, name, told)
        parts.append(mine)
    if len(targets) == 1:
        return parts[0]
    if told is not None:
        parts = _drawn(study, parts, source, told)
    return [named(name, one) for name, mine in zip(targets, parts, strict=True) for one in mine]


def _drawn(
    study: Study, parts: Sequence[list[Example]], source: str, told: list[str]
) -> list[list[Example]]:
    shares = {name: study.tasks[name].share for name in study.targets}
    sources = [
        Source(SourceSpec(path=name, share=share), "train", f"{source}: tasks.{name}", name)
        for name, share in shares.items()
    ]
    rows = drawn(sources, [len(part) for part in parts], SEED)
    found = [[part[at] for at in mine] for part, mine in zip(parts, rows, strict=True)]
    whole = sum(map(len, found))
    for name, part, taken in zip(study.targets, parts, found, strict=True):
        told.append(
            f"{name}: {len(taken):,} of its {len(part):,} training examples are taken, "
            f"{100 * len(taken) / whole:.1f} % of the training set"
        )
    return found


def _windows(
    model: ModelRef,
    documents: Sequence[Example],
    width: int | None,
    name: str,
    told: list[str] | None,
) -> list[Example]:
    """Documents as windows of one stream."""
    tokenizer = models.load_tokenizer(model, chats=False)
    positions = read_shape(model.base, model.revision).max_positions
    width = min(width or USUAL, positions)
    streams = [ending_ids(tokenizer, one.target or "") for one in documents]
    found = end_to_end(streams, width)
    if told is not None:
        told.append(
            f"{name}: {len(documents):,} documents of {sum(map(len, streams)):,} tokens in all are "
            f"learned in {len(found):,} windows of up to {width:,} tokens"
        )
    return [
        Example(
            f"window-{number}", (), tokenizer.decode(ids), documents[0].source, {IDS: list(ids)}
        )
        for number, ids in enumerate(found, start=1)
    ]


def told_shares(task: Task, plain: Sequence[Example], made: Sequence[Example]) -> list[str]:
    """What methods left of several targets' examples, where it is another share than before.

    Args:
        task: all targets as one.
        plain: the training set as the targets gave it.
        made: what the methods of an arm made of it.

    Raises:
        DataError: nothing is left of one of them.
    """
    if len(task.parts) == 1:
        return []
    own = [one for one in made if one.meta.get("kind", TASK) == TASK]
    before, after = (Counter(map(task.target_of, some)) for some in (plain, own))
    if gone := [name for name in before if not after[name]]:
        raise DataError(
            f"nothing is left to learn of {', '.join(gone)}: no answer to its questions could be "
            "used",
            remedy="draw more samples, take easier questions of it, or make it no target of this "
            "study",
        )
    shares = {name: (before[name] / len(plain), after[name] / len(own)) for name in before}
    return [
        f"{name} is {now:.0%} of the task's own examples, where {then:.0%} were asked for"
        for name, (then, now) in shares.items()
        if abs(now - then) >= NOTICED
    ]
