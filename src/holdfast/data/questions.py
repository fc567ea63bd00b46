"""Finds a row's question and its answer by the columns that hold them.

A question has its usual column of the answer beside it; where another stands there, or two might be
meant, the row is refused instead of guessed at.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from holdfast.data.cells import Cells, absent, answer, blank, text
from holdfast.data.messages import is_turns, pairs, turns
from holdfast.errors import DataError
from holdfast.types import Message

TURNS = ("messages", "conversations", "conversation")
QUESTIONS = {
    "instruction": "output",
    "prompt": "completion",
    "query": "response",
    "question": "answer",
    "input": "output",
}
"""By the column of the question, in the order in which forms are recognised: that of the answer."""
ANSWERS = tuple(dict.fromkeys(QUESTIONS.values()))
COLUMNS = "say in the task which columns hold them: columns: {prompt: my_question, completion: "


def question_column(names: Sequence[str], cells: Cells) -> str | None:
    """The column that holds the question; None: there is none.

    Raises:
        DataError: the column is empty, or it cannot be told which of two is meant.
    """
    there = [one for one in QUESTIONS if one in names and one in cells.there]
    if "instruction" in there and "input" in there:
        there.remove("input")
    if not there:
        empty = [one for one in QUESTIONS if one in names and one in cells.row]
        if empty and "text" not in cells.there:
            raise DataError(
                "is empty, so there is nothing to ask",
                where=cells.at(empty[0]),
                remedy=f"fill `{empty[0]}`, or leave the row out",
            )
        return None
    if len(there) > 1 and QUESTIONS[there[0]] not in cells.there:
        raise DataError(
            f"has `{there[0]}` and `{there[1]}`: which of them is asked?",
            where=cells.where,
            remedy=f"keep one of them, or {COLUMNS}my_answer}}",
        )
    return there[0]


def question_turns(asked: str, cells: Cells, ignored: set[str]) -> list[Message]:
    """The turns of a question, with the history before it.

    Raises:
        DataError: there is a history beside turns, or a turn that cannot be used.
    """
    value = cells.take(asked)
    if not is_turns(value):
        past = cells.take("history")
        found = pairs(past, cells.at("history"), ignored) if past not in (None, [], "[]") else []
        said = _question(asked, text(value, cells.at(asked)), cells)
        return [*found, Message("user", said)]
    if "history" in cells.there:
        raise DataError(
            f"stands beside `{asked}`, which is a list of turns",
            where=cells.at("history"),
            remedy=f"put all turns into `{asked}`",
        )
    return turns(value, cells.at(asked), ignored)


def answer_turns(
    asked: str, named: Collection[str], cells: Cells, ignored: set[str]
) -> list[Message]:
    """The answer's turns; none where there is no answer.

    Raises:
        DataError: it cannot be told which column is the answer, or it cannot be used.
    """
    there = [one for one in ANSWERS if one in cells.there and one != asked]
    own = next((one for one in there if one in named), QUESTIONS[asked])
    if own not in there and len(there) > 1:
        raise DataError(
            f"has {' and '.join(f'`{one}`' for one in there)} beside `{asked}`: which is the "
            "answer?",
            where=cells.where,
            remedy=f"keep one of them, or {COLUMNS}{there[0]}}}",
        )
    if not there:
        for one in [name for name in ANSWERS if name in cells.row]:
            if cells.row[one] is not None and absent(cells.row[one]):
                text(cells.row[one], cells.at(one))
            cells.take(one)
        return []
    name = own if own in there else there[0]
    value = cells.take(name)
    if "label" in cells.there:
        _refuse_rated(name, cells)
    if is_turns(value):
        return turns(value, cells.at(name), ignored)
    return [Message("assistant", answer(value, cells.at(name)))]


def unanswered(row: Mapping[str, object], where: str) -> DataError:
    """The error for a row without an answer; it names the column in which this form has it."""
    lack = "has no answer to learn or to compare with"
    asked = next((one for one in QUESTIONS if not blank(row.get(one))), None)
    if asked is None or any(not absent(row.get(one)) for one in TURNS):
        return DataError(
            lack, where=where, remedy="end the conversation with an assistant turn, or leave it out"
        )
    empty = [one for one in ANSWERS if one in row]
    if empty and blank(row[empty[0]]):
        said = f"`{empty[0]}` is empty, so this row {lack}"
        return DataError(said, where=where, remedy=f"fill `{empty[0]}`, or leave the row out")
    if empty:
        return DataError(lack, where=f"{where}: {empty[0]}", remedy="end it with an assistant turn")
    key = QUESTIONS[asked]
    return DataError(
        f"has no `{key}` beside `{asked}`, so it {lack}",
        where=where,
        remedy=f"fill `{key}`, or {COLUMNS}my_answer}}",
    )


def _question(asked: str, said: str, cells: Cells) -> str:
    """The question with what belongs to it: the context before it, alpaca's input behind it."""
    if "context" in cells.row and (context := cells.text("context")):
        said = f"{context}\n\n{said}"
    if asked == "instruction" and (more := cells.text("input")):
        said = f"{said}\n\n{more}"
    if asked == "input":
        cells.take("instruction")
    return said


def _refuse_rated(name: str, cells: Cells) -> None:
    """Refuse rows that say whether their answer is wanted: some are examples of what is not."""
    rated = cells.there["label"]
    if isinstance(rated, bool):
        raise DataError(
            f"says whether `{name}` is wanted ({str(rated).lower()}), as rows for KTO do",
            where=cells.at("label"),
            remedy="keep the rows whose label is true, and leave the column out",
        )
