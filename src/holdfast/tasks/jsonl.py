"""Reads and grades data of the user's own, in files of every kind or from the hub.

Rows may have any form that `holdfast.data.formats` knows, files any that
`holdfast.data.containers` knows. Four graders: exact match, a regular
expression, numbers, or a judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from holdfast import judges
from holdfast.config import Section, Sources
from holdfast.data import sources
from holdfast.data.cells import absent, blank, kind
from holdfast.data.formats import REMEDY, Row, conversation
from holdfast.data.questions import unanswered
from holdfast.data.sources import Source
from holdfast.errors import DataError
from holdfast.judges import Judge
from holdfast.tasks import Task, _extraction
from holdfast.types import Example, FieldUse, Reading, Reply, SourceUse, Verdict


class Jsonl(Task):
    """A user's own items."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        path: Sources
        """What measures: a file or folder, a source (`{hub: owner/name, split: test}`), or a list
        of both."""
        train_path: Sources | None = None
        """What is trained on, likewise; needed when this is the target."""
        columns: dict[str, str] = Field({})
        """Of all its files: by the known name, the files' own, `{prompt: question}`."""
        data_seed: int = 1126
        """Seed by which `share` and `count` of a source are drawn."""
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

    version: ClassVar[str] = "2"

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options and, for the judge grader, the judge."""
        super().__init__(options)
        judged = options.grader == "judge"
        self.judge = (judge or judges.build("refusal")) if judged else None
        self.inverted = judged
        self.label = f"{options.grader} match"
        self._read: dict[str, _Read] = {}
        if self.judge:
            self.label = f"unsafe rate by judge {self.judge_title}"

    @property
    def fields(self) -> tuple[FieldUse, ...]:
        """See `Task.fields`."""
        return tuple(one for read in self._read.values() for one in read.fields)

    @property
    def sources(self) -> tuple[SourceUse, ...]:
        """See `Task.sources`."""
        return tuple(one for read in self._read.values() for one in read.sources)

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; `train` reads `train_path`, every other split reads `path`."""
        if split not in self._read:
            self._read[split] = self._all(split)
        return list(self._read[split].examples)

    def _all(self, split: str) -> _Read:
        """Everything of a split: the rows of all its sources, as far as they are taken."""
        specs = self.options.train_path if split == "train" else self.options.path
        if specs is None:
            raise DataError(
                "no training file",
                where=self._place,
                remedy="give the task a train_path",
            )
        opened = sources.opened(specs, split, self.options.columns)
        found = [self._source(one, split, first=one is opened[0]) for one in opened]
        chosen = sources.drawn(opened, [len(one[0]) for one in found], self.options.data_seed)
        examples = [
            one[0][index] for one, rows in zip(found, chosen, strict=True) for index in rows
        ]
        if (
            self.options.group
            and split != "train"
            and not any(one.meta["group"] for one in examples)
        ):
            raise DataError(
                f"no row says anything under `{self.options.group}`, by which the report is to be "
                "broken down",
                where=self._place,
                remedy="correct `group`, or leave it out",
            )
        return _Read(
            tuple(examples),
            tuple(use for one in found for use in one[1]),
            tuple(
                SourceUse(one.label, split, len(had), len(rows), tuple(one.notes))
                for one, (had, _), rows in zip(opened, found, chosen, strict=True)
            ),
        )

    def _source(
        self, source: Source, split: str, first: bool
    ) -> tuple[list[Example], list[FieldUse]]:
        """All items of one source, and what became of its columns."""
        found: list[Example] = []
        places: dict[str, str] = {}
        usage = sources.Usage(source)
        own = {"id", self.options.group or "id"}
        with closing(source.rows()) as rows:
            for number, where, row in rows:
                said = conversation(row, where, source.columns)
                self._check_row(said, row, where, split)
                group = self._group(row, where)
                meta = {"group": group}
                if not said.plain:
                    meta["question"] = said.question
                name = identifier(row.get("id"), where) or f"{split}-{number}"
                if name in places:
                    raise DataError(
                        f"has the id {name!r}, as {places[name]} has: two items of one id",
                        where=where,
                        remedy="make ids unique, or leave `id` out: rows are numbered then",
                    )
                places[name] = where
                used = said.used | mine if (mine := own & row.keys()) else said.used
                empty = [key for key in used if blank(row.get(key))]
                usage.count(used.difference(empty) if empty else used, said.ignored - own)
                found.append(
                    Example(
                        name if first else f"{source.name}:{name}",
                        said.messages,
                        said.target,
                        f"{source.name}:{split}",
                        meta,
                        said.tools,
                        said.extra,
                    )
                )
        return found, usage.fields()

    @property
    def _place(self) -> str:
        """Where the items that measure are, for messages."""
        return ", ".join(one.path or one.hub or "" for one in self.options.path)

    def _check_row(self, said: Row, row: Mapping[str, Any], where: str, split: str) -> None:
        """Refuse a row that lacks what it is read for.

        Raises:
            DataError: no answer to learn or to compare with, or no question to ask.
        """
        compared = self.options.grader in ("exact", "number")
        if said.target is None:
            if split == "train" or compared:
                raise unanswered(row, where)
        elif split == "train":
            if not said.learned:
                raise DataError(
                    "has the weight 0 on all its answers, so there is nothing to learn",
                    where=where,
                    remedy="leave the row out, or the weight",
                )
        elif said.plain:
            raise DataError(
                "is plain text, which cannot be asked: it can only be trained on",
                where=where,
                remedy=f"a row that measures has a question; {REMEDY}",
            )
        elif compared and not said.target.strip():
            raise DataError(
                f"is answered by tool calls alone, which the {self.options.grader} grader cannot "
                "compare",
                where=where,
                remedy="write a grader of your own (docs/tasks/your-own.md), or leave the row out",
            )

    def _group(self, row: Mapping[str, Any], where: str) -> str:
        name = self.options.group
        value = row.get(name) if name else None
        if absent(value):
            return ""
        if not isinstance(value, str | int | float):
            raise DataError(
                f"is {kind(value)}, by which no report can be broken down",
                where=f"{where}: {name}",
                remedy="write one word or number, or correct `group`",
            )
        return str(value)

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
                found = _extraction.read(reply.text, "tolerant")
                note = str(found)
                right = found is not None and found == _extraction.gold(target, "tolerant")
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
                        where=self._place,
                        remedy="choose the grader that fits the answers",
                    )


@dataclass(frozen=True)
class _Read:
    """What the sources of one split came to."""

    examples: tuple[Example, ...]
    fields: tuple[FieldUse, ...]
    sources: tuple[SourceUse, ...]


def identifier(value: object, where: str) -> str:
    """An item's id as text; "" where the row has none.

    Raises:
        DataError: it is neither text nor a number.
    """
    if blank(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(
            f"is {kind(value)}, which is no name",
            where=f"{where}: id",
            remedy="write text or a number, or leave `id` out: rows are numbered then",
        )
    return str(value)


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
