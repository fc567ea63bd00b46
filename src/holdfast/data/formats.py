"""Reads a training or test item out of one row of a user's file, whichever known form it has.

Five forms are recognised by their keys, row by row: ``messages``, sharegpt ``conversations``,
alpaca ``instruction/input/output``, ``prompt/completion`` and ``question/answer``.
"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import DataError
from holdfast.types import Message, Role

ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""By the names that files use: those of OpenAI's messages and of sharegpt."""
ANSWERS = {"instruction": "output", "prompt": "completion", "question": "answer"}
"""By the key of the question, in the order in which forms are recognised: that of the answer."""
FORMS = "messages, conversations, instruction/output, prompt/completion or question/answer"


def conversation(row: object, where: str) -> tuple[tuple[Message, ...], str | None]:
    """The prompt and the answer of one line, whichever form it has.

    Raises:
        DataError: no known form, an unknown role, or no user turn; `where` names the line.
    """
    if not isinstance(row, dict):
        raise DataError("is not a JSON object", where=where, remedy=f"write {FORMS}")
    match row:
        case {"messages": list() as turns}:
            messages = [_turn(turn, "role", "content", where) for turn in turns]
        case {"conversations": list() as turns}:
            messages = [_turn(turn, "from", "value", where) for turn in turns]
        case {"instruction": str() as text, **rest}:
            if rest.get("input"):
                text = f"{text}\n\n{rest['input']}"
            messages = _pair(text, rest.get("output"), rest.get("system"))
        case {"prompt": str() as text, **rest}:
            messages = _pair(text, rest.get("completion"), None)
        case {"prompt": list() as turns, **rest}:
            more = rest.get("completion") or []
            messages = [_turn(turn, "role", "content", where) for turn in [*turns, *more]]
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


def unanswered(row: Mapping[str, object], where: str) -> DataError:
    """The error for a line without an answer; it names the key in which this form has it."""
    asked = next((one for one in ANSWERS if isinstance(row.get(one), str)), None)
    lack = "has no answer to learn or to compare with"
    if "messages" in row or "conversations" in row or asked is None:
        return DataError(lack, where=where, remedy="end the conversation with an assistant turn")
    key = ANSWERS[asked]
    return DataError(
        f"has no `{key}` beside `{asked}`, so it {lack}", where=where, remedy=f"fill `{key}`"
    )


def _turn(turn: object, role_key: str, text_key: str, where: str) -> Message:
    values = turn if isinstance(turn, dict) else {}
    role, text = ROLES.get(str(values.get(role_key))), values.get(text_key)
    if role is None or not isinstance(text, str):
        raise DataError(
            f"a turn needs {role_key} (user, assistant, system, human, gpt) and {text_key} (text)",
            where=where,
            remedy="mend this line",
        )
    return Message(role, text)


def _pair(prompt: str, answer: object, system: object) -> list[Message]:
    messages = [Message("system", str(system))] if system else []
    messages.append(Message("user", prompt))
    if answer is not None:
        messages.append(Message("assistant", str(answer)))
    return messages
