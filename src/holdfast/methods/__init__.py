"""How does an arm differ from plain fine-tuning?

A data method turns one list of training examples into another. Work that several arms can share
(the base's own samples, say) is declared apart, made once, and found again by its name. Methods
never see an evaluation set; what they produce is checked for leaks by the study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from holdfast.engines import Engine
from holdfast.leak import LeakIndex
from holdfast.progress import Progress
from holdfast.registry import resolve
from holdfast.spec import Sampling, Section
from holdfast.studyfile import parse
from holdfast.tasks import Task
from holdfast.types import Example

METHODS = {
    "replay": "holdfast.methods.replay:Replay",
    "selfgen": "holdfast.methods.selfgen:Selfgen",
}
EXAMPLES = "examples.jsonl"


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
    """

    task: Task
    plain: Sequence[Example]
    sampling: Sampling
    engine: Callable[[], Engine]
    leaks: LeakIndex
    seed: int


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


class DataMethod(Protocol):
    """One entry under ``data:`` of an arm."""

    Options: ClassVar[type[Section]]
    version: ClassVar[str]
    options: Any
    mixes: ClassVar[bool]
    """Adds examples of another kind; methods that replace answers must come before it."""

    def __init__(self, options: Any) -> None:
        """Take the settings."""

    def recipe(self) -> str:
        """The settings in words, for the report."""

    def check(self, setting: Setting) -> None:
        """Look at the user's own files before anything runs.

        Raises:
            DataError: a file is missing or malformed.
            LeakError: it contains evaluation questions.
        """

    def identity(self) -> Mapping[str, Any]:
        """What bears on the data: settings, and the content of files rather than their paths."""

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


def build(name: str, options: Mapping[str, Any] | None, source: str, where: str) -> DataMethod:
    """The method that one ``data:`` entry names.

    Raises:
        StudyError: no such method, or settings that it does not take.
    """
    method: type[DataMethod] = resolve("methods", METHODS, name, f"{source}: {where}")
    return method(parse(method.Options, dict(options or {}), source, at=(where, name)))
