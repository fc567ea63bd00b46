"""What does one line of answers that were made elsewhere say?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.errors import DataError
from holdfast.runs import store
from holdfast.types import Reply

TEXTS = ("text", "reply", "response", "completion", "output")
PROMPTS = ("prompt", "question")
IDS = ("example_id", "id")
FORM = "{id or prompt, reply} on every line: {'id': 'test-1', 'reply': '...'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line; its reply does not know yet which item it belongs to."""

    file: str
    line: str
    task: str | None
    id: str | None
    prompt: str | None
    reply: Reply


def rows_of(path: Path, tasks: Iterable[str]) -> Iterator[Row]:
    """The lines of one file, or of a folder's ``TASK.jsonl`` or ``TASK/replies.jsonl``.

    Args:
        path: of the answers.
        tasks: that are compared.

    Raises:
        DataError: a line that is not understood, or a folder without such files.
    """
    asked = list(tasks)
    if not path.is_dir():
        for number, value in store.read_objects(path):
            yield _row(value, number, str(path))
        return
    files = {
        task: file
        for task in asked
        for file in (path / task / "replies.jsonl", path / f"{task}.jsonl")
        if file.is_file()
    }
    if not files:
        raise DataError(
            "holds neither TASK.jsonl nor TASK/replies.jsonl of any task that is compared",
            where=str(path),
            remedy=f"name a file, or a folder with {asked[0]}.jsonl",
        )
    for task, file in files.items():
        for number, value in store.read_objects(file):
            yield _row(value, number, str(file), task)


def _row(value: Any, number: int, file: str, task: str | None = None) -> Row:
    where = f"{file}:{number}"
    if not isinstance(value, dict):
        raise DataError("is not a JSON object", where=where, remedy=f"write {FORM}")
    text = next((value[key] for key in TEXTS if isinstance(value.get(key), str)), None)
    if text is None:
        raise DataError(
            f"has no reply: none of {', '.join(TEXTS)} is a text (its keys: "
            f"{', '.join(map(str, value)) or 'none'})",
            where=where,
            remedy=f"write {FORM}; an empty answer is the text ''",
        )
    prompt = next((_text(value[key]) for key in PROMPTS if _text(value.get(key))), None)
    name = next((value[key] for key in IDS if isinstance(value.get(key), str | int)), None)
    if prompt is None and name is None:
        raise DataError(
            "says neither by id nor by prompt which item it answers",
            where=where,
            remedy=f"write {FORM}",
        )
    named = value.get("task") or task
    sample = value.get("sample", 0)
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 0:
        raise DataError(f"sample is {sample!r}", where=where, remedy="number samples 0, 1, ...")
    tokens = value.get("n_tokens")
    reply = Reply("", sample, text, _finish(value), _count(tokens))
    line = f"{number} ({task})" if task else str(number)
    return Row(file, line, named and str(named), None if name is None else str(name), prompt, reply)


def _finish(value: Mapping[str, Any]) -> Literal["stop", "length", "filtered"]:
    """How an answer ended, in our words or in those of the protocol that servers speak."""
    said = (value.get("finish"), value.get("finish_reason"))
    if "filtered" in said or "content_filter" in said:
        return "filtered"
    return "length" if "length" in said else "stop"


def _count(tokens: Any) -> int:
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else 0


def _text(value: Any) -> str | None:
    """A prompt: a text, or the last user turn of a conversation."""
    if isinstance(value, list):
        turns = [one.get("content") for one in value if isinstance(one, dict)]
        value = turns[-1] if turns else None
    return value if isinstance(value, str) and value.strip() else None
