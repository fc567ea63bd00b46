"""Measures how fast this device trains and answers with a study's own model, in half a minute.

A few steps are trained by the entry that trains the arms, and a few of the study's own questions
are answered by the engine that will answer them all, so whatever makes these faster or slower is in
the figures. A model that is too large for that here is left to the formula.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from holdfast import models
from holdfast.config import Sampling
from holdfast.data.batching import plain_budget
from holdfast.engines import Engine
from holdfast.engines.kept import is_scored
from holdfast.memory.hardware import cpu
from holdfast.progress import Progress, Silent
from holdfast.runs import store
from holdfast.study import speed as speeds
from holdfast.study.session import Session
from holdfast.study.speed import Speed
from holdfast.study.work import USUAL_REPLY
from holdfast.train import stage
from holdfast.train.data import encode_all
from holdfast.train.job import TrainJob
from holdfast.types import Example

TRAIN_S, READ_S, WRITE_S, LENGTH_S = 8.0, 3.0, 5.0, 8.0
"""What each part may take, by the formula; training is stopped when twice that has passed."""
MOST_OPEN_S = 30.0
STEPS = 8
FEW, MOST_ROWS, TOKENS = 2, 64, 24
"""Rows and tokens of the answers that are timed; many rows as the study has them, and few."""
BUSY = 0.2
"""Share of the time waited for a core from which on what was measured is not this device's speed.

Threads wait for one another in every operation, so a core that is had half of the time makes a
small model several times slower.
"""
LENGTHS = 12
"""Answers of a task whose length is looked at."""


class _Enough(Exception):
    """Ends a training that has been timed."""


class _Watch(Silent):
    """Notes when each step ended, and ends a training that takes too long."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self.ends = limit_s, [time.perf_counter()]

    def total(self, amount: int, what: str = "") -> None:
        """The model is loaded: the first step begins."""
        self.ends = [time.perf_counter()]

    def advance(self, amount: int = 1) -> None:
        """A step ended."""
        if amount:
            self.ends += [time.perf_counter()] * amount
        if amount and self.ends[-1] - self.ends[0] > self.limit_s:
            raise _Enough


def too_large(session: Session, told: Speed) -> bool:
    """Whether a model cannot be measured here in a short time, by the formula."""
    return told.how == "assumed" or told.open_s > MOST_OPEN_S or 64 * told.train_s > TRAIN_S


def measure(session: Session, progress: Progress | None = None) -> Speed:
    """Measure, and keep what was measured for the next time.

    Args:
        session: prepared; its pool has the untouched model open afterwards.
        progress: is told what goes on.

    Returns:
        The formula's figures, where the model is too large or not worked with here, and where
        other programs had the cores meanwhile.
    """
    told = speeds.by_formula(session)
    if too_large(session, told):
        where = "by the formula the model takes too long here"
        (progress or Silent()).say(
            f"not measured: {'it is asked elsewhere' if told.how == 'assumed' else where}"
        )
        return told
    (progress or Silent()).say(f"measuring how fast {speeds.device(session)} works on this model")
    found, before = replace(told, how="measured"), cpu.turns()
    if session.plan.trained:
        session.pool.close()
        found = _trained(session, found)
    found = _answered(session, found)
    waited = cpu.share_waited(before, cpu.turns())
    if waited > BUSY and not session.gpus:
        (progress or Silent()).say(
            f"not measured: other programs had the cores {waited:.0%} of the time"
        )
        return told
    speeds.keep(session, found)
    return found


