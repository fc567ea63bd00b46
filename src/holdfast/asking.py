"""How are many questions put to an engine so that a crash loses at most a few minutes?

Questions go out in chunks; every answered chunk is a file of its own, written atomically. Asked
again in the same folder, only the missing chunks are generated, and the replies are the same as if
nothing had happened, because each has its own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast import store
from holdfast.engines import Engine
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

    Returns:
        All replies, samples of one example next to each other.
    """
    parts = folder / "parts"
    progress.total(len(examples), "answers")
    if (folder / name).is_file():
        progress.advance(len(examples))
        return store.read_jsonl(folder / name, Reply)
    replies: list[Reply] = []
    for index, start in enumerate(range(0, len(examples), CHUNK)):
        chunk = examples[start : start + CHUNK]
        part = parts / f"{name}.{index:05d}"
        if part.is_file():
            replies += store.read_jsonl(part, Reply)
            progress.advance(len(chunk))
            continue
        answers = engine().generate(chunk, sampling, adapter, progress)
        flat = [reply for one in answers for reply in one]
        store.write_jsonl(part, flat)
        replies += flat
    store.write_jsonl(folder / name, replies)
    for part in parts.glob(f"{name}.*"):
        part.unlink()
    if parts.is_dir() and not any(parts.iterdir()):
        parts.rmdir()
    return replies
