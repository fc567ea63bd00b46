"""Reads and grades a jsonl of the user's own.

Five forms are recognised by their keys, line by line: ``messages``, sharegpt ``conversations``,
alpaca ``instruction/input/output``, ``prompt/completion`` and ``question/answer``. Three graders:
exact match, a regular expression, or numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from holdfast import judges
from holdfast.config import Section
from holdfast.errors import DataError
from holdfast.judges import Judge
from holdfast.runs import store
from holdfast.tasks import Task, _extraction
from holdfast.types import Example, Message, Reading, Reply, Verdict

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
ANSWERS = {"instruction": "output", "prompt": "completion", "question": "answer"}
"""By the key of the question, in the order in which forms are recognised: that of the answer."""
FORMS = "messages, conversations, instruction/output, prompt/completion or question/answer"


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
                raise _unanswered(row, f"{file}:{number}")
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


def conversation(row: Any, where: str) -> tuple[tuple[Message, ...], str | None]:
    """The prompt and the answer of one line, whichever form it has.

    Raises:
        DataError: no known form, an unknown role, or no user turn; `where` names the line.
    """
    if not isinstance(row, dict):
        raise DataError("is not a JSON object", where=where, remedy=f"write {FORMS}")
    match row:
        case {"messages": list() as turns}:
            messages = [_turn(one, "role", "content", where) for one in turns]
        case {"conversations": list() as turns}:
            messages = [_turn(one, "from", "value", where) for one in turns]
        case {"instruction": str() as text, **rest}:
            if rest.get("input"):
                text = f"{text}\n\n{rest['input']}"
            messages = _pair(text, rest.get("output"), rest.get("system"))
        case {"prompt": str() as text, **rest}:
            messages = _pair(text, rest.get("completion"), None)
        case {"prompt": list() as turns, **rest}:
            more = rest.get("completion") or []
            messages = [_turn(one, "role", "content", where) for one in [*turns, *more]]
        case {"question": str() as text, **rest}:
            messages = _pair(text, rest.get("answer"), None)
        case _:
            raise DataError(
                f"has none of the known forms (its keys: {', '.join(map(str, row))})",
                where=where,
                remedy=f"write {FORMS}",
            )
    target = None
    if messages and messages[-1].role == "assistant":
        target = messages.pop().content
    if not messages or messages[-1].role != "user":
        raise DataError("has no user turn to answer", where=where, remedy="end with one")
    return tuple(messages), target


def _unanswered(row: Mapping[str, Any], where: str) -> DataError:
    """The error for a line without an answer; it names the key in which this form has it."""
    asked = next((one for one in ANSWERS if isinstance(row.get(one), str)), None)
    lack = "has no answer to learn or to compare with"
    if "messages" in row or "conversations" in row or asked is None:
        return DataError(lack, where=where, remedy="end the conversation with an assistant turn")
    key = ANSWERS[asked]
    return DataError(
        f"has no `{key}` beside `{asked}`, so it {lack}", where=where, remedy=f"fill `{key}`"
    )


def _turn(one: Any, role_key: str, text_key: str, where: str) -> Message:
    role = SHAREGPT_ROLES.get(str(one.get(role_key)) if isinstance(one, dict) else "")
    if role is None or not isinstance(one.get(text_key), str):
        raise DataError(
            f"a turn needs {role_key} (user, assistant, system, human, gpt) and {text_key} (text)",
            where=where,
            remedy="mend this line",
        )
    return Message(role, one[text_key])  # type: ignore[arg-type]  # the table holds only roles


def _pair(prompt: str, answer: Any, system: Any) -> list[Message]:
    messages = [Message("system", str(system))] if system else []
    messages.append(Message("user", prompt))
    if answer is not None:
        messages.append(Message("assistant", str(answer)))
    return messages


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()
