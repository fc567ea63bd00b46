"""A study ready to run: its plan, and everything live that carrying it out needs.

`holdfast.runs.plan.Plan` says what is done; a `Session` holds the tasks, methods, data and engines
that do it. Nothing of a session is written down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from json.encoder import encode_basestring_ascii as encoded
from pathlib import Path
from typing import Any

from holdfast.config import Sampling, Study, TrainSpec
from holdfast.config.successive import grown
from holdfast.config.sweeps import Variant, settings_of
from holdfast.data.batching import Budget, seen_order
from holdfast.data.leakage import LeakIndex
from holdfast.engines.pool import EnginePool
from holdfast.judges import Judge, JudgeContext, members_of
from holdfast.memory.hardware.devices import GPU
from holdfast.methods import (
    METHODS,
    AskMethod,
    DataMethod,
    LossMethod,
    Method,
    MethodContext,
    WeightMethod,
    shared_of,
)
from holdfast.methods._bound import BUDGET, Bound
from holdfast.models.external import ExternalModel
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.chapters import Chapter
from holdfast.runs.plan import ArmPlan, Plan
from holdfast.runs.stages import Stage
from holdfast.study import asking, targets
from holdfast.study.abilities import Measuring
from holdfast.tasks import Task
from holdfast.tasks._targets import as_one
from holdfast.train.data import beginnings, supervised
from holdfast.types import BASE, Example

BASE_LOSSES = "base_losses.jsonl"
"""In the run folder: the untouched model's loss of every token of an answer, by content."""
BASE_ANSWERS = "base_answers"
"""In the run folder: what the untouched model answered for methods and meters, by content."""
ENDPOINT_ANSWERS = "endpoint_answers"
"""In the run folder: what a judge's endpoint answered, by content; it was paid for."""


@dataclass(frozen=True)
class Arm:
    """One arm, its methods built; `foreign` is a model that was trained elsewhere."""

    variant: Variant
    data: tuple[DataMethod, ...] = ()
    loss: tuple[LossMethod, ...] = ()
    weights: tuple[WeightMethod, ...] = ()
    ask: tuple[AskMethod, ...] = ()
    foreign: ExternalModel | None = field(default=None, kw_only=True)

    @property
    def trains(self) -> bool:
        """Whether it has a training of its own."""
        return self.variant.trains

    @property
    def train(self) -> TrainSpec:
        """The study's training settings with the arm's own."""
        return self.variant.train

    def train_in(self, chapter: Chapter | None) -> TrainSpec:
        """Its settings in one chapter: the rank grows where each has adapters of its own."""
        number = chapter.number if chapter and any(one.grows for one in self.loss) else 1
        return grown(self.train, number)

    @property
    def made(self) -> tuple[DataMethod | LossMethod, ...]:
        """Everything that has a hand in the training set, in order."""
        return (*self.data, *self.loss)

    @property
    def merges(self) -> WeightMethod | None:
        """The method that makes its weights anew, if there is one."""
        return next((method for method in self.weights if method.makes), None)

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

    def planned(
        self, study: Study, save_at: Sequence[int], settings: Mapping[str, MethodContext]
    ) -> ArmPlan:
        """The arm as data; of every chapter's setting, by what its shared work is named after."""
        untouched, merge = self.variant.source == BASE, self.merges
        over_seeds = untouched or (merge is not None and merge.over_seeds)
        shared = [
            f"{before}{part.name}"
            for before, setting in settings.items()
            for method in self.made
            for part in shared_of(method, setting)
        ]
        return ArmPlan(
            name=self.variant.name,
            family=self.variant.family,
            source=self.variant.source,
            recipe=self.recipe,
            training=self.train.model_dump(mode="json"),
            seeds=(None,) if over_seeds else study.seeds,
            places=((0, 1.0),) if untouched else self._places(save_at),
            merged=merge is not None,
            shared=tuple(dict.fromkeys(shared)) if self.trains else (),
            asked=tuple((method.recipe(), dict(method.identity())) for method in self.ask),
            model=None if self.foreign is None else self.foreign.ref,
        )

    def _places(self, save_at: Sequence[int]) -> tuple[tuple[int, float], ...]:
        found: list[tuple[int, float]] = []
        for step in save_at:
            last = step == save_at[-1]
            used = [method for method in self.weights if last or method.checkpoints == "all"]
            scales = sorted({factor for method in used for factor in method.factors} - {1.0})
            if self.trains or not self.weights or (self.merges in used):
                found.append((step, 1.0))
            found += [(step, scale) for scale in scales]
        return tuple(found)


