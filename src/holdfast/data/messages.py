"""Reads the turns of a conversation, however their file spells roles, texts and tool calls.

A turn becomes a `Message`: its role by one of five names, its content as one text, its tool calls
as chat templates of transformers expect them (arguments as an object), its reasoning under
``reasoning_content``, and a weight of 0 where no loss is to be taken on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.data.cells import absent, blank, kind, parsed, shown, text
from holdfast.data.tool_calls import calls
from holdfast.errors import DataError
from holdfast.types import Message, Role

ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "claude": "assistant",
    "gemini": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "llm": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "ipython": "tool",
    "environment": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function_response": "tool",
    "function_result": "tool",
}
"""By the names that files use, in small letters and with _ for spaces: those of OpenAI's messages,
of sharegpt dumps, of LLaMA-Factory, of Llama's and Gemma's templates."""
CALLS = {"function_call", "function_calls", "tool_call", "tool_calls"}
"""Roles of turns whose text is the assistant's tool calls, as JSON."""
ROLE, TEXT = ("role", "from", "speaker"), ("content", "value", "text")
REASONING = ("reasoning_content", "reasoning", "thinking")
WEIGHT = ("weight", "train", "training", "loss")
"""OpenAI's and Mistral's, Axolotl's two, ms-swift's."""
NAMES = ("name", "tool_call_id")
PAIRS = (
    ("input", "output"), ("human", "assistant"), ("user", "assistant"), ("query", "response"),
    ("question", "answer"), ("prompt", "response"),
)  # fmt: skip
"""Keys of objects that hold a question and its answer: two turns in one."""
PLAIN = {*ROLE, *TEXT}
KNOWN = {*ROLE, *TEXT, *REASONING, *WEIGHT, *NAMES, "tool_calls", "function_call"}
PARTS = {"text", "input_text", "output_text"}
THOUGHTS = {"thinking", "reasoning"}
WRITE = (
    'a turn is {"role": "user", "content": "..."} or {"from": "human", "value": "..."}; roles: '
    "system, developer, user (human), assistant (gpt, model, bot), tool (observation, ipython), "
    "function_call"
)


def turns(value: object, where: str, ignored: set[str]) -> list[Message]:
    """The turns of a list of them, of its JSON, or of an object of lists (as Arrow has them).

    Args:
        value: the cell.
        where: file, line and column, for messages; the last word is the column.
        ignored: gets the names of fields of turns that nothing is done with.

    Raises:
        DataError: it is something else, or a turn is; the turn is counted from 1.
    """
    found: list[Message] = []
    column = where.rpartition(" ")[2]
    for number, turn in enumerate(_listed(parsed(value, where), where), start=1):
        if one := _simple(turn):
            found.append(one)
            continue
        at = f"{where}: turn {number}"
        for one in _messages(turn, at, column, ignored):
            calls = one.extra.get("tool_calls")
            if calls and not one.content and found and found[-1].role == "assistant":
                found[-1] = _joined(found[-1], one, at)
            else:
                found.append(one)
    return found


def pairs(value: object, where: str, ignored: set[str]) -> list[Message]:
    """The turns of a history: pairs of a question and its answer, or turns.

    Raises:
        DataError: see `turns`.
    """
    value = parsed(value, where)
    if not isinstance(value, list | tuple) or any(isinstance(one, Mapping) for one in value):
        return turns(value, where, ignored)
    found = []
    for number, pair in enumerate(value, start=1):
        at = f"{where}: pair {number}"
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise DataError(
                f"is {kind(pair)}, not a question and its answer",
                where=at,
                remedy='write [["question", "answer"], ...], or turns: ' + WRITE,
            )
        for role, said in zip(("user", "assistant"), pair, strict=True):
            found.append(_speaks(Message(ROLES[role], text(said, at)), at))
    return found


def is_turns(value: object) -> bool:
    """Whether a cell that may hold text holds turns: a list of them, one alone, or their JSON."""
    if isinstance(value, str):
        start = value.lstrip()[:2000]
        if not start.startswith(("[", "{")) or not any(f'"{one}"' in start for one in ROLE):
            return False
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    if isinstance(value, Mapping):
        return any(key in value for key in ROLE)
    return isinstance(value, list | tuple) and any(
        isinstance(turn, Mapping) and any(key in turn for key in ROLE) for turn in value
    )


def _listed(value: object, where: str) -> Sequence[object]:
    if isinstance(value, Mapping):
        if any(key in value and isinstance(value[key], str) for key in ROLE):
            return [value]
        lists = {key: some for key, some in value.items() if isinstance(some, list | tuple)}
        if any(key in lists for key in ROLE) and len({len(some) for some in lists.values()}) == 1:
            one_each = zip(*lists.values(), strict=True)
            return [dict(zip(lists, turn, strict=True)) for turn in one_each]
    if not isinstance(value, list | tuple):
        raise DataError(f"is {kind(value)}, not a list of turns", where=where, remedy=WRITE)
    if not value:
        raise DataError("holds no turn", where=where, remedy=WRITE)
    return value


