"""What methods are given: the study's parts, shared work, and a lesson for an own trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from holdfast import models
from holdfast.config import Sampling
from holdfast.data.chat import Encoded
from holdfast.data.leakage import LeakIndex
from holdfast.engines import Engine, Usage
from holdfast.engines.kept import Kept, score
from holdfast.engines.live import Asked, Said
from holdfast.engines.resumable import ask
from holdfast.judges import JudgeContext
from holdfast.methods._bound import Bound
from holdfast.methods._counting import TokenCounts
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.tasks import Task
from holdfast.types import Example, Reply

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainingArguments

Arguments = TypeVar("Arguments", bound="TrainingArguments")
AS_BATCHED: Mapping[str, object] = {
    "per_device_train_batch_size": 1,
    "train_sampling_strategy": "sequential",
    "max_length": None,
    "packing": False,
    "dataset_kwargs": {"skip_prepare_dataset": True},
}
"""Settings under which `SFTTrainer`, or a trainer of its kind, takes `Lesson.micro_batches` as they
are."""

Batch = Sequence[Mapping[str, Sequence[Sequence[float]]]]
"""Rows of `Lesson.micro_batches`: the columns of one, each with a list for every example."""


@dataclass(frozen=True, slots=True)
class MethodContext:
    """What a method may use.

    Attributes:
        task: the target task; its grader says which of the model's own answers are right.
        plain: the plain arm's training set.
        sampling: how the target task is asked.
        engine: opens the untouched base; call it only inside shared work.
        leaks: the evaluation questions, to keep generated prompts apart from them.
        seed: of everything random in the data.
        scores: where the base's losses of answers are kept, shared by all arms; None: nowhere.
        of: what those losses depend on besides the answers.
        charge: is told what they took, by whichever arm they were asked for first.
        answers: where the base's own answers are kept, for all shared work and for a later study
            with a larger budget in the same folder; None: nowhere.
        bound: what the arm's training can use; None: all that can be made is made.
        seen: examples that plain training sees over the whole run; 0: not known.
        beginnings: of each example the texts of its answer after every so many tokens, the whole
            answer last; None: nothing is tokenised here.
        desk: what a judge may use that works in a folder; None: there is none.
        earlier: the plain training sets of the stages before this one, where tasks are learned one
            after the other (`stages`); None where one is learned.
    """

    task: Task
    plain: Sequence[Example]
    sampling: Sampling
    engine: Callable[[], Engine]
    leaks: LeakIndex
    seed: int
    scores: Path | None = None
    of: Mapping[str, object] | None = None
    charge: Callable[[Usage], None] = lambda spent: None
    answers: Path | None = None
    bound: Bound | None = None
    seen: int = 0
    beginnings: Callable[[Sequence[Example], int], list[list[str]]] | None = None
    desk: Callable[[Path, Progress], JudgeContext] | None = None
    earlier: Sequence[Sequence[Example]] | None = None

    @property
    def fills(self) -> bool:
        """Whether questions are asked until the budget is filled, and not all of them."""
        return self.bound is not None and self.bound.tokens is not None

    def ask(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        folder: Path,
        progress: Progress,
        name: str,
    ) -> list[Reply]:
        """What the untouched base answers; for shared work, see `resumable.ask`."""
        kept = None if self.answers is None else Kept(self.answers, self.of)
        return ask(self.engine, examples, sampling, folder, progress, name, kept)

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """The untouched base's loss of each token of each answer; every answer is scored once."""
        losses, spent = score(self.engine, examples, self.scores, self.of)
        self.charge(spent)
        return losses


@dataclass(frozen=True, slots=True)
class SharedWork:
    """Work done once for all arms that ask for the same.

    Attributes:
        name: of the stage below ``shared/``.
        identity: JSON values; the study adds the model's.
        run: fills the folder and returns a summary.
        resumable: see `Stage`.
        needs: see `Stage`.
        need: of works of one name that of the greatest need is done, for all arms.
        asks: what the base is asked: ``questions`` at most, ``expected`` of them, ``samples`` of
            each and ``new_tokens`` of an answer at most; ``turns`` where it writes more than one
            for an answer. By formula, for whoever plans.
    """

    name: str
    identity: Mapping[str, object]
    run: Callable[[Path, Progress], Mapping[str, object]]
    resumable: bool = True
    needs: tuple[str, ...] = ()
    need: int = 0
    asks: Mapping[str, int] | None = None


