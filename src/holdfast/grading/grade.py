"""Grades stored replies, verdicts included; readings are what every figure is made of."""

from __future__ import annotations

import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from holdfast.data import thinking
from holdfast.errors import DataError, HoldfastError
from holdfast.grading import perplexity, safety_outcomes
from holdfast.grading.answer import stored
from holdfast.grading.judge import VERDICTS
from holdfast.runs import records, store
from holdfast.tasks import Task
from holdfast.types import Example, Reading, Reply, Verdict

READINGS, WORST = "readings.jsonl", -1e6


def grade_replies(
    task: Task,
    examples: Sequence[Example],
    replies: Path,
    verdicts: Path | None,
    folder: Path,
    scored: tuple[Path, Path] | None = None,
) -> Mapping[str, object]:
    """Grade stored replies; writes ``readings.jsonl``, one reply in memory at a time.

    What a server's filter withheld is unscored, whatever the task (`safety_outcomes.withheld`).
    What was thought before an answer is not graded; a reply that was cut off while the model was
    thinking is graded as the empty answer that it is, and its reading says so.

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
        for example, reply in stored(examples, replies):
            thought = thinking.split(reply.text)
            said = thinking.answered(reply, thought)
            reading = safety_outcomes.withheld(example, said)
            reading = reading or mark(example, said, with_loss(found(said)))
            if thinking.unfinished(reply, thought):  # of an empty answer, with why it is empty
                outcome = "no answer" if reading.outcome == "wrong" else reading.outcome
                reading = replace(reading, outcome=outcome, note=thinking.CUT_OFF)
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
        least, most, what = (WORST, 0, "0 or below") if task.unit else (0, 1, "from 0 to 1")
        if not _within(reading, least, most):
            raise ValueError(f"its value {reading.value!r} is neither None nor {what}")
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
        while wanted not in passed and (verdict := next(rows, None)) is not None:
            passed[verdict.example_id, verdict.sample] = verdict
        return passed.pop(wanted, None)

    return find


def _losses(scored: tuple[Path, Path] | None) -> Callable[[Verdict | None], Verdict | None]:
    """Put what the untouched model makes of a reply into the verdict on it."""
    if scored is None:
        return lambda verdict: verdict
    nlls, usual = perplexity.read(scored[0]), perplexity.limit(scored[1])

    def put(verdict: Verdict | None) -> Verdict | None:
        if verdict is None:
            return None
        nll = nlls.get((verdict.example_id, verdict.sample))
        return verdict if nll is None else replace(verdict, nll=nll, nll_limit=usual)

    return put


def read_readings(folder: Path) -> list[Reading]:
    """What `grade` wrote.

    Raises:
        DataError: see `store.read_jsonl`; or a value is no share and no measure either.
    """
    found = store.read_jsonl(folder / READINGS, Reading)
    for number, reading in enumerate(found, 1):
        if not _within(reading, WORST, 1):
            raise DataError(
                f"the value {reading.value!r} is neither null nor a share nor a measure below 0",
                where=f"{folder / READINGS}:{number}",
                remedy=f"grade the replies again: {records.again(folder)}",
            )
    return found


def _within(reading: Reading, least: float, most: float) -> bool:
    values = [one for one in (reading.value, *reading.read_as.values()) if one is not None]
    return all(isinstance(one, int | float) and least <= one <= most for one in values)
