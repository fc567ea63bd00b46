"""Plain text: learned as it stands, and measured by how many bits a byte of it takes.

Bits per byte is the loss of a whole document under the model, in bits, divided by the document's
bytes in UTF-8: lower is better, and the figure is the same whatever tokenizer cuts the text. No
answers are written, so it is cheap, and it moves with changes that no answer shows yet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import Field, model_validator

from holdfast.config import Section, Sources
from holdfast.data import sources
from holdfast.data.documents import read
from holdfast.data.windows import TEXT
from holdfast.errors import DataError
from holdfast.judges import Judge
from holdfast.tasks import Task
from holdfast.types import Example, FieldUse, Message, Reading, Reply, SourceUse, Verdict

LEAST = 2
"""Documents without which no interval can be given."""
UNKNOWN = "unknown characters"
"""The outcome of a document that the tokenizer cannot spell, whose loss would mean nothing."""


class Text(Task):
    """Documents, one by one."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        path: Sources
        """What measures: text files (.txt, .md, ...), folders of them, or rows with a `text`."""
        train_path: Sources | None = None
        """What is trained on, likewise; needed when this is the target."""
        columns: dict[str, str] = Field({})
        """Of all its files of rows: `{text: content}`."""
        data_seed: int = 1126
        """Seed by which `share` and `count` of a source are drawn."""
        separator: str | None = Field(None, min_length=1)
        """Where a text file is divided into documents, e.g. "\\n\\n\\n"; left out: nowhere."""
        window: int | None = Field(None, ge=2)
        """Tokens that are read at a time where it measures. Left out: 1024, or as many as the model
        has positions for."""
        stride: int | None = Field(None, ge=1)
        """New tokens of each window; the others are their context. Left out: half of a window."""

        @model_validator(mode="after")
        def _stride(self) -> Self:
            if self.stride and self.window and self.stride >= self.window:
                raise ValueError("stride: below window, or new tokens would have no context")
            return self

    version: ClassVar[str] = "1"
    chats: ClassVar[bool] = False
    label = "bits per byte"
    unit = "bits/byte"

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options; no judge is needed."""
        super().__init__(options)
        self._read: dict[str, _Read] = {}

    @property
    def fields(self) -> tuple[FieldUse, ...]:
        """See `Task.fields`."""
        return tuple(one for read in self._read.values() for one in read.fields)

    @property
    def sources(self) -> tuple[SourceUse, ...]:
        """See `Task.sources`."""
        return tuple(one for read in self._read.values() for one in read.sources)

    @property
    def how(self) -> str:
        """How it measures, for the report."""
        window, stride = self.options.window, self.options.stride
        size = f"{window:,}" if window else "1,024 (or as many as the model reads)"
        return f"in windows of {size} tokens, {f'{stride:,}' if stride else 'half'} of them new"

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; `train` reads `train_path`, every other split reads `path`."""
        if split not in self._read:
            self._read[split] = self._all(split)
        return list(self._read[split].examples)

    def _all(self, split: str) -> _Read:
        trained = split == "train"
        specs = self.options.train_path if trained else self.options.path
        if specs is None:
            raise DataError(
                "no training text",
                where=", ".join(one.path or one.hub or "" for one in self.options.path),
                remedy="give the task a train_path",
            )
        opened = sources.opened(specs, split, self.options.columns)
        found = [read(one, split, self.options.separator) for one in opened]
        chosen = sources.drawn(opened, [len(one) for one, _ in found], self.options.data_seed)
        how = {"window": self.options.window, "stride": self.options.stride}
        examples = []
        for one, (documents, _), rows in zip(opened, found, chosen, strict=True):
            for row in rows:
                name, said = documents[row].name, documents[row].text
                name = name if one is opened[0] else f"{one.name}:{name}"
                of = f"{one.name}:{split}"
                if trained:
                    examples.append(Example(name, (), said, of))
                else:
                    meta = {"continue": "text", TEXT: how}
                    examples.append(Example(name, (Message("user", said),), None, of, meta))
        return _Read(
            tuple(examples),
            tuple(use for _, uses in found for use in uses),
            tuple(
                SourceUse(one.label, split, len(had), len(rows), tuple(one.notes))
                for one, (had, _), rows in zip(opened, found, chosen, strict=True)
            ),
        )

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """Bits per byte, with its sign turned: more is better, as everywhere.

        Unscored is a document with characters that the tokenizer does not know.
        """
        nats, tokens, unknown = json.loads(reply.text)
        size = len(example.messages[-1].content.encode())
        note = f"{tokens:,} tokens, {size:,} bytes"
        if unknown:
            note = f"{unknown:,} of {note}: unknown to the tokenizer"
            return Reading(example.id, reply.sample, None, UNKNOWN, note)
        bits = nats / math.log(2) / size
        return Reading(example.id, reply.sample, -bits, "scored", note)

    def self_check(self) -> None:
        """Grade a loss that is known: a nat is 1 / ln 2 bits.

        Raises:
            DataError: too few documents for an interval.
        """
        documents = self.examples("test")
        if len(documents) < LEAST:
            raise DataError(
                "is one document, and no interval can be given of one",
                where=", ".join(one.path or one.hub or "" for one in self.options.path),
                remedy='give more documents, or divide the text: separator: "\\n\\n\\n"',
            )
        first = documents[0]
        size = len(first.messages[-1].content.encode())
        said = Reply(first.id, 0, json.dumps([size * math.log(2), 1, 0]), "stop", 0)
        value = self.grade(first, said, None).value
        if value is None or not math.isclose(value, -1.0):
            raise DataError(f"a bit per byte is graded {value}")


@dataclass(frozen=True)
class _Read:
    """What the sources of one split came to."""

    examples: Sequence[Example]
    fields: tuple[FieldUse, ...]
    sources: tuple[SourceUse, ...]
