"""What did the model say, and how good is it?

Three steps with files between them, so that a better parser or judge never costs generation again:
`answer` (task x engine -> replies), `judge` (replies -> verdicts), `grade` (replies, verdicts ->
readings); `score` says besides what the untouched model makes of the replies.
"""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.config import Sampling
from holdfast.engines.pool import EnginePool
from holdfast.engines.resumable import CHUNK, REPLIES, ask
from holdfast.errors import DataError, HoldfastError
from holdfast.grading import perplexity, safety_outcomes
from holdfast.judges import Judge, JudgeContext, Pair
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.tasks import Task
from holdfast.types import Example, Reading, Reply, Verdict

VERDICTS = "verdicts.jsonl"
READINGS = "readings.jsonl"


def answer(
    pool: EnginePool,
    ref: ModelRef,
    examples: Sequence[Example],
    sampling: Sampling,
    folder: Path,
    progress: Progress,
    chunk: int = CHUNK,
) -> Mapping[str, Any]:
    """Ask one model all items of one task; writes ``replies.jsonl``.

    Args:
        pool: lends the engine.
        ref: the weights to ask; its adapter goes on top of its base.
        examples: the items.
        sampling: how.
        folder: of the stage.
        progress: is advanced per item.
        chunk: see `asking.ask`.
    """
    base = replace(ref, adapter=None, scale=1.0)
    replies = ask(
        lambda: pool.engine(base),
        examples,
        sampling,
        ref.adapter,
        folder,
        progress,
        scale=ref.scale,
        chunk=chunk,
    )
    ends = Counter(reply.finish for reply in replies)
    return {
        "replies": len(replies),
        "cut_off": ends["length"],
        "withheld": ends["filtered"],
        "device": pool.about,
        "mean_tokens": round(sum(one.n_tokens for one in replies) / max(1, len(replies)), 1),
    }


def judge(
    judge: Judge,
    examples: Sequence[Example],
    replies: Path,
    folder: Path,
    context: JudgeContext | None = None,
) -> Mapping[str, Any]:
    """Label stored replies, those that were withheld left out; writes ``verdicts.jsonl``.

    Args:
        judge: who labels.
        examples: what was asked.
        replies: folder of what was said.
        folder: of the stage.
        context: what the judge may use; None for judges by rules.
    """
    verdicts = judge.judge(_to_judge(examples, replies), context)
    return _written(judge, verdicts, folder)


def combine(
    judge: Judge, examples: Sequence[Example], replies: Path, members: Sequence[Path], folder: Path
) -> Mapping[str, Any]:
    """Label stored replies by what several judges said of them; writes ``verdicts.jsonl``.

    Args:
        judge: whose rule; one with `seats`.
        examples: what was asked.
        replies: folder of what was said.
        members: folders of what each judge said, in order.
        folder: of the stage.
    """
    found = [read_verdicts(one) for one in members]
    return _written(judge, judge.together(_to_judge(examples, replies), found), folder)


def _to_judge(examples: Sequence[Example], replies: Path) -> list[Pair]:
    return [pair for pair in _paired(examples, replies) if not safety_outcomes.withheld(*pair)]


def read_verdicts(folder: Path) -> list[Verdict]:
    """What a judge said, from the folder of a finished stage."""
    return store.read_jsonl(folder / VERDICTS, Verdict)


def _written(judge: Judge, verdicts: Sequence[Verdict], folder: Path) -> dict[str, Any]:
    store.write_jsonl(folder / VERDICTS, verdicts)
    return {"judge": judge.name, "labels": _count(one.label for one in verdicts)}


def score(
    pool: EnginePool,
    base: ModelRef,
    examples: Sequence[Example],
    replies: Path,
    folder: Path,
    progress: Progress,
) -> Mapping[str, Any]:
    """Score stored replies by the untouched model; see `surprise.measure`."""
    pairs = _paired(examples, replies)
    return perplexity.measure(lambda: pool.engine(base), pairs, folder, progress)


