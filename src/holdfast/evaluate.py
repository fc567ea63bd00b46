"""What did the model say, and how good is it?

Three steps with files between them, so that a better parser or judge never costs generation again:
`answer` (task x engine -> replies), `judge` (replies -> verdicts), `grade` (replies, verdicts ->
readings); `score` says besides what the untouched model makes of the replies. `EnginePool` keeps
one base model loaded while the stages change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast import engines, outcomes, store, surprise
from holdfast.asking import CHUNK, REPLIES, ask
from holdfast.engines import Engine, Spent
from holdfast.errors import DataError
from holdfast.foreign import engine_of, has_shape
from holdfast.judges import Desk, Judge, Panel
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
        self._ref: tuple[ModelRef, bool, bool | str] | None = None
        self._about = ""
        self._spent = Spent()
        self._charged: Spent | None = None

    @property
    def nf4(self) -> bool:
        """Whether models are measured in 4 bits, as they were trained."""
        quantize = self._study.answer.quantize
        return quantize == "nf4" or (quantize == "auto" and self._study.train.method == "qlora")

    def engine(self, ref: ModelRef, nf4: bool | None = None) -> Engine:
        """The engine that has `ref`'s base loaded.

        Args:
            ref: the model.
            nf4: in 4 bits; None: as the study measures. A judge says it, and is then loaded in
                bfloat16 where the device has it, whatever the study trains and measures in.
        """
        bf16 = self._study.train.bf16 if nf4 is None else "auto"
        nf4 = self.nf4 if nf4 is None else nf4
        if self._open is None or self._ref != (ref, nf4, bf16):
            self.close()
            make = resolve("engines", engines.ENGINES, engine_of(ref, self._study.answer.engine))
            placed = {"device_map": where} if (where := self._placed(ref, nf4, bf16)) else {}
            device, size = self._study.hardware.device, self._study.answer.batch_size
            engine: Engine = make(ref, device, bf16, nf4, size, **placed)
            self._open, self._ref = engine.__enter__(), (ref, nf4, bf16)
            self._about, engine.spent = engine.about, self._spent
        return self._open

    def _placed(self, ref: ModelRef, nf4: bool, bf16: bool | str) -> Mapping[str, int | str] | None:
        """Where a model lies that no single GPU holds."""
        if len(self._gpus) < 2 or not has_shape(ref):
            return None
        shape = read_shape(ref.base, ref.revision)
        tokens = min(
            shape.max_positions, PROMPT_TOKENS + self._study.answer.sampling.max_new_tokens
        )
        return answering_map(shape, self._gpus, nf4, tokens, bf16 is not False)

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
    judge: Judge, examples: Sequence[Example], replies: Path, folder: Path, desk: Desk | None = None
) -> Mapping[str, Any]:
    """Label stored replies, those that were withheld left out; writes ``verdicts.jsonl``.

    Args:
        judge: who labels.
        examples: what was asked.
        replies: folder of what was said.
        folder: of the stage.
        desk: what the judge may use; None for judges by rules.
    """
    pairs = [pair for pair in _paired(examples, replies) if not outcomes.withheld(*pair)]
    verdicts = judge.judge(pairs, desk)
    store.write_jsonl(folder / VERDICTS, verdicts)
    summary = {"judge": judge.name, "labels": _count(one.label for one in verdicts)}
    if isinstance(judge, Panel):
        summary["agreement"] = judge.agreement([folder])
    return summary


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
    return surprise.measure(lambda: pool.engine(base), pairs, folder, progress)


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
    """
    count: Counter[str] = Counter()
    unscored = 0

    def graded() -> Iterator[Reading]:
        nonlocal unscored
        found, with_loss = _verdicts(verdicts), _losses(scored)
        for example, reply in _paired(examples, replies):
            reading = outcomes.withheld(example, reply)
            reading = reading or task.grade(example, reply, with_loss(found(reply)))
            count[reading.outcome] += 1
            unscored += reading.value is None
            yield reading

    store.write_jsonl(folder / READINGS, graded())
    return {"outcomes": dict(sorted(count.items())), "unscored": unscored}


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
    nlls, usual = surprise.read(scored[0]), surprise.limit(scored[1])

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
