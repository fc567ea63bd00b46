"""Reads and grades a jsonl of the user's own.

Its lines may have any form that `holdfast.data.formats` knows. Three graders: exact match, a
regular expression, or numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from holdfast import judges
from holdfast.config import Section
from holdfast.data.formats import conversation, unanswered
from holdfast.errors import DataError
from holdfast.judges import Judge
from holdfast.runs import store
from holdfast.tasks import Task, _extraction
from holdfast.types import Example, Reading, Reply, Verdict


class Jsonl(Task):
    """A user's own items."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        path: str
        """The file that measures."""
        train_path: str | None = None
        """The file to train on; needed when this is the target."""
        grader: Literal["exact", "regex", "number", "judge"] = "exact"
        """exact: the same text (spaces and case aside); regex: `pattern`; number: the last number;
        judge: the study's `judge` says whether the reply is safe."""
        pattern: str | None = None
        """For `regex`: with a group, the group must equal the target; without, it must match."""
        group: str | None = None
        """Name of the key by which the report is broken down."""

        @model_validator(mode="after")
        def _pattern(self) -> Self:
            if self.grader == "regex":
                if self.pattern is None:
                    raise ValueError("the regex grader needs a `pattern`")
                try:
                    re.compile(self.pattern)
                except re.error as error:
                    raise ValueError(f"pattern is not a regular expression: {error}") from error
            return self

    version: ClassVar[str] = "1"

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options and, for the judge grader, the judge."""
        super().__init__(options)
        judged = options.grader == "judge"
        self.judge = (judge or judges.build("refusal")) if judged else None
        self.inverted = judged
        self.label = f"{options.grader} match"
        if self.judge:
            self.label = f"unsafe rate by judge {self.judge_title}"

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; `train` reads `train_path`, every other split reads `path`."""
        path = self.options.train_path if split == "train" else self.options.path
        if path is None:
            raise DataError(
                "no training file", where=self.options.path, remedy="give the task a train_path"
            )
        file = Path(path).expanduser()
        found = []
        for number, row in store.read_objects(file):
            messages, target = conversation(row, f"{file}:{number}")
            if target is None and (split == "train" or self.options.grader in ("exact", "number")):
                raise unanswered(row, f"{file}:{number}")
            group = str(row.get(self.options.group, "")) if self.options.group else ""
            meta = {"group": group, "question": messages[-1].content}
            name = str(row.get("id", f"{split}-{number}"))
            found.append(Example(name, messages, target, f"{file.name}:{split}", meta))
        names = {one.id for one in found}
        if len(names) < len(found):
            raise DataError("has two items of one id", where=str(file), remedy="make ids unique")
        return found

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """By the chosen grader."""
        group, target = str(example.meta.get("group", "")), example.target or ""
        note = ""
        match self.options.grader:
            case "judge":
                if verdict is None or verdict.label == "unsure":
                    return Reading(example.id, reply.sample, None, "unsure", "", group)
                good = verdict.label in ("refused", "safe")
                return Reading(example.id, reply.sample, float(good), verdict.label, "", group)
            case "exact":
                right = _folded(reply.text) == _folded(target)
            case "number":
                found = _extraction.tolerant(reply.text)
                note = str(found)
                right = found is not None and found == _extraction.tolerant(target)
            case "regex":
                matches = list(re.finditer(self.options.pattern or "", reply.text))
                said = matches[-1].groups() if matches else ()
                note = str(said[0]) if said else ""
                right = _folded(note) == _folded(target) if said and target else bool(matches)
        outcome = "correct" if right else "wrong"
        return Reading(example.id, reply.sample, float(right), outcome, note[:80], group)

    def self_check(self) -> None:
        """See `Task.self_check`; with the user's own first gold answer where one exists."""
        if self.options.grader in ("exact", "number"):
            first = self.examples("test")[0]
            for text, value in ((first.target or "", 1.0), ("", 0.0)):
                reply = Reply(first.id, 0, text, "stop", 1)
                if self.grade(first, reply, None).value != value:
                    raise DataError(
                        f"the {self.options.grader} grader does not accept the gold answer "
                        f"{first.target!r}",
                        where=self.options.path,
                        remedy="choose the grader that fits the answers",
                    )


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
