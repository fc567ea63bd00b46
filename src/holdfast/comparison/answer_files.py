"""Reads answers that were made elsewhere, and matches them with the questions.

A line is matched by its id or by its prompt, whatever the spacing, case and width of the letters.
What does not match, what is there twice and what is missing is counted and named by its line:
figures on half-matched answers would look like any others.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from holdfast.data import containers, thinking
from holdfast.errors import DataError
from holdfast.runs import store
from holdfast.types import Example, Reply

TEXTS = ("text", "reply", "response", "completion", "output")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""What was thought before the answer, where it stands apart."""
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
        for number, where, value in list(containers.rows(path)):
            yield _row(value, number, where, str(path))
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
        for number, where, value in list(containers.rows(file)):
            yield _row(value, number, where, str(file), task)


def _row(value: Any, number: int, where: str, file: str, task: str | None = None) -> Row:
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
    sample = value.get("sample") or 0
    if isinstance(sample, str) and sample.isdecimal():  # of a table, whose cells are text
        sample = int(sample)
    if not isinstance(sample, int) or isinstance(sample, bool) or sample < 0:
        raise DataError(f"sample is {sample!r}", where=where, remedy="number samples 0, 1, ...")
    reply = _with_thinking(
        value, Reply("", sample, text, _finish(value), _count(value, "n_tokens"))
    )
    line = f"{number} ({task})" if task else str(number)
    return Row(file, line, named and str(named), None if name is None else str(name), prompt, reply)


def _finish(value: Mapping[str, Any]) -> Literal["stop", "length", "filtered"]:
    """How an answer ended, in our words or in those of the protocol that servers speak."""
    said = (value.get("finish"), value.get("finish_reason"))
    if "filtered" in said or "content_filter" in said:
        return "filtered"
    return "length" if "length" in said else "stop"


def _with_thinking(value: Mapping[str, Any], reply: Reply) -> Reply:
    """The reply with what was thought in front, where the line gives that apart."""
    thought = next((value[key] for key in THOUGHTS if isinstance(value.get(key), str)), "").strip()
    text = reply.text
    if thought and not thinking.split(text).blocks:
        closed = reply.finish != "length" or bool(text.strip())
        text = thinking.written(thought, text, closed)
    return replace(reply, text=text, thinking_tokens=_count(value, "thinking_tokens"))


def _count(value: Mapping[str, Any], key: str) -> int:
    tokens = value.get(key)
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else 0


def _text(value: Any) -> str | None:
    """A prompt: a text, or the last user turn of a conversation."""
    if isinstance(value, list):
        turns = [one.get("content") for one in value if isinstance(one, dict)]
        value = turns[-1] if turns else None
    return value if isinstance(value, str) and value.strip() else None


SHOWN = 5
SPACED = " (--limit takes items evenly spaced over the split, not the first ones)"


@dataclass
class Given:
    """What one file holds.

    Attributes:
        file: its name, as its user gave it.
        mark: hash of its content.
        replies: by task, in the order of the items.
        missing: by task, the ids of items without a reply.
        notes: what a reader must know.
    """

    file: str
    mark: str
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


Taken = dict[tuple[str, str], dict[int, Row]]
"""By task and item: its rows by sample."""


def read(
    path: Path,
    asked: Mapping[str, Sequence[Example]],
    whole: Mapping[str, Sequence[Example]],
    allow_missing: float,
) -> Given:
    """Match one file, or one folder with ``TASK.jsonl`` or ``TASK/replies.jsonl``.

    Args:
        path: of the answers.
        asked: the items that count, by task.
        whole: all items of the split, by task: answers to those that do not count are no mistake.
        allow_missing: share of a task's items that may lack a reply, and of lines that may match
            nothing.

    Raises:
        DataError: a line that is not understood, two different answers to one item, too many that
            match nothing or are missing; naming lines and remedy.
    """
    every = list(rows_of(path, asked))
    rows = [row for row in every if row.task is None or row.task in asked]
    if not rows:
        others = ", ".join(sorted({str(row.task) for row in every}))
        what = f"only replies to {others}" if others else "no replies"
        raise DataError(f"holds {what}", where=str(path), remedy=f"write {FORM}")
    found = Given(str(path), store.fingerprint([[r.task, r.id, r.prompt, r.reply] for r in rows]))
    taken, unmatched, twice = _match(rows, whole)
    if len(unmatched) > allow_missing * len(rows):
        share = math.ceil(100 * len(unmatched) / len(rows)) / 100
        raise DataError(
            f"{len(unmatched)} of {len(rows)} replies match no item by id or prompt "
            f"(lines {_listed(unmatched)})",
            where=str(path),
            remedy=f"check that these are answers to {', '.join(asked)}, of the same data and "
            "split; a prompt must be the item's own, word for word. Answers to another task as "
            f"well? Add it to --tasks, or leave them out: --allow-missing {share:g}",
        )
    _refuse_shifted(path, rows, unmatched)
    if unmatched:
        found.notes.append(
            f"{path.name}: {len(unmatched)} replies match no item and are left out "
            f"(lines {_listed(unmatched)})."
        )
    if twice:
        found.notes.append(f"{path.name}: lines {_listed(twice)} say again what was said before.")
    for task, examples in asked.items():
        few = len(examples) < len(whole[task])
        _collect(found, path, task, examples, taken, allow_missing, few)
    return found


