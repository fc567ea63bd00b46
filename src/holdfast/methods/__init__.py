"""Remedies: how an arm differs from plain fine-tuning.

A method is one entry of one of an arm's four lists: `data` (what is trained on), `loss` (what is
made of it in a training step), `weights` (what becomes of the weights afterwards) and `ask` (how
the tuned model is asked); each list has a base class here. Entries compose in the order in which
they are written. Work that several arms can share (the base's own samples, say) is declared apart,
made once, and found again by its name. Methods never see an evaluation set; what they produce is
checked for leaks by the study. `docs/plugins.md` has worked examples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.config import TrainSpec
from holdfast.config.load import parse
from holdfast.errors import HoldfastError, StudyError
from holdfast.judges import Judge
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead
from holdfast.methods._bases import Configured, WeightMethod
from holdfast.methods._context import Lesson, Making, MethodContext, SharedWork, Target
from holdfast.methods._term import Term
from holdfast.registry import PAGE, Registry
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = [
    "METHODS", "REGISTRY", "AskMethod", "DataMethod", "Lesson", "LossMethod", "Making", "Method",
    "MethodContext", "SharedWork", "Target", "Term", "WeightMethod", "build", "identity_of",
    "shared_of",
]  # fmt: skip

METHODS = {
    # data
    "replay": "holdfast.methods.replay:Replay",
    "replay_earlier": "holdfast.methods.replay_earlier:ReplayEarlier",
    "rewrite": "holdfast.methods.rewrite:Rewrite",
    "selfgen": "holdfast.methods.selfgen:Selfgen",
    # loss
    "dpo": "holdfast.methods.dpo:DPO",
    "ewc": "holdfast.methods.ewc:EWC",
    "first_tokens": "holdfast.methods.first_tokens:FirstTokens",
    "gkd": "holdfast.methods.gkd:GKD",
    "grpo": "holdfast.methods.grpo:GRPO",
    "guardspace": "holdfast.methods.guardspace:GuardSpace",
    "kl": "holdfast.methods.kl:KL",
    "l2_init": "holdfast.methods.l2_init:L2Init",
    "lisa": "holdfast.methods.lisa:Lisa",
    "loss_weight": "holdfast.methods.loss_weight:LossWeight",
    "mask_target": "holdfast.methods.mask_target:MaskTarget",
    "orthogonal": "holdfast.methods.orthogonal:Orthogonal",
    "raft": "holdfast.methods.raft:Raft",
    "sdft": "holdfast.methods.sdft:SDFT",
    "star": "holdfast.methods.star:Star",
    "token_mask": "holdfast.methods.token_mask:TokenMask",
    # weights
    "ema": "holdfast.methods.ema:EMA",
    "fapm": "holdfast.methods.fapm:FAPM",
    "merge": "holdfast.methods.merge:Merge",
    "safelora": "holdfast.methods.safelora:SafeLoRA",
    "safety_patch": "holdfast.methods.safety_patch:SafetyPatch",
    "scale": "holdfast.methods.scale:Scale",
    # ask
    "system_prompt": "holdfast.methods.system_prompt:SystemPrompt",
}
EXAMPLES = "examples.jsonl"
TASK, REPLAY, ANCHOR, PROBE, SAFETY = "task", "replay", "anchor", "probe", "safety"
"""``meta["kind"]`` of a training example: the task's own (when there is none), replayed, one
without cross-entropy that is only compared with the base, one that is only looked at before
training, one that has steps of its own (`Term.phases`)."""


class DataMethod(Configured, ABC):
    """One entry under ``data:`` of an arm. `apply` must be written; the rest has a default.

    Attributes:
        version: raised whenever the same settings would lead to other examples.
        mixes: adds examples of another kind; methods that replace answers must come before it.
    """

    entry = "data"
    mixes: bool = False

    def check(self, context: MethodContext) -> None:
        """Look at the user's own files before anything runs; by default there are none.

        Raises:
            DataError: a file is missing or malformed.
            LeakError: it contains evaluation questions.
        """

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """Work that other arms may share, by default none; pure, decides names only."""
        return []

    @abstractmethod
    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """The new training set, and what the report should say about it.

        Args:
            examples: what the steps before made.
            context: see `MethodContext`.
            made: folder of every piece of shared work by its name.
        """


class LossMethod(Configured):
    """One entry under ``loss:`` of an arm: marks on examples, a `term`, or a `trainer` of its own.

    Attributes:
        version: raised whenever the same settings would lead to other weights.
        mixes: adds examples of another kind.
        resumable: a killed training goes on from its last checkpoint; only asked of a method with
            a trainer of its own, which may hold what no checkpoint does.
        graded: it learns from what the target task's grader says of answers that are drawn in
            training; the grader is then a part of the training's identity, and `Lesson.target` is
            there.
        asks_questions: it asks the training questions itself, as they are given, and looks at no
            other data: nothing may stand under ``data:`` beside it.
        looks: it adds examples that are only looked at, before training.
        judge: whom its shared work asks; None: nobody.
        grows: every stage (`stages` of the study) trains adapters of its own beside those of the
            stages before, which stay as they are.
    """

    entry = "loss"
    mixes: bool = False
    resumable: bool = True
    graded: bool = False
    asks_questions: bool = False
    looks: bool = False
    judge: Judge | None = None
    grows: bool = False

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`; by default there is nothing to look at."""

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """See `DataMethod.shared`; by default none."""
        return []

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """See `DataMethod.apply`; by default the examples stay as they are."""
        return list(examples), []

    def overhead(self) -> MethodOverhead:
        """What it takes of memory in training, beyond plain training; by default nothing."""
        return NOTHING

    def term(self) -> Term | None:
        """What it does in a step of Holdfast's trainer; None: its marks on examples are all."""
        return None

    def trainer(self, lesson: Lesson) -> Trainer:
        """A trainer of TRL's, or of its kind, that trains in the place of Holdfast's.

        It is called once, in the process that trains. The driver adds its callbacks (progress,
        checkpoints, meters), so the trainer must neither save nor report by itself, which is how
        `Lesson.config` sets it.

        Args:
            lesson: model, data and settings.

        Returns:
            An instance of ``transformers.Trainer``, ready for ``train``.
        """
        raise HoldfastError(f"{self.plugin} has no trainer of its own", remedy="use `term`")

    @property
    def own_trainer(self) -> bool:
        """Whether it trains with a `trainer` of its own."""
        return type(self).trainer is not LossMethod.trainer

    @property
    def changes_examples(self) -> bool:
        """Whether it may leave out examples, or change their answers, in ways that nobody knows."""
        return self.plugin not in METHODS and type(self).apply is not LossMethod.apply

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse training settings with which it cannot work; by default none.

        Raises:
            TrainingError: naming the setting.
        """

    def check_steps(self, steps: int) -> None:
        """Refuse a training of so many optimiser steps; by default none.

        Raises:
            StudyError: there are too few for what it does.
        """


class AskMethod(Configured, ABC):
    """One entry under ``ask:`` of an arm. `change` must be written; the rest has a default.

    Attributes:
        version: raised whenever the same settings would lead to other replies.
    """

    entry = "ask"

    @abstractmethod
    def change(self, example: Example, task: str) -> Example:
        """The example as this arm is asked it.

        Args:
            example: as every arm is asked it.
            task: the name of the task in the study.
        """


Method = DataMethod | LossMethod | WeightMethod | AskMethod
REGISTRY: Registry[Method] = Registry(
    "methods", (DataMethod, LossMethod, WeightMethod, AskMethod), METHODS
)


def identity_of(method: Method) -> list[object]:
    """A method as it stands in a stage's identity: name, version, settings, and its file's hash."""
    later = [round(one.mixed(), 9) for one in method.later]
    more = [*([method.code] if method.code else []), *([{"later": later}] if later else [])]
    return [method.plugin, method.version, method.identity(), *more]


def shared_of(method: DataMethod | LossMethod, context: MethodContext) -> list[SharedWork]:
    """A method's shared work; of one in a user's file its identity holds the file's hash."""
    code = {"code": method.code} if method.code else {}
    return [replace(work, identity={**work.identity, **code}) for work in method.shared(context)]


