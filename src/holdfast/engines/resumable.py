"""Puts many questions to an engine so that a crash loses at most a few minutes.

Questions go out in chunks; every answered chunk is a file of its own, written atomically. Asked
again in the same folder, only the missing chunks are generated, and the replies are the same as if
nothing had happened, because each has its own seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.config import Sampling
from holdfast.engines import Engine, Usage
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.types import Example, Message, Reply

CHUNK = 512
REPLIES = "replies.jsonl"
LIKELIHOODS = "likelihoods"
"""In an example's meta: pairs of a context and a continuation. Instead of an answer, the reply is
JSON with the log-probability of each continuation and whether it is the likeliest. A context is
None for the example's own prompt, a text as it stands, or turns of [role, content]."""
OTHERWISE = ("continue", "prefix", "until", LIKELIHOODS)
"""What an example's meta says of how it is asked, besides its messages."""
SCORED = 64
"""Examples whose choices are scored together."""
SETTLED = 6
"""Decimals of a log-probability that are kept; batches differ beyond them."""


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
    work = answering(engine, sampling, folder, progress, adapter)
    return in_chunks(work, examples, folder, progress, name)


def answering(
    engine: Callable[[], Engine],
    sampling: Sampling,
    folder: Path,
    progress: Progress,
    adapter: str | None = None,
    scale: float = 1.0,
) -> Callable[[Sequence[Example]], list[list[Reply]]]:
    """The work that `in_chunks` does where examples are answered.

    Args:
        engine: see `ask`, as are the others.
        sampling: see `ask`.
        folder: see `ask`.
        progress: see `ask`.
        adapter: see `ask`.
        scale: see `Engine.generate`.
    """

    def work(some: Sequence[Example]) -> list[list[Reply]]:
        lent = engine()
        lent.answer_folder = folder
        return _answers(lent, some, sampling, adapter, progress, scale)

    return work


def _answers(
    engine: Engine,
    examples: Sequence[Example],
    sampling: Sampling,
    adapter: str | None,
    progress: Progress,
    scale: float,
) -> list[list[Reply]]:
    """Answers, or what the model makes of answers that are given (`LIKELIHOODS`)."""
    if not any(LIKELIHOODS in one.meta for one in examples):
        return engine.generate(examples, sampling, adapter, progress, scale)
    found = []
    for start in range(0, len(examples), SCORED):
        some = examples[start : start + SCORED]
        pairs = [pair for one in some for pair in _choices(one)]
        scores = iter(engine.loglikelihood(pairs, adapter, scale))
        for example in some:
            rows = [next(scores) for _ in example.meta[LIKELIHOODS]]
            text = json.dumps([[round(value, SETTLED), greedy] for value, greedy in rows])
            found.append([Reply(example.id, 0, text, "stop", 0)])
        progress.advance(len(some))
    return found


def _choices(example: Example) -> list[tuple[Example, str]]:
    """The prompts and continuations that ``meta["likelihoods"]`` speaks of."""
    found = []
    for context, text in example.meta[LIKELIHOODS]:
        asked = example
        if isinstance(context, str):
            asked = replace(
                example, messages=(Message("user", context),), meta={"continue": "text"}
            )
        elif context is not None:
            turns = tuple(Message(role, content) for role, content in context)
            asked = replace(example, messages=turns)
        found.append((asked, text))
    return found


def in_chunks(
    work: Callable[[Sequence[Example]], list[list[Reply]]],
    examples: Sequence[Example],
    folder: Path,
    progress: Progress,
    name: str = REPLIES,
    chunk: int = CHUNK,
) -> list[Reply]:
    """What `work` makes of all examples, for `ask` and for other questions than for an answer.

    Args:
        work: answers some examples and advances the progress.
        examples: see `ask`, as are the others.
        folder: see `ask`.
        progress: told what was done before.
        name: of the finished file.
        chunk: questions asked, and written down, together.
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
        flat = [reply for samples in work(some) for reply in samples]
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
    of: Mapping[str, object] | None = None,
) -> tuple[list[list[float]], Usage]:
    """The base's loss of each token of each answer, nats; what is known already is not asked.

    Args:
        engine: opens the engine; only called when something is left to score.
        examples: questions with their answers.
        kept: a jsonl of losses by content, read and added to; None: nowhere.
        of: what the losses depend on besides the answers: model, revision, precision.

    Returns:
        The losses, and what they took when they were computed, then or now.
    """
    marks = [store.fingerprint([*one.content[1:], of]) for one in examples]
    known: dict[str, dict[str, Any]] = {}
    if kept is not None and kept.is_file():
        known = {row["of"]: row for _, row in store.read_objects(kept)}
    missing = {mark: one for mark, one in zip(marks, examples, strict=True) if mark not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), CHUNK):
        some = todo[start : start + CHUNK]
        started, before = time.perf_counter(), engine().usage.read
        found = engine().token_nll([one for _, one in some])
        seconds = (time.perf_counter() - started) / len(some)
        read = (engine().usage.read - before) / len(some)
        for (mark, _), losses in zip(some, found, strict=True):
            known[mark] = {"of": mark, "nll": losses, "read": read, "seconds": seconds}
        if kept is not None:
            store.write_jsonl(kept, known.values())
    used = [known[mark] for mark in dict.fromkeys(marks)]
    usage = Usage(round(sum(row["read"] for row in used)), 0, sum(row["seconds"] for row in used))
    return [known[mark]["nll"] for mark in marks], usage