def _refuse_shifted(path: Path, rows: Sequence[Row], unmatched: Sequence[str]) -> None:
    """Refuse bare numbers as ids, without prompts, where some match nothing.

    A file numbered from 0 where the items begin at 1 matches all but one line, and every reply
    stands beside the wrong question.

    Raises:
        DataError: naming the lines.
    """
    numbered = [row for row in rows if row.prompt is None and (row.id or "").isdecimal()]
    lost = sorted({row.line for row in numbered} & set(unmatched))
    if lost:
        raise DataError(
            f"its ids are bare numbers and lines {_listed(lost)} match no item: are the others one "
            "off (numbered from 0)?",
            where=str(path),
            remedy="add the prompt to every line, or number them as the items are",
        )


def _match(rows: Sequence[Row], whole: Mapping[str, Sequence[Example]]) -> tuple[
    Taken, list[str], list[str]
]:  # fmt: skip
    """Rows by item and sample, the lines that match nothing, and those that are there twice."""
    index = {task: _Index(examples) for task, examples in whole.items()}
    taken: Taken = {}
    unmatched: list[str] = []
    twice: list[str] = []
    for row in rows:
        at = _place(row, index, taken)
        if at is None:
            unmatched.append(row.line)
            continue
        earlier = taken.setdefault(at, {}).setdefault(row.reply.sample, row)
        if earlier is row:
            continue
        if earlier.reply.text != row.reply.text:
            raise DataError(
                f"answers the same item as line {earlier.line}, and differently",
                where=f"{row.file}:{row.line}",
                remedy="keep one of them, or number the answers to one item: sample 0, 1, ...; "
                "or, if the lines belong to two tasks, say which: {'task': '...'}",
            )
        twice.append(row.line)
    return taken, unmatched, twice


def _collect(
    found: Given,
    path: Path,
    task: str,
    examples: Sequence[Example],
    taken: Taken,
    allow_missing: float,
    few: bool,
) -> None:
    """Put the replies of one task in order, and say what is missing."""
    there = [(one.id, taken.get((task, one.id), {})) for one in examples]
    replies = [
        replace(rows[number].reply, example_id=name)
        for name, rows in there
        for number in sorted(rows)
    ]
    missing = [name for name, rows in there if not rows]
    if not replies:
        return
    lacks = f"{len(missing)} of {len(examples)} items of {task} have no reply"
    if len(missing) > allow_missing * len(examples):
        share = math.ceil(100 * len(missing) / len(examples)) / 100
        raise DataError(
            f"{lacks} (the first is {missing[0]!r})",
            where=str(path),
            remedy=f"answer them too{SPACED if few else ''}, or count them as unscored: "
            f"--allow-missing {share:g}",
        )
    found.replies[task], found.missing[task] = replies, missing
    if missing:
        found.notes.append(f"{path.name}: {lacks}; they are unscored.")


class _Index:
    """The items of one task by id and by prompt."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.ids = {one.id: one for one in examples}
        self.prompts: dict[str, list[str]] = {}
        for one in examples:
            for text in dict.fromkeys(prompts_of(one)):
                self.prompts.setdefault(text, []).append(one.id)


def prompts_of(example: Example) -> list[str]:
    """What an item may be recognised by: the bare question, and its whole last turn."""
    return [normal(example.question), normal(example.messages[-1].content)]


def normal(text: str) -> str:
    """A text without what copying changes: spacing, case, width of letters."""
    return " ".join(unicodedata.normalize("NFKC", text).split()).casefold()


def _place(row: Row, index: Mapping[str, _Index], taken: Taken) -> tuple[str, str] | None:
    """Task and id of the item that a row answers; None: it matches none."""
    tasks = [row.task] if row.task is not None else list(index)
    by_id = [task for task in tasks if row.id is not None and row.id in index[task].ids]
    said = None if row.prompt is None else normal(row.prompt)
    if said is not None:
        named = [t for t in by_id if said in prompts_of(index[t].ids[row.id or ""])]
        if named:
            return named[0], row.id or ""
        for task in tasks:  # the id is the user's own: the prompt decides
            same = index[task].prompts.get(said, [])
            free = [one for one in same if row.reply.sample not in taken.get((task, one), {})]
            if same:
                return task, (free or same)[0]
        return None
    if len(by_id) > 1:
        raise DataError(
            f"the id {row.id!r} is one of {' and of '.join(by_id)}",
            where=f"{row.file}:{row.line}",
            remedy="add the prompt or the name of the task to every line ({'task': "
            f"'{by_id[0]}', ...}}), or compare one task at a time with --tasks",
        )
    return (by_id[0], row.id or "") if by_id else None


def _listed(lines: Sequence[str]) -> str:
    return ", ".join(lines[:SHOWN]) + (", ..." if len(lines) > SHOWN else "")