def build(
    name: str,
    options: Mapping[str, object] | None,
    source: str,
    where: str,
    folder: Path | None = None,
) -> Any:
    """The method that one entry of an arm names.

    Args:
        name: of the method, or ``file.py:Class``.
        options: its settings.
        source: the study file's name, for messages.
        where: ``arms.NAME.LIST``; the method must belong to that list.
        folder: from which the path of a file is taken; None: the working folder.

    Raises:
        StudyError: no such method, another list's method, or settings that it does not take.
    """
    found = REGISTRY.find(name, f"{source}: {where}", folder)
    entry, own = where.rpartition(".")[2], found.make.entry
    if own != entry:
        raise StudyError(
            f"{name} is no method of `{entry}:`",
            where=f"{source}: {where}",
            remedy=f"write it under `{own}:` of the arm",
        )
    given = parse(found.make.Options, dict(options or {}), source, at=(where, name))
    try:
        made = found.build(given)
    except StudyError as error:  # of a judge that it builds
        if not error.where.startswith(source):
            error.where = f"{source}: {where}.{error.where or name}"
        raise
    if made.options is None:
        raise StudyError(
            f"{name} sets no options",
            where=f"{source}: {where}",
            remedy=f"call super().__init__(options) in its __init__; {PAGE}",
        )
    return made
