"""Answers many prompts fast with transformers.

A place that comes free is taken by the next prompt (`holdfast.engines.refilled`), the longest
first; models that this does not suit are asked in batches (`holdfast.engines.generate`). A reply
does not depend on those beside it, so where memory runs out, what was under way is asked again with
half as many. The base model is kept loaded while adapters come and go; *before* is always measured
on a model that PEFT has never wrapped or that it has fully unwrapped.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.data.chat import Encoded
from holdfast.engines import Engine, TextLoss, log_likelihood, rolling
from holdfast.engines.pace import ROWS, Fitting, Pace
from holdfast.engines.reply_text import ThoughtReader, Until, stops_of
from holdfast.memory.fault_injection import FaultInjector
from holdfast.memory.loading import loading
from holdfast.memory.out_of_memory import RAISED, failure_of, free, is_out_of_memory
from holdfast.models import ModelRef, cpu_linear, precision
from holdfast.models.peft_adapter import (
    Weights,
    bare,
    load_adapter,
    merge,
    narrow,
    restore,
    scale_adapter,
    take_off,
)
from holdfast.progress import Progress, Silent
from holdfast.types import Example, Reply

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

NLL_SHARE = 4
"""Into how many the batch is cut where logits are needed for every token of an answer."""

One = TypeVar("One")
Row = TypeVar("Row")
Asked = tuple[Example, list[int], int]
"""One row: what is asked, prompt ids, number of the sample."""


class HFEngine(Engine):
    """An `Engine` over ``transformers``.

    Attributes:
        about: device and precision in words.
        events: one mapping per batch that did not fit into memory (`memory.out_of_memory.event`).
    """

    def __init__(
        self,
        ref: ModelRef,
        device: str = "auto",
        dtype: str = "auto",
        nf4: bool = False,
        batch_size: int | None = None,
        device_map: Mapping[str, int | str] | None = None,
    ) -> None:
        """Name the model; it is loaded on entry.

        Args:
            ref: the base.
            device: `auto`, `cpu` or `cuda`.
            dtype: of the computation; `auto`: by `holdfast.models.precision`.
            nf4: load the base in 4 bits, as QLoRA trained on it.
            batch_size: prompts at a time; None: as many as give the most tokens a second.
            device_map: module name to GPU, for a model that no single GPU holds.
        """
        super().__init__(ref, device, dtype, nf4, batch_size, device_map)
        self._fitting = Fitting()
        self.events = self._fitting.events
        self._faults = FaultInjector.from_environment()
        self._base: PreTrainedModel = None
        self._adapter: tuple[str, float] | None = None
        self._tuned: PeftModel | None = None
        self._merged: Weights | None = None
        self._laid: bool | None = None  # whether weights are laid out; None: not tried yet
        self._unsuited: str | None = None  # why its answers go in batches; None: not known yet

    def __enter__(self) -> Self:
        """Load tokenizer and weights.

        Raises:
            OutOfMemory: they do not fit.
        """
        self.device = models.pick_device(self.device)
        self.tokenizer = models.load_tokenizer(self.ref, chats=False)
        if self.dtype == "auto":
            self.dtype = precision.decide(self.device, [self.ref]).dtype
        dtype = precision.torch_dtype(self.dtype)
        self.about = models.describe_device(self.device, dtype) + (", NF4" if self.nf4 else "")
        with loading():
            self._base = models.load_model(
                self.ref, dtype, self.device, self.nf4, self.device_map
            ).eval()
        self._thoughts = ThoughtReader(self.tokenizer)
        self._stops = sorted(chat.stop_ids(self.tokenizer, self._base.generation_config))
        size = ROWS["gpu" if self.device == "cuda" else "cpu"]
        self._pace = Pace(self.batch_size or size, settled=self.batch_size is not None)
        self.batch_size = self.batch_size or size
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop the weights and empty the GPU's cache."""
        self._base = self._tuned = self._adapter = self._merged = None
        gc.collect()
        models.empty_cache()

    def generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
        scale: float = 1.0,
    ) -> list[list[Reply]]:
        """See `Engine.generate`; asked to stop, it ends the answers that are under way.

        Raises:
            OutOfMemory: one prompt does not fit.
        """
        model = self._model(adapter, scale)
        if self._laid is None:
            self._laid = cpu_linear.lay_out(self._base)
        encoded = [chat.asked_ids(self.tokenizer, one) for one in examples]
        order = sorted(range(len(examples)), key=lambda i: (-len(encoded[i]), examples[i].id))
        samples = sampling.samples
        rows = [(examples[i], encoded[i], n) for i in order for n in range(samples)]
        replies: list[list[Reply]] = [[] for _ in examples]
        for row, tokens in self._decoded(model, rows, sampling, progress):
            place = order[row // samples]
            found = replies[place]
            found.append(self._reply(rows[row], sampling, tokens))
            if len(found) == samples:
                found.sort(key=lambda one: one.sample)
                self.usage.read += samples * len(rows[row][1])
                self.usage.written += sum(one.n_tokens for one in found)
                if self.answered is not None:
                    self.answered(examples[place], found)
                progress.advance(1)
        progress.stop.release()
        return replies

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """See `Engine.token_nll`; teacher-forced, answer tokens and end of turn only.

        Raises:
            OutOfMemory: one example does not fit.
        """
        model, stops = self._model(None), frozenset(self._stops)
        rows = [chat.encode(self.tokenizer, one, stops) for one in examples]

        def work(some: Sequence[Encoded]) -> list[list[float]]:
            self._faults.at("answer", len(some) * max(len(row.ids) for row in some))
            return log_likelihood.losses(model, some, self.tokenizer.pad_token_id, self.device)

        size = max(1, (self.batch_size or 1) // NLL_SHARE)
        return self._scored("nll", rows, [len(row.ids) for row in rows], size, work, Silent())

    def loglikelihood(
        self, pairs: Sequence[tuple[Example, str]], adapter: str | None, scale: float = 1.0
    ) -> list[tuple[float, bool]]:
        """See `Engine.loglikelihood`.

        Raises:
            ModelError: a text has no token of its own.
            OutOfMemory: one pair does not fit.
        """
        model = self._model(adapter, scale)
        rows, places = log_likelihood.shared(
            [chat.followed_ids(self.tokenizer, *one) for one in pairs]
        )

        lengths = [len(head) + sum(map(len, tails)) - len(tails) for head, tails in rows]

        def work(some: Sequence[log_likelihood.Followed]) -> list[list[tuple[float, bool]]]:
            self._faults.at("answer", sum(len(head) * len(tails) for head, tails in some))
            return log_likelihood.likelihoods(model, some, self.tokenizer.pad_token_id, self.device)

        choices = max((len(tails) for _, tails in rows), default=1)
        size = max(1, (self.batch_size or 1) // NLL_SHARE // min(choices, NLL_SHARE))
        found = self._scored("likely", rows, lengths, size, work, Silent())
        return [found[row][place] for row, place in places]

    def text_nll(
        self,
        texts: Sequence[str],
        window: int | None,
        stride: int | None,
        adapter: str | None,
        scale: float = 1.0,
    ) -> list[TextLoss]:
        """See `Engine.text_nll`; windows of all texts go together, the longest first.

        Raises:
            OutOfMemory: one window does not fit.
        """
        model = self._model(adapter, scale)
        config = self._base.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        read = rolling.read(self.tokenizer, texts, window, stride, positions)

        def work(some: Sequence[Encoded]) -> list[list[float]]:
            self._faults.at("answer", len(some) * max(len(row.ids) for row in some))
            return log_likelihood.losses(model, some, self.tokenizer.pad_token_id, self.device)

        size = rolling.rows_at_once(read.rows, config.vocab_size, (self.batch_size or 1))
        lengths = [len(row.ids) for row in read.rows]
        return read.told(self._scored("text", read.rows, lengths, size, work, Silent()))

    def first_token(
        self, examples: Sequence[Example], words: Sequence[str], progress: Progress
    ) -> list[list[float]]:
        """See `Engine.first_token`; raises OutOfMemory where one prompt does not fit."""
        model, first = self._model(None), chat.first_ids(self.tokenizer, words)
        rows = [chat.asked_ids(self.tokenizer, one) for one in examples]

        def work(some: Sequence[list[int]]) -> list[list[float]]:
            self._faults.at("answer", len(some) * max(map(len, some)))
            return log_likelihood.chances(
                model, some, first, self.tokenizer.pad_token_id, self.device
            )

        return self._scored(
            "first", rows, [len(row) for row in rows], self.batch_size or 1, work, progress
        )

    def _scored(
        self,
        kind: str,
        rows: Sequence[Row],
        lengths: Sequence[int],
        size: int,
        work: Callable[[Sequence[Row]], list[list[One]]],
        progress: Progress,
    ) -> list[list[One]]:
        """What `work` makes of the rows, the longest first, in their own order."""
        order = sorted(range(len(rows)), key=lambda i: -lengths[i])
        self.usage.read += sum(lengths)
        say = logging.getLogger(__name__).warning
        found: list[list[One]] = [[]] * len(rows)
        places, done = iter(order), 0
        for some in self._fitting.batches(kind, [rows[i] for i in order], size, work, say):
            for values in some:
                found[next(places)] = values
            progress.worked(sum(lengths[place] for place in order[done : done + len(some)]))
            progress.advance(len(some))
            done += len(some)
        return found

    def _decoded(
        self, model: PreTrainedModel, rows: Sequence[Asked], sampling: Sampling, progress: Progress
    ) -> Iterator[tuple[int, list[int]]]:
        """Rows and the token ids of their answers, each as it ends; asked to stop, no more begin.

        Raises:
            OutOfMemory: one row does not fit.
        """
        from holdfast.engines.generate import suits

        plain = self._tuned.get_base_model() if self._tuned is not None else model
        say, stop = progress.say, progress.stop
        if self._unsuited is None:
            self._unsuited = suits(plain, self.tokenizer.pad_token_id)
            if self._unsuited:
                say(f"answers go in batches, more slowly: {self._unsuited}")
        if self._unsuited:
            size = max(1, (self.batch_size or 1) // sampling.samples) * sampling.samples
            done = 0
            stop.hold(f"the {min(size, len(rows))} answers under way")
            for answers in self._fitting.batches(
                "generate", rows, size, lambda some: self._batch(model, some, sampling), say
            ):
                progress.worked(sum(map(len, answers)))
                yield from enumerate(answers, start=done)
                done += len(answers)
                stop.release()
                stop.hold(f"the {min(size, len(rows) - done)} answers under way")
            return

        def ending(wrote: int) -> bool:
            progress.worked(wrote)
            return stop.asked

        left = dict(enumerate(rows))
        while left and not stop.asked:
            asked = list(left)
            stop.hold(f"the {min(self._pace.rows, len(left))} answers under way")
            try:
                for place, tokens in self._refilled(plain, list(left.values()), sampling, ending):
                    del left[asked[place]]
                    yield asked[place], tokens
                    stop.doing = f"the {min(self._pace.rows, len(left))} answers under way"
                failure = None
            except RAISED as error:
                if not is_out_of_memory(error):
                    raise
                failure = failure_of(error)
            if failure is not None:
                free()  # outside the except block: the traceback pins tensors
                size = min(self._pace.rows, len(left))
                self._fitting.halved(size, failure, say)
                self._pace.rows, self._pace.settled = size // 2, True

    def _refilled(
        self,
        model: PreTrainedModel,
        rows: Sequence[Asked],
        sampling: Sampling,
        ending: Callable[[int], bool],
    ) -> Iterator[tuple[int, list[int]]]:
        """Answers of rows, whose places come free one by one; none begins after `ending`."""
        from holdfast.engines.next_token import seed_of
        from holdfast.engines.refilled import Answering

        answering = Answering(
            model, sampling, self._stops, self.tokenizer.pad_token_id, self._pace,
            lambda tokens: self._faults.at("answer", tokens),
        )  # fmt: skip
        yield from answering.answers(
            [ids for _, ids, _ in rows],
            [seed_of(sampling.seed, one.id, n) for one, _, n in rows],
            [self._until(one, sampling) for one, _, _ in rows],
            ending,
        )

    def _batch(
        self, model: PreTrainedModel, rows: Sequence[Asked], sampling: Sampling
    ) -> list[list[int]]:
        """Token ids of one answer for each row."""
        from holdfast.engines.generate import decode
        from holdfast.engines.next_token import seed_of

        width = max(len(ids) for _, ids, _ in rows) + sampling.max_new_tokens
        self._faults.at("answer", len(rows) * width)
        return decode(
            model,
            [ids for _, ids, _ in rows],
            [seed_of(sampling.seed, one.id, n) for one, _, n in rows],
            sampling,
            self._stops,
            self.tokenizer.pad_token_id,
            [self._until(one, sampling) for one, _, _ in rows],
        )

    def _until(self, example: Example, sampling: Sampling) -> Until | None:
        words = stops_of(example, sampling)
        return Until(self.tokenizer, words) if words else None

    def _reply(self, asked: Asked, sampling: Sampling, tokens: list[int]) -> Reply:
        return self._thoughts.reply(asked, sampling, tokens, self._stops)

    def _model(self, adapter: str | None, scale: float = 1.0) -> PreTrainedModel:
        """The base as it is, or wrapped with a share of `adapter`; switches when needed."""
        wanted = (adapter, scale) if adapter else None
        if wanted == self._adapter:
            return self._tuned if adapter else bare(self._base)
        cpu_linear.undo(self._base)
        self._laid = None
        if self._tuned is not None:
            restore(self._merged or {})
            self._base, self._tuned, self._adapter = take_off(self._tuned), None, None
            self._merged = None
        if adapter is None:
            return bare(self._base)
        with loading():
            self._tuned = load_adapter(self._base, adapter)
            if scale != 1:
                scale_adapter(self._tuned, scale)
            self._merged = None if self.nf4 else merge(self._tuned)
            if self._merged is None:
                narrow(self._tuned)
        self._adapter = wanted
        return self._tuned