def asks(questions: int, expected: int, sampling: Sampling) -> dict[str, int]:
    """`SharedWork.asks` of questions that are answered with one sampling."""
    return {
        "questions": questions,
        "expected": min(questions, expected),
        "samples": sampling.samples,
        "new_tokens": sampling.max_new_tokens,
    }


@dataclass(frozen=True, slots=True)
class Making:
    """What a weight method may use besides what was trained.

    Attributes:
        base: the untouched model.
        whole: all weights were trained, and no adapters.
        nf4: the base is loaded in 4 bits, as it was trained.
        device: `auto`, `cpu` or `cuda`.
    """

    base: ModelRef
    whole: bool = False
    nf4: bool = False
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class Target:
    """The task that is learned, for a trainer that draws answers and asks which are right.

    Attributes:
        task: with its grader, and its judge where it needs one.
        sampling: how it is asked where it is measured: what ends an answer, and the like.
    """

    task: Task
    sampling: Sampling


class Drawer(Protocol):
    """Draws answers of the model that trains, with the weights that it has by then."""

    def answers(self, asked: Sequence[Asked], sampling: Sampling) -> list[Said]:
        """One answer for each row, in order; see `holdfast.engines.live.Live.answers`."""


@dataclass(frozen=True)
class Lesson:
    """All that a trainer of a method's own needs.

    Attributes:
        model: the student: the base with fresh adapters, on its device. The base is the same model
            with them switched off (``model.disable_adapter()``).
        ref: the base, by name.
        examples: the training set.
        rows: the same, encoded, with loss on the answers only.
        order: which of them is seen when: `steps` times the same number of places in `rows`.
        steps: optimiser steps.
        micro_batch: examples per forward pass; divides those of a step.
        settings: arguments for any subclass of transformers' ``TrainingArguments`` (`config`).
        collate: dataset rows of `micro_batches`, padded: ``input_ids``, ``labels`` and
            ``attention_mask``, each of shape (rows, longest).
        dataset: makes a dataset with one row for each group of places in `rows`.
        counts: to be added to by a trainer that generates, or compares with another model.
        target: the task that is learned, for methods that are `graded`; None: for no other.
        served: gives what draws answers of up to so many tokens by a vLLM, with the student's
            adapter of now; None: no server was planned for.
    """

    model: PeftModel
    ref: ModelRef
    examples: Sequence[Example]
    rows: Sequence[Encoded]
    order: Sequence[int]
    steps: int
    micro_batch: int
    settings: Mapping[str, object]
    collate: Callable[[Batch], dict[str, torch.Tensor]]
    dataset: Callable[[Sequence[Sequence[int]]], Dataset]
    counts: TokenCounts
    target: Target | None = None
    served: Callable[[int], Drawer] | None = None

    @property
    def folder(self) -> Path:
        """Of the training: what a trainer keeps there is found again after an interruption."""
        return self.counts.path.parent

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(str(self.settings["seed"]))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The base's."""
        return models.load_tokenizer(self.ref)

    def config(self, kind: Callable[..., Arguments], **more: object) -> Arguments:
        """A trainer's configuration: the study's settings and what is added, on one device.

        Args:
            kind: a subclass of ``TrainingArguments``, e.g. ``trl.DPOConfig``.
            more: its other arguments; they win over the study's.
        """
        accumulation = len(self.order) // self.steps // self.micro_batch
        given = {**self.settings, "gradient_accumulation_steps": accumulation, **more}
        arguments = kind(**given)
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # one process, one GPU; else torch would split every batch
        return arguments

    def batched_config(self, kind: Callable[..., Arguments], **more: object) -> Arguments:
        """`config` for ``SFTTrainer`` and its kind, which read `micro_batches` as they are."""
        return self.config(kind, **{**AS_BATCHED, **more})

    def micro_batches(self) -> Dataset:
        """A dataset with one row per micro-batch, in the order in which they are seen."""
        starts = range(0, len(self.order), self.micro_batch)
        return self.dataset([self.order[start : start + self.micro_batch] for start in starts])
