"""How are many questions put to an engine so that a crash loses at most a few minutes?

Questions go out in chunks; every answered chunk is a file of its own, written atomically. Asked
again in the same folder, only the missing chunks are generated, and the replies are the same as if
nothing had happened, because each has its own seed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from holdfast import store
from holdfast.engines import Engine, Spent
from holdfast.progress import Progress
from holdfast.spec import Sampling
from holdfast.types import Example, Reply

CHUNK = 512
REPLIES = "replies.jsonl"


def ask(
    engine: Callable[[], Engine],
    examples: Sequence[Example],
    sampling: Sampling,
    adapter: str | None,
    folder: Path,
    progress: Progress,
    name: str = REPLIES,
    scale: float = 1.0,
    chunk: int = CHUNK,
) -> list[Reply]:
    """Answer `examples` into ``folder/name``; continues a half-done folder.

    Args:
        engine: opens the engine; only called when something is left to ask.
        examples: what is asked, in the order of the file.
        sampling: how.
        adapter: see `Engine.generate`.
        folder: of the stage; chunks lie in ``folder/parts`` until all are there.
        progress: is advanced per example.
        name: of the finished file.
        scale: see `Engine.generate`.
        chunk: questions asked, and written down, together.

    Returns:
        All replies, samples of one example next to each other.
    """
    parts = folder / "parts"
    progress.total(len(examples), "answers")
    if (folder / name).is_file():
        progress.advance(len(examples))
        return store.read_jsonl(folder / name, Reply)
    replies: list[Reply] = []
    for index, start in enumerate(range(0, len(examples), chunk)):
        some = examples[start : start + chunk]
        part = parts / f"{name}.{index:05d}"
        if part.is_file():
            replies += store.read_jsonl(part, Reply)
            progress.advance(len(some))
            continue
        answers = engine().generate(some, sampling, adapter, progress, scale)
        flat = [reply for one in answers for reply in one]
        store.write_jsonl(part, flat)
        replies += flat
    store.write_jsonl(folder / name, replies)
    for part in parts.glob(f"{name}.*"):
        part.unlink()
    if parts.is_dir() and not any(parts.iterdir()):
        parts.rmdir()
    return replies


def score(
    engine: Callable[[], Engine],
    examples: Sequence[Example],
    kept: Path | None,
    of: Mapping[str, Any] | None = None,
) -> tuple[list[list[float]], Spent]:
    """The base's loss of each token of each answer, nats; what is known already is not asked.

    Args:
        engine: opens the engine; only called when something is left to score.
        examples: questions with their answers.
        kept: a jsonl of losses by content, read and added to; None: nowhere.
        of: what the losses depend on besides the answers: model, revision, precision.

    Returns:
        The losses, and what they took when they were computed, then or now.
    """
    marks = [store.fingerprint([asdict(one)["messages"], one.target, of]) for one in examples]
    known: dict[str, dict[str, Any]] = {}
    if kept is not None and kept.is_file():
        known = {row["of"]: row for _, row in store.read_objects(kept)}
    missing = {mark: one for mark, one in zip(marks, examples, strict=True) if mark not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), CHUNK):
        some = todo[start : start + CHUNK]
        started, before = time.perf_counter(), engine().spent.read
        found = engine().token_nll([one for _, one in some])
        seconds = (time.perf_counter() - started) / len(some)
        read = (engine().spent.read - before) / len(some)
        for (mark, _), losses in zip(some, found, strict=True):
            known[mark] = {"of": mark, "nll": losses, "read": read, "seconds": seconds}
        if kept is not None:
            store.write_jsonl(kept, known.values())
    used = [known[mark] for mark in dict.fromkeys(marks)]
    spent = Spent(round(sum(o["read"] for o in used)), 0, sum(o["seconds"] for o in used))
    return [known[mark]["nll"] for mark in marks], spent