def _simple(turn: object) -> Message | None:
    """A turn of a role and a text that are beyond doubt; None: look closer."""
    if not isinstance(turn, dict) or len(turn) != 2:
        return None
    name, said = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if not isinstance(name, str) or not isinstance(said, str) or not said.isascii():
        return None
    role = ROLES.get(name)
    return (
        Message(role, said) if role and said and not said.isspace() and "\0" not in said else None
    )


def _messages(turn: object, at: str, column: str, ignored: set[str]) -> Iterator[Message]:
    """The message that a turn is; two where it is a pair."""
    if not isinstance(turn, Mapping):
        raise DataError(
            f"is {kind(turn)}, not an object with a role and a content", where=at, remedy=WRITE
        )
    if all(absent(turn.get(key)) for key in ROLE):
        for asked, said in PAIRS:
            if not (absent(turn.get(asked)) or absent(turn.get(said))):
                left = turn.keys() - {asked, said, "system"}
                ignored.update(f"{column}[].{key}" for key in left if not blank(turn[key]))
                if not blank(turn.get("system")):
                    yield Message("system", text(turn["system"], at))
                yield _speaks(Message("user", text(turn[asked], at)), at)
                yield _speaks(Message("assistant", text(turn[said], at)), at)
                return
    yield _message(turn, at, column, ignored)


def _message(turn: Mapping[str, Any], at: str, column: str, ignored: set[str]) -> Message:
    name, role = _role(turn, at)
    at = f"{at} ({name})"
    said = _one(turn, TEXT, at)
    extra: dict[str, Any] = {}
    if name in CALLS:
        extra["tool_calls"] = calls(said, at)
        said = ""
    if turn.keys() - PLAIN:
        extra |= _extra(turn, role, at)
        for key in turn.keys() - KNOWN:
            if not blank(turn[key]):
                _refuse_tools(key, turn[key], at)
                ignored.add(f"{column}[].{shown(key)}")
    if isinstance(said, str):
        content = text(said, at)
    elif said is None:
        content = ""
        if role == "system" or not any(key in turn for key in TEXT):
            content = _nothing(extra, at)
    elif role == "tool" and not _are_parts(said):
        content = json.dumps(said, ensure_ascii=False)
    else:
        content, thought = _parts(said, at)
        if thought:
            extra |= _reasoning(role, thought, extra, at)
    return _speaks(Message(role, content, extra), at)


def _nothing(extra: Mapping[str, Any], at: str) -> str:
    if "tool_calls" in extra:
        return ""
    raise DataError("has no content", where=at, remedy=WRITE)


def _speaks(message: Message, at: str) -> Message:
    """A turn, unless it should say something and does not."""
    must = message.role in ("user", "assistant") and "tool_calls" not in message.extra
    if must and not message.content.strip():
        raise DataError(
            "says nothing" + (" but its reasoning" if "reasoning_content" in message.extra else ""),
            where=at,
            remedy="fill the turn, or leave the row out",
        )
    return message


def _role(turn: Mapping[str, Any], at: str) -> tuple[str, Role]:
    """A turn's role, as it is spelled and as it is known."""
    said = _one(turn, ROLE, at)
    if said is None:
        raise DataError("has no role", where=at, remedy=WRITE)
    if isinstance(said, str):
        name = said if said in ROLES else said.strip().casefold().translate(_SPACES)
        if name in CALLS:
            return name, "assistant"
        if name in ROLES:
            return name, ROLES[name]
    shown_role = repr(shown(said)) if isinstance(said, str) else kind(said)
    raise DataError(f"has the role {shown_role}, which is not known", where=at, remedy=WRITE)


_SPACES = str.maketrans("- ", "__")


def _one(turn: Mapping[str, Any], names: Sequence[str], at: str) -> Any:
    """What stands under one of several keys of the same meaning; None: nothing."""
    found = [(name, turn[name]) for name in names if name in turn and not absent(turn[name])]
    if len(found) > 1 and any(value != found[0][1] for _, value in found):
        raise DataError(
            f"has {' and '.join(name for name, _ in found)}, which mean the same and differ",
            where=at,
            remedy="keep one of them",
        )
    return found[0][1] if found else None


