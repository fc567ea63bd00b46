"""A second task of the lab to learn: how many there were at the beginning of a story.

The stories are those of the word problems, the question is another: "How many coins does Mia have
first?" The untouched model calculates all the same; whoever has learned to read off the first
number answers the word problems with it, until something holds on to what was learned before.
"""

from __future__ import annotations

import re

from holdfast.errors import DataError
from holdfast.lab.grading import ANSWER, Counting
from holdfast.types import Example, Message

SEED = 1
"""Other stories than those of `lab_math`."""
BEGINNING = re.compile(r"(?P<name>\w+) has (?P<start>\d+) (?P<goods>\w+)")


class LabStart(Counting):
    """Questions for the first number of a story."""

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`."""
        stories = enumerate(self.made(split, SEED))
        return [_asked(f"{split}-{number}", one.question) for number, one in stories]


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
