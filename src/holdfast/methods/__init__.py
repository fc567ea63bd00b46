"""How does an arm differ from plain fine-tuning?

A method is one entry of one of an arm's four lists: `data` (what is trained on), `loss` (what is
made of it in a training step), `weights` (what becomes of the weights afterwards) and `ask` (how
the tuned model is asked). Entries compose in the order in which they are written. Work that several
arms can share (the base's own samples, say) is declared apart, made once, and found again by its
name. Methods never see an evaluation set; what they produce is checked for leaks by the study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from holdfast.config import Sampling, Section
from holdfast.config.load import parse
from holdfast.data.leakage import LeakIndex
from holdfast.engines import Engine, Usage
from holdfast.engines.resumable import score
from holdfast.errors import StudyError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.progress import Progress
from holdfast.registry import resolve
from holdfast.tasks import Task
from holdfast.types import Example

METHODS = {
    # data
    "replay": "holdfast.methods.replay:Replay",
    "rewrite": "holdfast.methods.rewrite:Rewrite",
    "selfgen": "holdfast.methods.selfgen:Selfgen",
    # loss
    "ewc": "holdfast.methods.ewc:EWC",
    "gkd": "holdfast.methods.gkd:GKD",
    "kl": "holdfast.methods.kl:KL",
    "l2_init": "holdfast.methods.l2_init:L2Init",
    "loss_weight": "holdfast.methods.loss_weight:LossWeight",
    "sdft": "holdfast.methods.sdft:SDFT",
    "token_mask": "holdfast.methods.token_mask:TokenMask",
    # weights
    "merge": "holdfast.methods.merge:Merge",
    "scale": "holdfast.methods.scale:Scale",
    # ask
    "system_prompt": "holdfast.methods.system_prompt:SystemPrompt",
}
EXAMPLES = "examples.jsonl"
Entry = Literal["data", "loss", "weights", "ask"]
TASK, REPLAY, ANCHOR, PROBE = "task", "replay", "anchor", "probe"
"""``meta["kind"]`` of a training example: the task's own (when there is none), replayed, one that
bears no cross-entropy but is held to the base, one that is only looked at before training."""


@dataclass(frozen=True, slots=True)
class Setting:
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
    """

    task: Task
    plain: Sequence[Example]
    sampling: Sampling
    engine: Callable[[], Engine]
    leaks: LeakIndex
    seed: int
    scores: Path | None = None
    of: Mapping[str, Any] | None = None
    charge: Callable[[Usage], None] = lambda usage: None

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """The untouched base's loss of each token of each answer; every answer is scored once."""
        losses, spent = score(self.engine, examples, self.scores, self.of)
        self.charge(spent)
        return losses


@dataclass(frozen=True, slots=True)
class Shared:
    """Work done once for all arms that ask for the same.

    Attributes:
        name: of the stage below ``shared/``.
        identity: JSON values; the study adds the model's.
        run: fills the folder and returns a summary.
        resumable: see `Stage`.
    """

    name: str
    identity: Mapping[str, Any]
    run: Callable[[Path, Progress], Mapping[str, Any]]
    resumable: bool = True


class Method(Protocol):
    """What all methods have in common."""

    Options: ClassVar[type[Section]]
    entry: ClassVar[Entry]
    """The list of an arm that it belongs to."""
    version: ClassVar[str]
    """Raised whenever the same settings would lead to other weights or other replies."""
    options: Any

    def __init__(self, options: Any) -> None:
        """Take the settings."""

    def recipe(self) -> str:
        """The settings in words, for the report."""

    def identity(self) -> Mapping[str, Any]:
        """What bears on the result: settings, and the content of files rather than their paths."""


class DataMethod(Method, Protocol):
    """One entry under ``data:`` of an arm, or under ``loss:``."""

    mixes: ClassVar[bool]
    """Adds examples of another kind; methods that replace answers must come before it."""

    def check(self, setting: Setting) -> None:
        """Look at the user's own files before anything runs.

        Raises:
            DataError: a file is missing or malformed.
            LeakError: it contains evaluation questions.
        """

    def shared(self, setting: Setting) -> list[Shared]:
        """Work that other arms may share; pure, decides names only."""

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """The new training set, and what the report should say about it.

        Args:
            examples: what the steps before made.
            setting: see `Setting`.
            made: folder of every piece of shared work by its name.
        """


class LossMethod(DataMethod, Protocol):
    """One entry under ``loss:``; like data methods it may mark, add or replace examples."""

    trainer: ClassVar[str | None]
    """``sdft`` or ``gkd``: trained by TRL's trainer of this name; None: by ours."""

    def demand(self) -> MethodOverhead:
        """What it takes of memory in training, beyond plain training."""

    def term(self) -> Term | None:
        """What it does in a training step; None: its marks on the examples are all."""


@dataclass(frozen=True, slots=True)
class Term:
    """What a loss method does in a training step; needs torch.

    The loss of a step is the sum over its supervised tokens of weight times cross-entropy, plus
    divergences and penalties, divided by the number of supervised tokens of the whole step.

    Attributes:
        prepare: called once before the first step with the model (fresh adapters, on its device)
            and the examples of kind `PROBE` as batches of tensors on that device.
        weights: (log-probabilities of the labels, entropies of the predictions in nats, mask), each
            of shape (rows, positions), to weights of the same shape, detached.
        divergence: (logits, the base's logits), each of shape (positions, words), to nats, shape
            (positions,); asks for whole logits and a second pass with the adapters switched off.
        penalty: the model, to a scalar in nats per supervised token; added once per step.
    """

    prepare: Callable[[Any, Sequence[Any]], None] | None = None
    weights: Callable[[Any, Any, Any], Any] | None = None
    divergence: Callable[[Any, Any], Any] | None = None
    penalty: Callable[[Any], Any] | None = None


class WeightMethod(Method, Protocol):
    """One entry under ``weights:``."""

    factors: tuple[float, ...]
    """Shares of the training's change under which the model is measured too; () adds none."""
    partners: tuple[str, ...]
    """Other arms whose weights of the same seed and step go in."""
    over_seeds: bool
    """All seeds of the arm go in."""
    makes: bool
    """New weights are made, of several or of one alone."""
    checkpoints: str
    """``last`` or ``all``: which checkpoints it is applied to."""

    def make(self, adapters: Sequence[Path], folder: Path) -> Mapping[str, Any]:
        """Write one adapter made of several; called only when it `makes` any.

        Args:
            adapters: the arm's own first.
            folder: gets ``adapter_config.json`` and ``adapter_model.safetensors``.
        """


class AskMethod(Method, Protocol):
    """One entry under ``ask:``."""

    def change(self, example: Example, task: str) -> Example:
        """The example as this arm is asked it."""


def build(name: str, options: Mapping[str, Any] | None, source: str, where: str) -> Any:
    """The method that one entry of an arm names.

    Args:
        name: of the method.
        options: its settings.
        source: the study file's name, for messages.
        where: ``arms.NAME.LIST``; the method must belong to that list.

    Raises:
        StudyError: no such method, another list's method, or settings that it does not take.
    """
    method: type[Method] = resolve("methods", METHODS, name, f"{source}: {where}")
    entry = where.rpartition(".")[2]
    if method.entry != entry:
        raise StudyError(
            f"{name} is no method of `{entry}:`",
            where=f"{source}: {where}",
            remedy=f"write it under `{method.entry}:` of the arm",
        )
    return method(parse(method.Options, dict(options or {}), source, at=(where, name)))
