"""Puts a task's items to a model and keeps what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.config import Sampling
from holdfast.data import thinking
from holdfast.data.windows import TEXT
from holdfast.engines.chunks import CHUNK, REPLIES, in_chunks
from holdfast.engines.pool import EnginePool
from holdfast.engines.resumable import answering
from holdfast.errors import DataError
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.types import Example, ModelRef, Reply

BEGINNING = 200
"""Characters of a text that are kept beside its loss."""
QUESTIONS = "questions.jsonl"
"""Beside the base's replies: the bare question of every item, so that replies can be shown without
the data."""


def answer_items(
    pool: EnginePool,
    ref: ModelRef,
    examples: Sequence[Example],
    sampling: Sampling,
    folder: Path,
    progress: Progress,
    chunk: int = CHUNK,
) -> Mapping[str, object]:
    """Ask one model all items of one task; writes ``replies.jsonl``.

    Args:
        pool: lends the engine.
        ref: the weights to ask; its adapter goes on top of its base.
        examples: the items.
        sampling: how.
        folder: of the stage.
        progress: is advanced per item.
        chunk: see `chunks.in_chunks`.
    """
    base = replace(ref, adapter=None, scale=1.0)
    work = answering(lambda: pool.engine(base), sampling, folder, progress, ref.adapter, ref.scale)
    replies = in_chunks(work, examples, folder, progress, chunk=chunk)
    return {**summary_of(replies), "device": pool.about}


def summary_of(replies: Sequence[Reply]) -> dict[str, object]:
    """How replies ended and how long they are, for the record of their stage.

    `thinking` is there only where a model thought: in how many replies, how many of them ended
    before any answer, and the mean of the tokens that were thought, over all replies; None where
    nobody counted them.
    """
    ends = Counter(reply.finish for reply in replies)
    found: dict[str, object] = {
        "replies": len(replies),
        "cut_off": ends["length"],
        "withheld": ends["filtered"],
        "mean_tokens": round(sum(one.n_tokens for one in replies) / max(1, len(replies)), 1),
    }
    apart = [(one, thinking.split(one.text)) for one in replies]
    thought = [pair for pair in apart if pair[1].thinking or pair[0].thinking_tokens]
    if not thought and all(said.closed for _, said in apart):
        return found
    tokens = [thinking.tokens_of(*pair) for pair in thought]
    counted = all(count is not None for count in tokens)
    mean = round(sum(count or 0 for count in tokens) / len(replies), 1) if counted else None
    cut_off = sum(thinking.unfinished(*pair) for pair in apart)
    return found | {"thinking": {"in": len(thought), "cut_off": cut_off, "mean_tokens": mean}}


def write_questions(examples: Sequence[Example], folder: Path) -> None:
    """Write the bare question of every item beside its replies; of a whole text its beginning."""
    rows = (
        {"id": one.id, "question": one.question[:BEGINNING] if TEXT in one.meta else one.question}
        for one in examples
    )
    store.write_jsonl(folder / QUESTIONS, rows)


def read_replies(folder: Path) -> list[Reply]:
    """What `answer` wrote."""
    return store.read_jsonl(folder / REPLIES, Reply)


def paired(examples: Sequence[Example], replies: Path) -> Iterator[tuple[Example, Reply]]:
    """Every item with its answers: stored replies, without what was thought before.

    Whatever grades, judges or scores replies reads them here or in `stored`.
    """
    return ((item, thinking.answered(reply)) for item, reply in stored(examples, replies))


def stored(examples: Sequence[Example], replies: Path) -> Iterator[tuple[Example, Reply]]:
    """Every item with its replies as they are stored, thinking included.

    Raises:
        DataError: a reply to an item that there is not.
    """
    by_id = {one.id: one for one in examples}
    for reply in store.iterate_jsonl(replies / REPLIES, Reply):
        if reply.example_id not in by_id:
            raise DataError(
                f"holds a reply to {reply.example_id!r}, which the task does not have",
                where=str(replies),
                remedy="the replies belong to other data; run with --rebuild 'replies/*'",
            )
        yield by_id[reply.example_id], reply
