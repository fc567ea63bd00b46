"""What the lab's tasks have in common: questions for a number, and which splits there are."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.lab import TARGET_STEPS, TEST_PROBLEMS, TRAIN_PROBLEMS
from holdfast.lab.problems import MOST_STEPS, Problem, problems
from holdfast.tasks import Task
from holdfast.types import Example, Reading, Reply, Verdict

ANSWER = "####"
MOST = 20_000
"""Items of a task; they are made up on the spot, which takes a second per thousand."""


class Counting(Task):
    """Questions whose answer ends in a number; those of one split differ by task."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        items: int = Field(TEST_PROBLEMS, ge=1, le=MOST)
        """Problems that measure."""
        train_items: int = Field(TRAIN_PROBLEMS, ge=1, le=MOST)
        """Problems to train on."""
        steps: Annotated[
            tuple[Annotated[int, Field(ge=1, le=MOST_STEPS)], ...], Field(min_length=1)
        ] = TARGET_STEPS
        """Steps of the problems, in turn. The untouched model solves nearly all of 3, two thirds of
        4 and none of 5."""

    version: ClassVar[str] = "1"
    endless = True
    label = "accuracy (number after ####)"

    def made(self, split: str, seed: int = 0) -> list[Problem]:
        """The problems of a split, as many as the options say.

        Raises:
            DataError: there is no such split.
        """
        split_known(split, ("train", "test", "heldout"))
        count = self.options.train_items if split == "train" else self.options.items
        return problems(split, count, self.options.steps, seed)

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """1.0 when the text after the last ``####`` is that of the worked answer."""
        if ANSWER not in reply.text:
            return Reading(example.id, reply.sample, 0.0, "no answer")
        said = _number(reply.text)
        right = said == _number(example.target or "")
        return Reading(
            example.id, reply.sample, float(right), "correct" if right else "wrong", said[:80]
        )

    def self_check(self) -> None:
        """See `Task.self_check`."""
        item = self.examples("test")[0]
        for text, value in ((item.target or "", 1.0), ((item.target or "") + "0", 0.0)):
            if self.grade(item, Reply(item.id, 0, text, "stop", 1), None).value != value:
                raise DataError(f"the lab grades {text!r} wrongly")


def split_known(split: str, known: tuple[str, ...]) -> str:
    """The split, if a task of the lab has it.

    Raises:
        DataError: it has not.
    """
    if split not in known:
        raise DataError(
            f"the lab has no split {split!r} for this task", remedy=f"splits: {', '.join(known)}"
        )
    return split


def _number(text: str) -> str:
    return text.rpartition(ANSWER)[2].strip()
