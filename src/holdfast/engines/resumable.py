"""Puts many questions to an engine so that a crash loses at most a few minutes.

Questions go out in chunks that are kept with what they cost (`holdfast.engines.chunks`). Of the
chunk under way the answers that are there are written down twice a minute, and when anything stops
the work. Asked again in the same folder, only what is missing is generated, and replies and costs
are the same as if nothing had happened, because each reply has its own seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from holdfast.config import Sampling
from holdfast.data.windows import TEXT
from holdfast.engines import Engine, Usage
from holdfast.engines.chunks import END, REPLIES, SOME, in_chunks, rows_of, write_part
from holdfast.engines.kept import LIKELIHOODS, Kept, is_scored, mark_of
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.rows import as_row
from holdfast.runs.stages import PARTS
from holdfast.types import Example, Message, Reply

SCORED = 64
"""Examples whose choices are scored together."""
KEPT_S = 30.0
"""How often the answers of the chunk under way are written down."""
SETTLED = 6
"""Decimals of a log-probability that are kept; batches differ beyond them."""


def ask(
    engine: Callable[[], Engine],
    examples: Sequence[Example],
    sampling: Sampling,
    folder: Path,
    progress: Progress,
    name: str = REPLIES,
    kept: Kept | None = None,
) -> list[Reply]:
    """The base's answers to `examples`, in ``folder/name``; continues a half-done folder.

    What it costs is written down with the answers, and not left to the engine's `usage`: the same
    is counted however often the work was interrupted (`spent_in`).

    Args:
        engine: opens the engine; only called when something is left to ask.
        examples: what is asked, in the order of the file.
        sampling: how.
        folder: of the stage; chunks lie in ``folder/parts`` until all are there.
        progress: is advanced per example.
        name: of the finished file.
        kept: what was answered before, in whatever folder; costs what it cost then. None: nothing.

    Returns:
        All replies, samples of one example next to each other.
    """
    answer = answering(engine, sampling, folder, progress)
    spent = Usage()

    def work(some: Sequence[Example]) -> list[list[Reply]]:
        used = engine().usage
        before = replace(used)
        found = answer(some)
        spent.read, spent.written = used.read - before.read, used.written - before.written
        used.read, used.written = before.read, before.written
        return found

    looked_up = work if kept is None else kept.around(work, sampling, spent, progress)
    return in_chunks(looked_up, examples, folder, progress, name, spent=spent)


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
        adapter: see `Engine.generate`.
        scale: see `Engine.generate`.
    """

    def work(some: Sequence[Example]) -> list[list[Reply]]:
        lent = engine()
        lent.answer_folder = folder
        kept = _Some(folder / PARTS / SOME, lent, [sampling.model_dump(), adapter, scale])
        known = kept.read(some)
        missing = [one for one, replies in zip(some, known, strict=True) if replies is None]
        progress.kept(len(some) - len(missing))
        lent.answered = kept.add
        try:
            found = iter(_answers(lent, missing, sampling, adapter, progress, scale))
        except BaseException:
            with suppress(OSError):
                kept.write()
            raise
        finally:
            lent.answered = None
            progress.stop.hold("")
        return [next(found) if replies is None else replies for replies in known]

    return work


class _Some:
    """The answers of the chunk under way, and what they cost."""

    def __init__(self, part: Path, engine: Engine, of: Sequence[object]) -> None:
        """Nothing is read yet.

        Args:
            part: the file.
            engine: counts what they cost.
            of: what answers depend on besides the questions.
        """
        self._part, self._engine, self._of = part, engine, of
        self._before = replace(engine.usage)
        self._rows: dict[str, list[Reply]] = {}
        self._written = time.monotonic()

    def read(self, some: Sequence[Example]) -> list[list[Reply] | None]:
        """What is there of an earlier sitting, which costs now what it cost then."""
        rows = (rows_of(self._part) if self._part.is_file() else None) or []
        there = {row["of"]: row["replies"] for row in rows if "of" in row}
        if there:
            there = {mark: there[mark] for one in some if (mark := self._mark(one)) in there}
        for mark, replies in there.items():
            self._rows[mark] = [as_row(Reply, row, str(self._part)) for row in replies]
        if there:
            spent = as_row(Usage, rows[-1][END]["spent"], str(self._part))
            self._engine.usage.read += spent.read
            self._engine.usage.written += spent.written
        return [self._rows.get(self._mark(one)) for one in some]

    def _mark(self, one: Example) -> str:
        return mark_of(one, self._of)

    def add(self, example: Example, replies: list[Reply]) -> None:
        """Note the answers to one question; twice a minute all of them are written down."""
        self._rows[self._mark(example)] = replies
        if time.monotonic() - self._written >= KEPT_S:
            self.write()

    def write(self) -> None:
        """Write down what is there."""
        if not self._rows:
            return
        used, before = self._engine.usage, self._before
        spent = Usage(used.read - before.read, used.written - before.written)
        rows = [{"of": mark, "replies": replies} for mark, replies in self._rows.items()]
        write_part(self._part, store.canonical(rows), spent)
        self._written = time.monotonic()


def _answers(
    engine: Engine,
    examples: Sequence[Example],
    sampling: Sampling,
    adapter: str | None,
    progress: Progress,
    scale: float,
) -> list[list[Reply]]:
    """Answers, or what the model makes of texts that are given (`LIKELIHOODS`, `TEXT`)."""
    if not any(is_scored(one) for one in examples):
        return engine.generate(examples, sampling, adapter, progress, scale) if examples else []
    score = _texts if TEXT in examples[0].meta else _likelihoods
    found = []
    for start in range(0, len(examples), SCORED):
        some = examples[start : start + SCORED]
        for example, text in zip(some, score(engine, some, adapter, scale), strict=True):
            found.append([Reply(example.id, 0, text, "stop", 0)])
            if engine.answered is not None:
                engine.answered(example, found[-1])
        progress.advance(len(some))
    return found


def _likelihoods(
    engine: Engine, examples: Sequence[Example], adapter: str | None, scale: float
) -> list[str]:
    """What `LIKELIHOODS` asks for of each example."""
    pairs = [pair for one in examples for pair in _choices(one)]
    scores = iter(engine.loglikelihood(pairs, adapter, scale))
    found = []
    for example in examples:
        rows = [next(scores) for _ in example.meta[LIKELIHOODS]]
        found.append(json.dumps([[round(value, SETTLED), greedy] for value, greedy in rows]))
    return found


def _texts(
    engine: Engine, examples: Sequence[Example], adapter: str | None, scale: float
) -> list[str]:
    """What `TEXT` asks for of each example; they are of one task, so of one window."""
    how = examples[0].meta[TEXT]
    texts = [one.messages[-1].content for one in examples]
    losses = engine.text_nll(texts, how["window"], how["stride"], adapter, scale)
    return [json.dumps([round(one.nats, SETTLED), one.tokens, one.unknown]) for one in losses]


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