def _differs(variant: Variant) -> dict[str, object]:
    """The settings that the arm itself gives, as they are in this variant."""
    train: Mapping[str, Any] = variant.train.model_dump(mode="json")
    found: dict[str, object] = {}
    for name in settings_of(variant.spec.train):
        head, _, last = name.rpartition(".")
        found[name] = (train[head] if head else train).get(last)
    return found


def _row(example: Example) -> str | list[object]:
    """What learning an example depends on, as JSON where it is texts alone, which is quicker."""
    said = example.target
    if example.is_rich or said is None or any(one.extra for one in example.messages):
        return example.content
    turns = (
        f'{{"content": {encoded(one.content)}, "role": "{one.role}"}}' for one in example.messages
    )
    return f"[{encoded(example.id)}, [{', '.join(turns)}], {encoded(said)}]"


@dataclass(frozen=True)
class Session:
    """Everything that carrying a plan out needs.

    Attributes:
        plan: what is done.
        measuring: the abilities that are measured.
        plain: the plain arm's training set; of a study with chapters all of them, one after the
            other, which nothing trains on.
        arms: with their methods, by name.
        leaks: the evaluation questions.
        pool: lends one engine at a time.
        identity: what makes the untouched model this model.
        gpus: that may be used; none on the CPU.
        stages: of the plan, with their code.
        held: examples that no arm trains on; their loss is read while training.
        chapter: the one that this is the session of; None: of the whole study.
        plains: by task, the plain arm's training set of each chapter; empty where there are none.
    """

    plan: Plan
    measuring: Measuring
    plain: Sequence[Example]
    arms: Mapping[str, Arm]
    leaks: LeakIndex
    pool: EnginePool
    identity: Mapping[str, object]
    gpus: tuple[GPU, ...] = ()
    stages: tuple[Stage, ...] = ()
    held: Sequence[Example] = ()
    chapter: Chapter | None = None
    plains: Mapping[str, Sequence[Example]] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """What the user wrote."""
        return self.plan.study

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.plan.folder

    @cached_property
    def parts(self) -> tuple[Session, ...]:
        """A session for each chapter, with its own target, training set and steps; or this one."""
        return tuple(map(self._part, self.plan.chapters)) or (self,)

    def _part(self, one: Chapter) -> Session:
        study = self.study.model_copy(update={"stages": (one.task,)})
        plan = replace(self.plan, study=study, steps=one.steps, save_at=one.save_at)
        return replace(self, plan=plan, chapter=one, plain=self.plains[one.task])

    def named(self, stage: str, work: str = "") -> str:
        """A stage's name with the chapter that it is for: ``data/sft/2-code``; work comes last."""
        parts = [stage, *([self.chapter.folder] if self.chapter else []), *filter(None, [work])]
        return "/".join(parts)

    def part_of(self, stage: str) -> Session:
        """The one of `parts` that a stage of training is for."""
        last = stage.rpartition("/")[2]
        return next((o for o in self.parts if o.chapter and o.chapter.folder == last), self)

    @property
    def before_shared(self) -> str:
        """What the names of shared work begin with, below ``shared/``."""
        return f"{self.chapter.folder}/" if self.chapter else ""

    @cached_property
    def plain_mark(self) -> str:
        """A fingerprint of the plain arm's training set."""
        return store.fingerprint_rows(map(_row, self.plain))

    @cached_property
    def earlier_marks(self) -> list[str]:
        """Fingerprints of the plain training sets of the chapters before this one."""
        return [store.fingerprint_rows(map(_row, one)) for one in self._earlier or ()]

    @cached_property
    def target(self) -> Task:
        """What training is for, as one task."""
        return as_one({name: self.measuring.tasks[name] for name in self.study.targets})

    @property
    def rewarding(self) -> list[Judge]:
        """The judges that must answer while an arm trains, because what they say is its reward."""
        if not any(one.graded for arm in self.arms.values() if arm.trains for one in arm.loss):
            return []
        asked = [one.judge for one in self.target.parts if one.judge is not None]
        return [member for judge in asked for member in members_of(judge)]

    @property
    def target_sampling(self) -> Sampling:
        """How the model's own answers to training questions are drawn."""
        named = self.study.targets
        asked = [name for name in named if self.measuring.tasks[name].chats]
        return targets.sampling(self.measuring.samplings, asked or named[:1])

    @property
    def precision(self) -> dict[str, object]:
        """In which precision the untouched model is measured, and by which server's."""
        train = self.study.train
        more = {} if train.fp16 == "auto" else {"fp16": train.fp16}
        server = {"server": served.identity()} if (served := self.pool.server) else {}
        return {"nf4": self.pool.nf4, "bf16": train.bf16, **more, **server}

    @cached_property
    def thinking_mark(self) -> dict[str, object]:
        """See `asking.thinking_mark`."""
        return asking.thinking_mark(self.plan.model)

    def setting(self, arm: Arm | None = None) -> MethodContext:
        """What the methods may use.

        Args:
            arm: whose methods; None: no arm's, and so without a bound on what is made.
        """
        of = {"model": self.identity, **self.precision}
        return MethodContext(
            self.target,
            self.plain,
            self.target_sampling,
            lambda: self.pool.engine(self.plan.model),
            self.leaks,
            self.study.seeds[0],
            self.folder / BASE_LOSSES,
            of,
            self.pool.charge,
            self.folder / BASE_ANSWERS,
            None if arm is None else self._bound(arm),
            self.plan.steps * self.study.train.batch_size,
            lambda some, every: beginnings(self.plan.model, self.study.train, some, every),
            self.desk,
            self._earlier,
        )

    def _bound(self, arm: Arm) -> Bound:
        """What an arm's training can use; see `Bound`.

        Where other methods change how many tokens an example counts for, twice as many are seen at
        most. An arm in which more than one method replaces answers, a loss method of the user's
        changes examples, or one has a trainer of its own, asks all questions: the one may leave out
        what the other made.
        """
        train = self.study.train
        replacing = [one for one in arm.data if not one.mixes]
        changed = any(one.changes_examples for one in arm.loss)
        other = bool(replacing) or not all(one.mixes for one in arm.loss)
        known = not changed and all(one.plugin in METHODS for one in replacing)
        fills = len(replacing) < 2 and not changed and not any(one.own_trainer for one in arm.loss)
        each = max([getattr(one.options, "keep", 1) for one in replacing], default=1)
        return Bound(
            seen=self.plan.steps * train.batch_size,
            order=self._seen_order,
            cost=lambda examples: supervised(self.plan.model, train, examples),
            items=len(self.plain) * each if known else None,
            slack=2 if other else 1,
            tokens=self._spent if fills else None,
        )

    @property
    def _earlier(self) -> tuple[Sequence[Example], ...] | None:
        """The plain training sets of the chapters before this one; None where there are none."""
        if not self.plan.chapters:
            return None
        before = self.plan.chapters[: self.chapter.number - 1] if self.chapter else ()
        return tuple(self.plains[one.task] for one in before)

    @cached_property
    def _seen_order(self) -> list[int]:
        """The order in which plain training with the first seed sees the training set."""
        return seen_order(len(self.plain), self.order_seed)

    @property
    def order_seed(self) -> int:
        """The seed of the order in which the first seed's plain training sees its examples."""
        given = self.study.train.data_seed
        return self.study.seeds[0] if given is None else given

    @property
    def budget(self) -> Budget:
        """What every training spends; once the stage of the budget is done."""
        return store.read_value(self.folder / self.named(BUDGET) / "budget.json", Budget)

    def _spent(self) -> int:
        """Supervised tokens of every training; once the stage of the budget is done."""
        return self.budget.supervised_tokens

    def averages(self, arm: str) -> tuple[float, ...]:
        """Decays of the moving averages that an arm's training keeps for arms that use it."""
        users = (one for one in self.arms.values() if one.variant.source == arm)
        return tuple(sorted({decay for one in users for m in one.weights for decay in m.averages}))

    @property
    def judges(self) -> list[tuple[str, Judge]]:
        """Everyone who judges, members of several one by one, and where the study names them."""
        tasks = ((f"tasks.{name}", one.judge) for name, one in self.measuring.tasks.items())
        arms = (
            (f"arms.{arm.variant.family}.loss", method.judge)
            for arm in self.arms.values() if arm.trains for method in arm.loss
        )  # fmt: skip
        named = [(where, judge) for where, judge in (*tasks, *arms) if judge is not None]
        return [(f"{where}.judge", one) for where, judge in named for one in members_of(judge)]

    def desk(self, folder: Path, progress: Progress) -> JudgeContext:
        """What a judge may use."""
        return JudgeContext(folder, progress, self.pool.engine, self.folder / ENDPOINT_ANSWERS)

    def ask(self, arm: str, task: str) -> Sequence[Example]:
        """The items of a task as an arm is asked them."""
        found = list(self.measuring.asked[task])
        for method in self.arms[arm].ask if arm in self.arms else ():
            found = [method.change(example, task) for example in found]
        return found
