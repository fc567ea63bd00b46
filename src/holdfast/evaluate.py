"""What did the model say, and how good is it?

Three steps with files between them, so that a better parser or judge never costs generation again:
`answer` (task x engine -> replies), `judge` (replies -> verdicts), `grade` (replies, verdicts ->
readings). `EnginePool` keeps one base model loaded while the stages change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import engines, store
from holdfast.asking import CHUNK, REPLIES, ask
from holdfast.engines import Engine, Spent
from holdfast.errors import DataError
from holdfast.judges import Judge
from holdfast.memory.answering import answering_map
from holdfast.memory.devices import GPU
from holdfast.memory.shape import read_shape
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.registry import resolve
from holdfast.spec import Sampling, Study
from holdfast.tasks import Task
from holdfast.types import Example, Reading, Reply, Verdict

SPENT = "spent.json"
VERDICTS = "verdicts.jsonl"
READINGS = "readings.jsonl"

PROMPT_TOKENS = 2048
"""What a long prompt is taken to be when memory for answering is planned."""


class EnginePool:
    """At most one engine at a time; asking for another model closes the one that is open."""

    def __init__(self, study: Study, gpus: Sequence[GPU] = ()) -> None:
        """Take the study's settings for answering, and the GPUs; nothing is loaded yet."""
        self._study, self._gpus = study, gpus
        self._open: Engine | None = None
        self._ref: ModelRef | None = None
        self._about = ""
        self._spent = Spent()
        self._charged: Spent | None = None

    @property
    def nf4(self) -> bool:
        """Whether models are measured in 4 bits, as they were trained."""
        quantize = self._study.answer.quantize
        return quantize == "nf4" or (quantize == "auto" and self._study.train.method == "qlora")

    def engine(self, ref: ModelRef) -> Engine:
        """The engine that has `ref`'s base loaded."""
        if self._open is None or self._ref != ref:
            self.close()
            make = resolve("engines", engines.ENGINES, self._study.answer.engine)
            placed = {"device_map": where} if (where := self._placed(ref)) else {}
            engine: Engine = make(
                ref,
                self._study.hardware.device,
                self._study.train.bf16,
                self.nf4,
                self._study.answer.batch_size,
                **placed,
            )
            self._open, self._ref = engine.__enter__(), ref
            self._about, engine.spent = engine.about, self._spent
        return self._open

    def _placed(self, ref: ModelRef) -> Mapping[str, int | str] | None:
        """Where a model lies that no single GPU holds."""
        if len(self._gpus) < 2:
            return None
        shape = read_shape(ref.base, ref.revision)
        tokens = min(
            shape.max_positions, PROMPT_TOKENS + self._study.answer.sampling.max_new_tokens
        )
        bf16 = self._study.train.bf16 is not False
        return answering_map(shape, self._gpus, self.nf4, tokens, bf16)

    @contextmanager
    def counted(self, folder: Path) -> Iterator[Spent]:
        """Count the tokens of a stage's work, over interruptions too.

        Args:
            folder: of the stage; gets ``spent.json``.

        Yields:
            What was spent before; the rest is added when the work is done.
        """
        path = folder / SPENT
        spent = Spent(**store.read_json(path)) if path.is_file() else Spent()
        self._spent, self._charged = replace(spent), None
        if self._open is not None:
            self._open.spent = self._spent
        try:
            yield spent
        finally:
            spent.read, spent.written = self._spent.read, self._spent.written
            if self._charged is not None:  # scoring counts in full, whoever had it done
                spent.read, spent.seconds = self._charged.read, self._charged.seconds
            store.write_json(path, spent)

    def charge(self, spent: Spent) -> None:
        """Let the stage under way bear the cost of losses that may have been known already."""
        self._charged = spent

    @property
    def about(self) -> str:
        """Device and precision of the engine that was last open; "" before the first."""
        return self._about

    def close(self) -> None:
        """Free the device, e.g. before training."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = self._ref = None


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
    base = ModelRef(ref.base, ref.revision, None, ref.trust_remote_code)
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
    cut = sum(reply.finish == "length" for reply in replies)
    return {
        "replies": len(replies),
        "cut_off": cut,
        "device": pool.about,
        "mean_tokens": round(sum(one.n_tokens for one in replies) / max(1, len(replies)), 1),
    }


def judge(
    judge: Judge, examples: Sequence[Example], replies: Path, folder: Path
) -> Mapping[str, Any]:
    """Label stored replies; writes ``verdicts.jsonl``."""
    pairs = [(by_id, reply) for by_id, reply in _paired(examples, replies)]
    verdicts = judge.judge(pairs)
    store.write_jsonl(folder / VERDICTS, verdicts)
    return {"judge": judge.name, "labels": _count(one.label for one in verdicts)}


def grade(
    task: Task, examples: Sequence[Example], replies: Path, verdicts: Path | None, folder: Path
) -> Mapping[str, Any]:
    """Grade stored replies; writes ``readings.jsonl``."""
    found: dict[tuple[str, int], Verdict] = {}
    if verdicts is not None:
        rows = store.read_jsonl(verdicts / VERDICTS, Verdict)
        found = {(one.example_id, one.sample): one for one in rows}
    readings = [
        task.grade(example, reply, found.get((reply.example_id, reply.sample)))
        for example, reply in _paired(examples, replies)
    ]
    store.write_jsonl(folder / READINGS, readings)
    return {
        "outcomes": _count(one.outcome for one in readings),
        "unscored": sum(one.value is None for one in readings),
    }


def read_readings(folder: Path) -> list[Reading]:
    """What `grade` wrote."""
    return store.read_jsonl(folder / READINGS, Reading)


def read_replies(folder: Path) -> list[Reply]:
    """What `answer` wrote."""
    return store.read_jsonl(folder / REPLIES, Reply)


def _paired(examples: Sequence[Example], replies: Path) -> list[tuple[Example, Reply]]:
    by_id = {one.id: one for one in examples}
    pairs = []
    for reply in read_replies(replies):
        if reply.example_id not in by_id:
            raise DataError(
                f"holds a reply to {reply.example_id!r}, which the task does not have",
                where=str(replies),
                remedy="the replies belong to other data; run with --rebuild 'replies/*'",
            )
        pairs.append((by_id[reply.example_id], reply))
    return pairs


def _count(words: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return dict(sorted(counts.items()))