def grade(
    task: Task,
    examples: Sequence[Example],
    replies: Path,
    verdicts: Path | None,
    folder: Path,
    scored: tuple[Path, Path] | None = None,
) -> Mapping[str, Any]:
    """Grade stored replies; writes ``readings.jsonl``, one reply in memory at a time.

    What a server's filter withheld is unscored, whatever the task (`outcomes.withheld`).

    Args:
        task: whose grader.
        examples: what was asked.
        replies: folder of what was said.
        verdicts: folder of what the judge said of it.
        folder: of the stage.
        scored: folders of what `score` made of these replies and of the base's own.

    Raises:
        DataError: a reply to no item of the task, or a grader of the user's own that fails.
    """
    mark = partial(_graded, task) if task.code else task.grade
    count: Counter[str] = Counter()
    unscored = 0

    def graded() -> Iterator[Reading]:
        nonlocal unscored
        found, with_loss = _verdicts(verdicts), _losses(scored)
        for example, reply in _paired(examples, replies):
            reading = safety_outcomes.withheld(example, reply)
            reading = reading or mark(example, reply, with_loss(found(reply)))
            count[reading.outcome] += 1
            unscored += reading.value is None
            yield reading

    store.write_jsonl(folder / READINGS, graded())
    return {"outcomes": dict(sorted(count.items())), "unscored": unscored}


def _graded(task: Task, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
    """One reading by a task from a user's file, whose mistakes are told as such."""
    try:
        reading = task.grade(example, reply, verdict)
        if not isinstance(reading, Reading):
            raise TypeError(f"it returned {reading!r}, which is no Reading")
        return reading
    except HoldfastError:
        raise
    except Exception as error:
        file = inspect.getfile(type(task))
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {one.lineno}" for one in frames if one.filename == file]
        raise DataError(
            f"its grade fails on the reply to {example.id!r}: {type(error).__name__}: {error}",
            where=f"task {task.plugin}",
            remedy=f"mend {Path(file).name}{lines[-1] if lines else ''}, and run again: what was "
            "answered is kept",
        ) from error


def _verdicts(folder: Path | None) -> Callable[[Reply], Verdict | None]:
    """The verdict on a reply, None where there is none.

    A judge's verdicts lie in the order of its replies, so that only those which do not are kept
    until they are asked for.
    """
    rows = iter(()) if folder is None else store.iterate_jsonl(folder / VERDICTS, Verdict)
    passed: dict[tuple[str, int], Verdict] = {}

    def find(reply: Reply) -> Verdict | None:
        wanted = (reply.example_id, reply.sample)
        while wanted not in passed:
            one = next(rows, None)
            if one is None:
                return None
            passed[one.example_id, one.sample] = one
        return passed.pop(wanted)

    return find


def _losses(scored: tuple[Path, Path] | None) -> Callable[[Verdict | None], Verdict | None]:
    """Put what the untouched model makes of a reply into the verdict on it."""
    if scored is None:
        return lambda verdict: verdict
    nlls, usual = perplexity.read(scored[0]), perplexity.limit(scored[1])

    def put(one: Verdict | None) -> Verdict | None:
        nll = None if one is None else nlls.get((one.example_id, one.sample))
        return one if one is None or nll is None else replace(one, nll=nll, nll_limit=usual)

    return put


def read_readings(folder: Path) -> list[Reading]:
    """What `grade` wrote."""
    return store.read_jsonl(folder / READINGS, Reading)


def read_replies(folder: Path) -> list[Reply]:
    """What `answer` wrote."""
    return store.read_jsonl(folder / REPLIES, Reply)


def _paired(examples: Sequence[Example], replies: Path) -> Iterator[tuple[Example, Reply]]:
    by_id = {one.id: one for one in examples}
    for reply in store.iterate_jsonl(replies / REPLIES, Reply):
        if reply.example_id not in by_id:
            raise DataError(
                f"holds a reply to {reply.example_id!r}, which the task does not have",
                where=str(replies),
                remedy="the replies belong to other data; run with --rebuild 'replies/*'",
            )
        yield by_id[reply.example_id], reply


def _count(words: Any) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))
