"""Puts many questions to an engine so that a crash loses at most a few minutes.

Questions go out in chunks; every answered chunk is a file of its own, written atomically, with what
it cost in its last line. Of the chunk under way the answers that are there are written down twice a
minute, and when anything stops the work. Asked again in the same folder, only what is missing is
generated, and replies and costs are the same as if nothing had happened, because each reply has its
own seed. The chunks stay until the stage is finished (`holdfast.runs.stages.PARTS`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.config import Sampling
from holdfast.engines import Engine, Usage
from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.rows import as_row
from holdfast.runs.stages import PARTS
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
SOME = "some"
"""Among the parts: the answers of the chunk under way, as far as they are there."""
KEPT_S = 30.0
"""How often they are written down."""
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


@dataclass(frozen=True, slots=True)
class Kept:
    """Answers of the untouched model that any of its stages may have asked for before.

    Attributes:
        folder: a file for each way of sampling; rows by what was asked.
        of: what the answers depend on besides: model, revision, precision, engine.
    """

    folder: Path
    of: Mapping[str, object] | None = None

    def around(
        self,
        work: Callable[[Sequence[Example]], list[list[Reply]]],
        sampling: Sampling,
        spent: Usage,
        progress: Progress,
    ) -> Callable[[Sequence[Example]], list[list[Reply]]]:
        """`work` for what was not answered yet.

        Args:
            work: answers, and leaves in `spent` what that took.
            sampling: how.
            spent: gets what all answers took, now or then.
            progress: is advanced for what is known.
        """
        file = self.folder / f"{store.fingerprint([sampling.model_dump(), self.of])}.jsonl"
        known = _known(file, {"replies": list, "read": float | int, "written": float | int})

        def looked_up(some: Sequence[Example]) -> list[list[Reply]]:
            marks = [_question(one) for one in some]
            missing = [one for mark, one in zip(marks, some, strict=True) if mark not in known]
            progress.advance(len(some) - len(missing))
            if missing:
                found = work(missing)
                read, written = spent.read / len(missing), spent.written / len(missing)
                for one, replies in zip(missing, found, strict=True):
                    row = {"of": _question(one), "replies": [asdict(reply) for reply in replies],
                           "read": read, "written": written}  # fmt: skip
                    known[str(row["of"])] = {**row, "check": store.fingerprint(row)}
                store.write_jsonl(file, known.values())
            rows = [known[mark] for mark in marks]
            spent.read = round(sum(row["read"] for row in rows))
            spent.written = round(sum(row["written"] for row in rows))
            return [[as_row(Reply, one, str(file)) for one in row["replies"]] for row in rows]

        return looked_up


def _question(example: Example) -> str:
    """A mark of all that an answer depends on of what is asked."""
    otherwise = {key: example.meta[key] for key in OTHERWISE if key in example.meta}
    return store.fingerprint([example.id, example.messages, example.tools, otherwise])


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
        rows = (_rows(self._part) if self._part.is_file() else None) or []
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
        more = {key: one.meta[key] for key in OTHERWISE if key in one.meta}
        return store.fingerprint([one.id, one.messages, one.tools, more, self._of])

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
    """Answers, or what the model makes of answers that are given (`LIKELIHOODS`)."""
    if not examples:
        return []
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
            if engine.answered is not None:
                engine.answered(example, found[-1])
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
    *,
    spent: Usage | None = None,
) -> list[Reply]:
    """What `work` makes of all examples, for `ask` and for other questions than for an answer.

    Args:
        work: answers some examples and advances the progress.
        examples: see `ask`, as are the others.
        folder: see `ask`.
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


def _answers_to(asked: Sequence[Example], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a chunk holds the answers to these questions and to no others."""
    return {one.id for one in asked} == {row.get("example_id") for row in rows}


END = "end"
"""In the last line of a chunk: a digest of its rows, and what they cost."""


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
    if (rows := _rows(part)) is None:
        progress.say(f"{part} is damaged: its answers are asked for again")
        return None
    return rows[:-1]


def _rows(part: Path) -> list[Any] | None:
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
        if part.name != SOME and (rows := _rows(part)) is not None:
            spent = as_row(Usage, rows[-1][END]["spent"], str(part))
            total.read += spent.read
            total.written += spent.written
    return total


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
    known = _known(kept, {"nll": list, "read": float | int, "seconds": object})
    missing = {mark: one for mark, one in zip(marks, examples, strict=True) if mark not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), CHUNK):
        some = todo[start : start + CHUNK]
        started, before = time.perf_counter(), engine().usage.read
        found = engine().token_nll([one for _, one in some])
        seconds = (time.perf_counter() - started) / len(some)
        read = (engine().usage.read - before) / len(some)
        for (mark, _), losses in zip(some, found, strict=True):
            row = {"of": mark, "nll": losses, "read": read, "seconds": seconds}
            known[mark] = {**row, "check": store.fingerprint(row)}
        if kept is not None:
            store.write_jsonl(kept, known.values())
    used = [known[mark] for mark in dict.fromkeys(marks)]
    usage = Usage(round(sum(row["read"] for row in used)), 0, sum(row["seconds"] for row in used))
    return [known[mark]["nll"] for mark in marks], usage


def _known(kept: Path | None, kinds: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows that are there, by mark; a line that is not as it was written is made anew.

    Args:
        kept: the file; None: there is none.
        kinds: of every column of a row, besides its mark.
    """
    found: dict[str, dict[str, Any]] = {}
    if kept is None or not kept.is_file():
        return found
    try:
        for _, row in store.read_objects(kept):
            if not isinstance(row, dict) or not isinstance(row.get("of"), str):
                continue
            if not all(isinstance(row.get(name), kind) for name, kind in kinds.items()):
                continue
            check = store.fingerprint({k: v for k, v in row.items() if k != "check"})
            if row.get("check", check) == check:  # older versions wrote none
                found[row["of"]] = row
    except HoldfastError:
        pass  # the lines after a torn one
    return found