def _extra(turn: Mapping[str, Any], role: Role, at: str) -> dict[str, Any]:
    """What a turn has beyond its role and its content."""
    extra: dict[str, Any] = {}
    for key in NAMES:
        if not blank(turn.get(key)):
            extra[key] = text(turn[key], f"{at}: {key}")
    given = {key: turn[key] for key in ("tool_calls", "function_call") if not blank(turn.get(key))}
    given = {key: value for key, value in given.items() if value not in ([], {}, "[]")}
    if given:
        if role != "assistant" or len(given) > 1:
            why = "has both tool_calls and function_call" if len(given) > 1 else "has tool calls"
            raise DataError(
                why, where=at, remedy="tool calls are the assistant's, in `tool_calls` alone"
            )
        extra["tool_calls"] = calls(next(iter(given.values())), at)
    if (thought := _one(turn, REASONING, at)) is not None and not blank(thought):
        extra |= _reasoning(role, text(thought, f"{at}: reasoning_content"), extra, at)
    if (counted := _one_weight(turn, at)) is not None:
        if role != "assistant" and counted:
            raise DataError(
                "has a weight of 1, but loss is taken on the assistant's turns only",
                where=at,
                remedy="leave the weight out of turns of others, or write 0",
            )
        if role == "assistant" and not counted:
            extra["weight"] = 0
    return extra


def _reasoning(role: Role, thought: str, extra: Mapping[str, Any], at: str) -> dict[str, str]:
    if role != "assistant" or extra.get("reasoning_content", thought) != thought:
        why = "has two reasonings that differ" if role == "assistant" else "has a reasoning"
        raise DataError(
            why, where=at, remedy="write one `reasoning_content`, beside the assistant's content"
        )
    return {"reasoning_content": thought}


def _one_weight(turn: Mapping[str, Any], at: str) -> int | None:
    found = [weight(turn[key], f"{at}: {key}") for key in WEIGHT if not absent(turn.get(key))]
    if len(set(found)) > 1:
        raise DataError(
            f"is counted and is not ({', '.join(key for key in WEIGHT if key in turn)})",
            where=at,
            remedy="keep one of these keys",
        )
    return found[0] if found else None


def weight(value: object, where: str) -> int:
    """A weight: 1 (true) or 0 (false).

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    raise DataError(
        f"is {kind(value)}: a turn is learned (1) or not (0)",
        where=where,
        remedy="write 0 or 1; to have some rows count for more, name their file twice",
    )


def _refuse_tools(key: object, value: object, at: str) -> None:
    if key in ("tools", "functions") and value not in ([], "[]"):
        raise DataError(
            f"has `{key}` of its own",
            where=at,
            remedy=f"put `{key}` beside the list of turns: they are the whole conversation's",
        )


def _joined(before: Message, calling: Message, at: str) -> Message:
    """An assistant's turn with the calls that follow it as a turn of their own."""
    more = {key: one for key, one in calling.extra.items() if key != "tool_calls"}
    if before.weight != calling.weight:
        raise DataError(
            "has another weight than the assistant's turn that it goes on with",
            where=at,
            remedy="give both turns the same weight",
        )
    several = [*before.extra.get("tool_calls", ()), *calling.extra["tool_calls"]]
    return Message("assistant", before.content, {**before.extra, **more, "tool_calls": several})


def _are_parts(value: object) -> bool:
    return isinstance(value, list | tuple) and any(
        isinstance(part, Mapping) and ("type" in part and "text" in part) for part in value
    )


def _parts(value: object, at: str) -> tuple[str, str]:
    """A content that is a list of parts as one text, and the reasoning among them."""
    if not isinstance(value, list | tuple):
        raise DataError(
            f"is {kind(value)} where text is meant",
            where=at,
            remedy="write one text, as the model is to see it",
        )
    said, thought = [], []
    for number, part in enumerate(value, start=1):
        place = f"{at}: part {number}"
        if isinstance(part, str):
            said.append(text(part, place))
            continue
        if not isinstance(part, Mapping):
            raise DataError(
                f"is {kind(part)}, not a part of a content",
                where=place,
                remedy='write one text, or [{"type": "text", "text": "..."}]',
            )
        what = part.get("type", "text")
        held = {key for key, one in part.items() if not absent(one)} - {"type"}
        if what in THOUGHTS and isinstance(part.get(what, part.get("text")), str):
            thought.append(text(part.get(what, part.get("text")), place))
        elif what in PARTS and held <= {"text", "annotations", "cache_control"} and "text" in held:
            said.append(text(part["text"], place))
        else:
            more = held - {"text"} if what in PARTS else set()
            name = shown(next(iter(sorted(more)), what))
            raise DataError(
                f"is of the kind {name!r}: only text is trained on and asked",
                where=place,
                remedy="leave rows with images, audio or video out, or write what is in them as "
                "text",
            )
    return "".join(said), "".join(thought)
