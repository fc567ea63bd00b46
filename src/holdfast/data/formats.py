"""Reads a training or test item out of one row of a user's file, whichever known form it has.

Forms are recognised by their columns, row by row, in the order of `TURNS` and `QUESTIONS`; `text`
alone is plain text to go on training with. Every column is used, named in `Row.ignored`, or the row
is refused with the column and what to do: `docs/tasks/jsonl.md` is the table of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from holdfast.data.cells import MEDIA, SURROGATE, Cells, absent, kind, shown
from holdfast.data.messages import REASONING, turns, weight
from holdfast.data.questions import (
    ANSWERS,
    COLUMNS,
    QUESTIONS,
    TURNS,
    answer_turns,
    question_column,
    question_turns,
)
from holdfast.data.tool_calls import schemas
from holdfast.errors import DataError
from holdfast.types import Message

SYSTEM = ("system", "system_prompt")
TOOLS = ("tools", "functions")
PAIR = ("chosen", "rejected")
ABOUT = (*REASONING, "weight")
FORM_COLUMNS = (*TURNS, *QUESTIONS, "text")
LABELS = ("label", "labels", "target")
FORMS = (
    "messages, conversations, instruction/input/output, prompt/completion, query/response, "
    "question/answer, input/output, or text alone"
)
REMEDY = f"these columns are read: {FORMS}; or {COLUMNS}my_answer}}"


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says.

    Attributes:
        messages: the prompt, ending in a turn of the user or of a tool; empty for plain text.
        target: the answer, or the plain text; "" where the answer is tool calls only; None where
            there is no answer.
        extra: the answer's other fields, as of a `Message`.
        tools: JSON schemas of the functions that may be called.
        used: the columns that were read.
        ignored: columns that hold something and were not read, and fields of turns
            (``messages[].mood``).
    """

    messages: tuple[Message, ...]
    target: str | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    used: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()

    @property
    def plain(self) -> bool:
        """Whether it is plain text, without a question."""
        return not self.messages

    @property
    def learned(self) -> bool:
        """Whether there is a turn to learn: an answer, and not all answers have the weight 0."""
        if self.target is not None and self.extra.get("weight", 1):
            return True
        return any(one.weight for one in self.messages if one.role == "assistant")

    @property
    def question(self) -> str:
        """The user's last turn; "" of plain text."""
        for one in reversed(self.messages):
            if one.role == "user":
                return one.content
        return ""


def conversation(row: object, where: str, named: Collection[str] = ()) -> Row:
    """The prompt and the answer of one row, whichever form it has.

    Args:
        row: the columns and their cells.
        where: file and line, for messages.
        named: columns that the study itself has given their names; where they make out the form,
            no other column does.

    Raises:
        DataError: no known form, or a cell that cannot be used as it is; row, column and turn are
            named.
    """
    if isinstance(row, dict) and len(row) == 2:
        pair = _pair(tuple(row), tuple(named))
        if pair is not None and all(map(_is_bare, row.values())):
            asked, said, used = pair
            return Row((Message("user", row[asked]),), row[said], used=used)
    return _conversation(row, where, named)


@lru_cache(maxsize=64)
def _pair(
    columns: tuple[str, str], named: tuple[str, ...]
) -> tuple[str, str, frozenset[str]] | None:
    """The columns of question and answer, and both, where rows of these two are nothing else."""
    if not all(isinstance(one, str) for one in columns):
        return None
    try:
        row = _conversation(dict(zip(columns, ("q", "a"), strict=True)), "", named)
    except DataError:
        return None
    asked, said = columns if row.target == "a" else columns[::-1]
    plain = Row((Message("user", "q"),), "a", used=frozenset(columns))
    other = Row((Message("user", "a"),), "q", used=frozenset(columns))
    return (asked, said, plain.used) if row in (plain, other) else None


def _is_bare(value: object) -> bool:
    """Whether a cell is beyond doubt a text of the usual kind; others are looked at closer."""
    return (
        type(value) is str
        and value[:1] not in ("", "[", "{")
        and not value[:1].isspace()
        and "\0" not in value
        and (value.isascii() or SURROGATE.search(value) is None)
    )


def _conversation(row: object, where: str, named: Collection[str]) -> Row:
    if not isinstance(row, Mapping):
        raise DataError(
            f"is {kind(row)}, not a JSON object with named columns", where=where, remedy=REMEDY
        )
    cells = Cells(row, where)
    ignored: set[str] = set()
    if cells.has_any(MEDIA):
        _refuse_media(cells)
    meant = [one for one in FORM_COLUMNS if one in named] if named else []
    found = _turns(meant or TURNS, cells, ignored)
    if found is None:
        asked = question_column(meant or FORM_COLUMNS, cells)
        if asked is None:
            return _plain(cells)
        found = question_turns(asked, cells, ignored)
        found += answer_turns(asked, named, cells, ignored)
    if cells.has_any(SYSTEM):
        _put_system(found, cells)
    extra: dict[str, Any] = {}
    target = None
    if found[-1].role == "assistant":
        last = found.pop()
        target, extra = last.content, dict(last.extra)
        if cells.has_any(ABOUT):
            _about_answer(extra, cells)
    elif not cells.there.keys().isdisjoint(PAIR):
        raise _preference(cells)
    _check_order(found, where, target)
    tools = _tools(cells) if cells.has_any(TOOLS) else ()
    ignored |= cells.left()
    return Row(tuple(found), target, extra, tools, frozenset(cells.used), frozenset(ignored))


