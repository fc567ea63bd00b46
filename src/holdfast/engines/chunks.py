"""Work in chunks that are kept: each is a file of its own, written atomically.

In its last line stand a digest of its rows and what they cost. Interrupted, work goes on with the
first chunk that is not there as it was written. The chunks stay until the stage is finished
(`holdfast.runs.stages.PARTS`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast.engines import Usage
from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.rows import as_row
from holdfast.runs.stages import PARTS
from holdfast.types import Example, Reply

CHUNK = 512
REPLIES = "replies.jsonl"
SOME = "some"
"""Among the parts: the answers of the chunk under way, as far as they are there."""
END = "end"
"""In the last line of a chunk: a digest of its rows, and what they cost."""


def in_chunks(
    work: Callable[[Sequence[Example]], list[list[Reply]]],
    examples: Sequence[Example],
    folder: Path,
    progress: Progress,
    name: str = REPLIES,
    chunk: int = CHUNK,
    *,
    spent: Usage | None = None,
) -> list[Reply]:
    """What `work` makes of all examples; continues a half-done folder.

    Args:
        work: answers some examples and advances the progress.
        examples: what is asked, in the order of the file.
        folder: of the stage; chunks lie in ``folder/parts`` until all are there.
        progress: told what was done before.
        name: of the finished file.
        chunk: questions asked, and written down, together.
        spent: of the last call of `work`; None: it is not counted.
    """
    progress.total(len(examples), "answers")
    replies: list[Reply] = []
    for index, start in enumerate(range(0, len(examples), chunk)):
        some = examples[start : start + chunk]
        part = folder / PARTS / f"{name}.{index:05d}"
        kept = read_part(part, progress)
        if kept is not None and _answers_to(some, kept):
            replies += [as_row(Reply, row, str(part)) for row in kept]
            progress.kept(len(some))
            continue
        flat = [reply for samples in work(some) for reply in samples]
        write_part(part, flat, spent)
        (folder / PARTS / SOME).unlink(missing_ok=True)
        replies += flat
    store.write_jsonl(folder / name, replies)
    return replies


def _answers_to(asked: Sequence[Example], rows: Sequence[Mapping[str, object]]) -> bool:
    """Whether a chunk holds the answers to these questions and to no others."""
    return {one.id for one in asked} == {row.get("example_id") for row in rows}


def write_part(part: Path, rows: Sequence[object], spent: Usage | None = None) -> None:
    """Keep a chunk of work that is done, and what it cost, in one.

    Args:
        part: its file.
        rows: what came of it.
        spent: what it took; None: that is not counted.
    """
    end = {"rows": store.fingerprint_rows(rows), "spent": asdict(spent or Usage())}
    store.write_jsonl(part, [*rows, {END: end}])


def read_part(part: Path, progress: Progress) -> list[Any] | None:
    """The rows of a chunk that is done already; None where it has to be done, or done again.

    Args:
        part: its file.
        progress: is told of one that is not as it was written.
    """
    if not part.is_file():
        return None
    if (rows := rows_of(part)) is None:
        progress.say(f"{part} is damaged: its answers are asked for again")
        return None
    return rows[:-1]


def rows_of(part: Path) -> list[Any] | None:
    """What is in a chunk, its last line included; None where that is not as it was written."""
    try:
        rows = [value for _, value in store.read_objects(part)]
    except HoldfastError:
        return None
    match rows[-1:]:
        case [{"end": {"rows": str(mark), "spent": {}}}] if mark == store.fingerprint_rows(
            rows[:-1]
        ):
            return rows
    return None


def spent_in(folder: Path) -> Usage:
    """What all chunks in the folder of a stage cost, whoever did them and when."""
    total = Usage()
    for part in sorted((folder / PARTS).glob("*")):
        if part.name != SOME and (rows := rows_of(part)) is not None:
            spent = as_row(Usage, rows[-1][END]["spent"], str(part))
            total.read += spent.read
            total.written += spent.written
    return total
