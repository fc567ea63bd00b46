"""GSM8K: grade-school word problems with an integer answer.

Cobbe et al. 2021, arXiv:2110.14168; 7,473 training and 1,319 test problems, MIT licence. Data from
the hub (`openai/gsm8k`) or from local jsonl files with ``question`` and ``answer``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from holdfast.config import Section
from holdfast.data import containers, folders, hub
from holdfast.data.reading.arrow_rows import table_rows
from holdfast.data.reading.files import kind_of
from holdfast.errors import DataError
from holdfast.judges import Judge
from holdfast.tasks import Task, _extraction
from holdfast.types import Example, Message, Reading, Reply, Verdict

HUB_ID = "openai/gsm8k"
MARKS = re.compile(r"<<[^>]*>>")
INSTRUCTION = (
    "Let's think step by step. At the end, you MUST write the answer as an integer after '####'."
)


class GSM8K(Task):
    """Word problems with an integer answer after ``####``."""

    options: Options

    class Options(Section):
        """Keys of this task."""

        path: str | None = None
        """Folder with train.jsonl and test.jsonl, or the file that measures. Left out: the hub."""
        train_path: str | None = None
        """The file to train on, when `path` is a file."""
        revision: str | None = None
        """Commit of the hub dataset."""
        extraction: _extraction.Way = "tolerant"
        """How the answer is read. `strict`: the course's string equality; `harness_strict`,
        `harness_flexible`: the two filters of lm-evaluation-harness."""
        strip_calculator_marks: bool = True
        """Remove <<48/2=24>> from the answers to learn."""
        instruction: str = INSTRUCTION
        """Put after every question."""
        format: Literal["plain", "course"] = "plain"
        """`course`, only to reproduce the course's starter: `Q: ` and `A: ` in front, the
        instruction on the question's own line, and shots without it."""

    version: ClassVar[str] = "3"

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Take the options; no judge is needed."""
        super().__init__(options)
        self.label = f"accuracy ({options.extraction} extraction)"

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`."""
        return [self._example(split, number, row) for number, row in self._rows(split)]

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """1.0 when the extracted answer equals the gold one; no answer at all is wrong."""
        found = {way: _extraction.read(reply.text, way) for way in _extraction.WAYS}
        read_as: dict[str, float] = {
            way: float(said is not None and said == _extraction.gold(example.target or "", way))
            for way, said in found.items()
        }
        said, value = found[self.options.extraction], read_as[self.options.extraction]
        outcome = "no answer" if said is None else "correct" if value else "wrong"
        note = "" if said is None else str(said)[:80]
        return Reading(example.id, reply.sample, value, outcome, note, read_as=read_as)

    def self_check(self) -> None:
        """See `Task.self_check`."""
        gold = Example("check", (Message("user", "?"),), "It is 1,000 + 8 = 1,008.\n#### 1,008")
        for text, value in ((gold.target or "", 1.0), ("#### 1009", 0.0), ("", 0.0)):
            reading = self.grade(gold, Reply("check", 0, text, "stop", 1), None)
            if reading.value != value:
                raise DataError(f"gsm8k grades {text!r} as {reading.value}")

    def _example(self, split: str, number: int, row: Mapping[str, Any]) -> Example:
        question, answer = row["question"], row["answer"]
        if self.options.strip_calculator_marks:
            answer = MARKS.sub("", answer)
        prompt, meta = f"{question}\n{self.options.instruction}".strip(), {"question": question}
        if self.options.format == "course":
            prompt, answer = f"Q: {question} {self.options.instruction}".strip(), f"A: {answer}"
            meta["as_shot"] = f"Q: {question}"
        return Example(
            id=f"{split}-{number}",
            messages=(Message("user", prompt),),
            target=answer,
            source=f"gsm8k:{split}",
            meta=meta,
        )

    def _rows(self, split: str) -> list[tuple[int, Mapping[str, Any]]]:
        if self.options.path is None:
            otherwise = "give the task a local `path`"
            table = hub.table(HUB_ID, "main", split, self.options.revision, otherwise)
            return list(enumerate(table_rows(table), start=1))
        found: list[tuple[int, Mapping[str, Any]]] = []
        for file in self._files(split):
            before = found[-1][0] if found else 0
            for number, where, row in list(containers.rows(file)):
                for key in ("question", "answer"):
                    if not isinstance(row, dict) or not isinstance(row.get(key), str):
                        raise DataError(
                            "an item needs the texts question and answer",
                            where=f"{where}: {key}",
                            remedy="use the published files, or the task `jsonl` for other forms",
                        )
                found.append((before + number, row))
        return found

    def _files(self, split: str) -> list[Path]:
        path = Path(self.options.path or "").expanduser()
        if split == "train" and path.is_file():
            if self.options.train_path is None:
                raise DataError(
                    "no training file",
                    where=str(path),
                    remedy="name a folder with train.jsonl and test.jsonl, or give train_path",
                )
            path = Path(self.options.train_path).expanduser()
        file = path / f"{split}.jsonl" if path.is_dir() else path
        if file.is_file():
            return [file]
        try:
            return folders.files_of(path, split)[0] if kind_of(path) == "folder" else [path]
        except DataError as error:
            error.remedy = (
                "correct the task's `path` (tasks.NAME.path), or leave `path` out to read "
                f"{HUB_ID} from the hub; {error.remedy}"
            )
            raise