def _turns(names: Sequence[str], cells: Cells, ignored: set[str]) -> list[Message] | None:
    """The turns of a row that is a conversation; None: it is not."""
    for name in names:
        if name in TURNS and name in cells.there:
            return turns(cells.take(name), cells.at(name), ignored)
    return None


def _about_answer(extra: dict[str, Any], cells: Cells) -> None:
    """Put what the row says of its answer beside it: reasoning, and a weight."""
    name, thought = cells.one_of(REASONING)
    if thought and extra.setdefault("reasoning_content", thought) != thought:
        raise DataError(
            "differs from the reasoning that stands in the answer's turn",
            where=cells.at(name),
            remedy="keep one of the two",
        )
    if (value := cells.take("weight")) is not None and not weight(value, cells.at("weight")):
        extra["weight"] = 0


def _put_system(found: list[Message], cells: Cells) -> None:
    name, said = cells.one_of(SYSTEM)
    if not said:
        return
    if found[0].role != "system":
        found.insert(0, Message("system", said))
    elif found[0].content != said:
        raise DataError(
            "stands beside a conversation that begins with another system turn",
            where=cells.at(name),
            remedy="keep one of the two",
        )


def _tools(cells: Cells) -> tuple[Mapping[str, Any], ...]:
    there = [one for one in TOOLS if one in cells.there]
    for one in TOOLS:
        cells.take(one)
    found = [schemas(cells.row[one], cells.at(one)) for one in there]
    if len(found) > 1 and all(found):
        raise DataError(
            "stands beside `tools`", where=cells.at("functions"), remedy="keep one of the two"
        )
    return next((some for some in found if some), ())


def _plain(cells: Cells) -> Row:
    """A row without a question: plain text, or none of the known forms."""
    if not cells.there.keys().isdisjoint(PAIR):
        raise _preference(cells)
    if absent(cells.row.get("text")):
        answered = [one for one in ANSWERS if one in cells.there]
        names = ", ".join(shown(key) for key in list(cells.row)[:12]) or "none"
        raise DataError(
            f"has {f'`{answered[0]}` but no question: ' if answered else ''}none of the known "
            f"forms (its keys: {names})",
            where=cells.where,
            remedy=REMEDY,
        )
    label = next((one for one in LABELS if not absent(cells.row.get(one))), None)
    if label is not None:
        raise DataError(
            f"has `text` and `{label}`: is the text a question and `{label}` its answer?",
            where=cells.where,
            remedy=f"if so, say it in the task: columns: {{prompt: text, completion: {label}}}; to "
            f"go on training with the text alone, leave `{label}` out of the file",
        )
    said = cells.text("text")
    if not said:
        raise DataError("is empty", where=cells.at("text"), remedy="fill it, or leave the row out")
    return Row((), said, used=frozenset(cells.used), ignored=frozenset(cells.left()))


def _preference(cells: Cells) -> DataError:
    return DataError(
        "is a preference pair (`chosen`, `rejected`) without an answer to learn",
        where=cells.where,
        remedy="fine-tuning here learns one answer: to learn the chosen one, say so in the task: "
        "columns: {completion: chosen}",
    )


def _refuse_media(cells: Cells) -> None:
    for name in sorted(MEDIA & cells.there.keys()):
        if cells.there[name] not in ([], {}):
            raise DataError(
                f"is {kind(cells.there[name])}: only text is trained on and asked",
                where=cells.at(name),
                remedy=f"leave such rows out; if the text makes sense alone, leave `{name}` out",
            )


def _check_order(found: Sequence[Message], where: str, target: str | None) -> None:
    """Refuse conversations whose turns cannot be asked and answered in this order."""
    roles = [one.role for one in found]
    if roles == ["user"]:
        return
    if target is not None:
        roles.append("assistant")
    for number in range(1, len(roles)):
        if roles[number] == roles[number - 1] == "assistant":
            raise DataError(
                f"turns {number} and {number + 1} are both the assistant's",
                where=where,
                remedy="join them in one turn, or put what the user (or the tool) said in between",
            )
    if "tool" in roles and "assistant" not in roles[: roles.index("tool")]:
        raise DataError(
            f"turn {roles.index('tool') + 1} is a tool's answer, but nothing was asked of it",
            where=where,
            remedy="put the assistant's turn with its tool call before it",
        )
    if "user" not in roles or found[-1].role not in ("user", "tool"):
        last = f" (it ends with the turn of a {found[-1].role})" if found else ""
        raise DataError(
            f"has no user turn to answer{last}",
            where=where,
            remedy="a conversation is a user's turn and the assistant's answer, once or more",
        )