def _trained(session: Session, told: Speed) -> Speed:
    """Seconds of a trained token, and of beginning and ending a training."""
    import holdfast.train.trainer  # noqa: F401  # that its imports are not timed

    train = session.study.train
    size = train.per_device_train_batch_size
    each = told.train_s * 200 * size
    passes = max(1, min(train.accumulation, int(TRAIN_S / STEPS / each)))
    train = train.model_copy(
        update={"group_by_length": False, "global_batch_size": None, "overlong": "drop",
                "gradient_accumulation_steps": passes, "logging_steps": 1.0}
    )  # fmt: skip
    some = _spread(session.plain, STEPS * passes * size)
    rows, some, _ = encode_all(session.plan.model, some, train)
    steps = max(2, min(STEPS, len(rows) // (passes * size)))
    watch = _Watch(math.inf if session.gpus else 2 * TRAIN_S)
    with tempfile.TemporaryDirectory(prefix="holdfast-") as place:
        examples = Path(place) / "examples.jsonl"
        store.write_jsonl(examples, some)
        job = TrainJob(
            model=session.plan.model, train=train, seed=session.study.seeds[0],
            budget=plain_budget([row.cost for row in rows], steps, passes, size),
            save_at=(steps,), folder=Path(place) / "train", examples=examples,
            device=session.study.hardware.device,
        )  # fmt: skip
        study = session.study.model_copy(update={"train": train})
        began = time.perf_counter()
        try:
            stage.run(study, job, max(len(row.ids) for row in rows), session.gpus, watch)
            over = time.perf_counter() - watch.ends[-1]
        except _Enough:
            over = 0.0
    gc.collect()
    models.empty_cache()
    ends = watch.ends
    first = 1 if len(ends) > 2 else 0  # the first step sets things up
    step_s = (ends[-1] - ends[first]) / (len(ends) - 1 - first)
    mean = sum(row.cost.tokens for row in rows) / len(rows)
    return replace(told, train_s=step_s / (mean * passes * size), start_s=ends[0] - began + over)


def _answered(session: Session, told: Speed) -> Speed:
    """Seconds of opening the model, and of tokens read and answered."""
    began = time.perf_counter()
    engine = session.pool.engine(session.plan.model)
    open_s = time.perf_counter() - began
    tasks = [task for task in session.plan.tasks if not _scored(session, task)]
    asked = [one for task in tasks for one in _asked(session, task)]
    if not asked:
        return replace(told, open_s=open_s)
    _time(engine, asked[:1], 2)  # warm
    few = _spread(asked, FEW)
    read_few, read_s = _time(engine, few, 1)
    many = int(READ_S / max(1e-6, read_s / len(few)))
    many = max(FEW, min(many, MOST_ROWS, told.rows, len(asked)))
    some = _spread(asked, many)
    read, read_s = _time(engine, some, 1)
    wanted = max(4, min(TOKENS, int(WRITE_S / max(1e-6, len(some) * told.write_s + told.round_s))))
    _, all_s = _time(engine, some, 1 + wanted)
    _, few_s = _time(engine, few, 1 + wanted)
    each = read_s / max(1, read)
    decode = max(1e-6, all_s - read_s) / wanted
    alone = max(1e-6, few_s - each * read_few) / wanted
    if len(some) > len(few):
        write_s = max(0.05 * decode / len(some), (decode - alone) / (len(some) - len(few)))
    else:
        write_s = told.write_s
    round_s = max(0.0, decode - len(some) * write_s)
    found = replace(
        told, open_s=open_s, read_s=each, round_s=round_s, write_s=write_s,
        context=read / len(some) + wanted / 2,
    )  # fmt: skip
    return replace(found, usual={task: _usual(session, engine, task, found) for task in tasks})


def _usual(session: Session, engine: Engine, task: str, speed: Speed) -> float:
    """Tokens of an answer to a task that nothing cuts off, of a few that are given some time.

    Lengths are taken to be exponential; a quarter of a usual answer is added to what is seen.
    """
    limit_s = LENGTH_S / len(session.plan.tasks)
    some = _spread(session.measuring.asked[task], LENGTHS)
    each = speed.round_s + len(some) * speed.write_s
    most = session.measuring.samplings[task].max_new_tokens
    most = min(most, int(limit_s / max(1e-6, each)))
    if most < TOKENS:
        return USUAL_REPLY
    replies = [
        one
        for said in engine.generate(some, Sampling(max_new_tokens=most), None, Silent())
        for one in said
    ]
    ended = sum(one.finish == "stop" for one in replies)
    return (sum(one.n_tokens for one in replies) + USUAL_REPLY / 4) / (ended + 1 / 4)


def _scored(session: Session, task: str) -> bool:
    """Whether a task's choices are scored, and nothing is answered."""
    return any(is_scored(one) for one in session.measuring.asked[task])


def _asked(session: Session, task: str) -> Sequence[Example]:
    return _spread(session.measuring.asked[task], MOST_ROWS)


def _time(engine: Engine, examples: Sequence[Example], most: int) -> tuple[int, float]:
    """Tokens read of the prompts, and the seconds of answering them all at a time."""
    began, before = time.perf_counter(), engine.usage.read
    engine.generate(examples, Sampling(max_new_tokens=most), None, Silent())
    return engine.usage.read - before, time.perf_counter() - began


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    count = min(count, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]
