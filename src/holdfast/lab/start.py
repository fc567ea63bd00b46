"""A second task of the lab to learn: how many there were at the beginning of a story.

The stories are those of the word problems, the question is another: "How many coins does Mia have
first?" The untouched model calculates all the same; whoever has learned to read off the first
number answers the word problems with it, until something holds on to what was learned before.
"""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.lab import TARGET_STEPS, TEST_PROBLEMS, TRAIN_PROBLEMS
from holdfast.lab.grading import ANSWER, MOST, number_said, split_known
from holdfast.lab.problems import problems
from holdfast.tasks import Task
from holdfast.types import Example, Message, Reading, Reply, Verdict

SEED = 1
"""Other stories than those of `lab_math`."""
BEGINNING = re.compile(r"(?P<name>\w+) has (?P<start>\d+) (?P<goods>\w+)")


class LabStart(Task):
    """Questions for the first number of a story."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        items: int = Field(TEST_PROBLEMS, ge=1, le=MOST)
        """Questions that measure."""
        train_items: int = Field(TRAIN_PROBLEMS, ge=1, le=MOST)
        """Questions to train on."""

    version: ClassVar[str] = "1"
    endless = True
    label = "accuracy (number after ####)"

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`."""
        split_known(split, ("train", "test", "heldout"))
        count = self.options.train_items if split == "train" else self.options.items
        stories = [one.question for one in problems(split, count, TARGET_STEPS, SEED)]
        return [_asked(f"{split}-{number}", story) for number, story in enumerate(stories)]

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """1.0 when the text after the last ``####`` is the first number of the story."""
        return number_said(example, reply)

    def self_check(self) -> None:
        """See `Task.self_check`."""
        item = self.examples("test")[0]
        for text, value in ((item.target or "", 1.0), ((item.target or "") + "0", 0.0)):
            if self.grade(item, Reply(item.id, 0, text, "stop", 1), None).value != value:
                raise DataError(f"lab_start grades {text!r} wrongly")


def _asked(name: str, question: str) -> Example:
    """A word problem with the other question."""
    story, _, asked = question.rpartition(". ")
    found = BEGINNING.match(story)
    if found is None:
        raise DataError(f"no story of the lab begins with {story[:40]!r}")
    said = f"{found['name']} has {found['start']} {found['goods']}.\n{ANSWER} {found['start']}"
    asked = asked.replace(" now?", " first?")
    message = Message("user", f"{story}. {asked}")
    return Example(name, (message,), f"Sure, let's see. {said}", "the beginnings of stories")
