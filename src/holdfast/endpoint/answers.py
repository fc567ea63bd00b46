"""Keeps what a server has answered, so that nothing is asked and paid for twice.

One line of jsonl per answer, appended in a single write as it arrives and found by a hash of the
whole request (model, messages, sampling), so that after any fault only what is missing is asked.
Neither the question nor the key is kept. What is no use to whoever asks (a question that did not
fit, an answer that was withheld) is known for one call and never kept: once the server is mended,
it is asked again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

ANSWERS = "answers.jsonl"
Finish = Literal["stop", "length", "filtered", "too long"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one question.

    Attributes:
        finish: `stop`; `length`: cut off; `filtered`: withheld by the server's content filter;
            `too long`: the question does not fit into the model's context, and the text is why.
        model: the name that the answer bears.
        read: tokens of the question; 0 where the server does not say.
        written: tokens of the answer, thinking included; 0 where the server does not say.
        thinking: what was thought, where the server gives it apart from the answer.
        thought: tokens of it; 0 where the server does not say.
    """

    text: str
    finish: Finish
    model: str
    read: int = 0
    written: int = 0
    thinking: str = ""
    thought: int = 0

    def says_something(self, silent: bool = False) -> bool:
        """Whether it is worth keeping.

        Args:
            silent: an answer without a word is one, where the server counts tokens for it.
        """
        if self.finish not in ("stop", "length"):
            return False
        if self.text.strip():
            return True
        return silent and (self.written > 0 or bool(self.thinking))


class AnswerCache:
    """The answers in one folder; without a folder, of this call only."""

    def __init__(self, folder: Path | None, usable: Callable[[Answer], bool]) -> None:
        """Read what is there; a line that a crash cut short is passed over.

        Args:
            folder: where they lie.
            usable: which answers are kept, and found again.
        """
        self._path = None if folder is None else folder / ANSWERS
        self._usable = usable
        self._found: dict[str, Answer] = {}
        self._mend = ""
        if self._path is not None and self._path.is_file():
            text = self._path.read_text(encoding="utf-8", errors="replace")
            self._mend = "" if text.endswith("\n") or not text else "\n"
            for line in text.split("\n"):
                self._take(line)

    def __contains__(self, mark: str) -> bool:
        """Whether the question of this hash has been answered."""
        return mark in self._found

    def __getitem__(self, mark: str) -> Answer:
        """The answer to the question of this hash."""
        return self._found[mark]

    def is_saved(self, mark: str) -> bool:
        """Whether the answer to the question of this hash is kept for another call."""
        return mark in self._found and self._usable(self._found[mark])

    def add(self, mark: str, answer: Answer) -> None:
        """Keep one answer, if it is usable; not for several threads at once."""
        if self._path is not None and self._usable(answer):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            row = {"of": mark, **asdict(answer)}
            line = self._mend + json.dumps(row, ensure_ascii=False) + "\n"
            # one write at the end of the file: two processes may share it, and Ctrl-C tears nothing
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            data = line.encode("utf-8")
            written: list[int] = []
            all_of_it = [len(data)]
            try:  # written and noted in one call, between whose halves no Ctrl-C comes
                written.extend(map(os.write, (handle,), (data,)))
            finally:
                if written == all_of_it:
                    self._found[mark] = answer
                self._mend = "\n" if written and written != all_of_it else self._mend
                os.close(handle)
            if written != all_of_it:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self._mend = ""
            return
        self._found[mark] = answer

    def _take(self, line: str) -> None:
        names = {one.name for one in fields(Answer)}
        try:
            row = json.loads(line)
            answer = Answer(**{name: value for name, value in row.items() if name in names})
            if all(map(_fits, asdict(answer).values(), fields(Answer))) and self._usable(answer):
                self._found[row["of"]] = answer
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return


def _fits(value: object, field: Field[Any]) -> bool:
    """Whether a value read is of its field's kind: a count, or a text that can be written again."""
    if field.type == "int":
        return type(value) is int and 0 <= value < 10**18
    return isinstance(value, str) and whole(value) == value


def whole(text: str) -> str:
    """A text without halves of surrogate pairs, which no file can hold: U+FFFD stands for them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
