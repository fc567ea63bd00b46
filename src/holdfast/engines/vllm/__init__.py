"""Answers with a vLLM that Holdfast starts, watches and stops itself.

What is asked, where an answer ends and how it reads is decided by the code of the local engine:
prompts go as token ids, answers come as token ids. Drawn answers have a seed each, but the numbers
drawn are vLLM's own. Where memory does not hold the server, transformers answer instead, as long as
nothing was answered by vLLM that they would be compared with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, cast

from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.endpoint.client import require_packages
from holdfast.engines import REGISTRY, Engine, TextLoss, rolling
from holdfast.engines.reply_text import ThoughtReader, stops_of
from holdfast.engines.vllm import servable
from holdfast.engines.vllm.program import find
from holdfast.engines.vllm.questions import (
    Choice,
    Done,
    Question,
    chosen,
    drawn,
    log_chances,
    losses,
    scored,
)  # fmt: skip
from holdfast.engines.vllm.server import NoRoom
from holdfast.engines.vllm.serving import MERGED, Serving
from holdfast.engines.vllm.settings import sizes
from holdfast.engines.vllm.wanted import Wanted
from holdfast.errors import OutOfMemory
from holdfast.memory.precision import Dtype
from holdfast.models import ModelRef, precision, skeleton
from holdfast.progress import Progress, Silent
from holdfast.types import Example, Reply

NAME = "vLLM"
INSTEAD = "transformers instead of vLLM"
"""What `about` begins with where the local engine answers."""


class VLLMEngine(Engine):
    """An `Engine` over ``vllm serve``.

    Attributes:
        about: vLLM's version, device and precision; or that transformers answer instead, and why.
        instead: why transformers answer; "": vLLM does.
    """

    def __init__(
        self,
        ref: ModelRef,
        device: str = "auto",
        dtype: str = "auto",
        nf4: bool = False,
        batch_size: int | None = None,
        device_map: Mapping[str, int | str] | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        """Name the model; the server is started when something is asked.

        Args:
            ref: the base.
            device: `auto`, `cpu` or `cuda`.
            dtype: of the computation; `auto`: as the local engine would.
            nf4: 4 bits, in which the local engine answers instead.
            batch_size: prompts under way at a time; None: as suits the device.
            device_map: for the local engine, where it answers instead.
            wanted: what is known of the asking; None: nothing, and vLLM is in this environment.
        """
        super().__init__(ref, device, dtype, nf4, batch_size, device_map)
        self._wanted = wanted or Wanted()
        self._serving: Serving | None = None
        self._here: Engine | None = None
        self.instead = ""

    def __enter__(self) -> Self:
        """Load the tokenizer, and find vLLM.

        Raises:
            MissingDependency: vLLM, or a package; naming what installs it.
            ModelError: the model cannot be asked so.
        """
        require_packages()
        program = find(self._wanted.program)
        self.device = models.pick_device(self.device)
        self._tokenizer = models.load_tokenizer(self.ref, chats=False)
        if self.dtype == "auto":
            self.dtype = precision.decide(self.device, [self.ref]).dtype
        settings = skeleton.generation_config(self.ref)
        self._thoughts = ThoughtReader(self._tokenizer)
        self._stops = sorted(chat.stop_ids(self._tokenizer, settings))
        self._about = models.describe_device(self.device, precision.torch_dtype(self.dtype))
        self._named = f"{NAME} {program.version}"
        self.about = f"{self._named}, {self._about}"
        self._serving = Serving(
            self.ref, program, self.device, cast(Dtype, self.dtype), self.batch_size, self._wanted
        )
        say = logging.getLogger(__name__).warning
        if program.untried:
            say("vLLM %s is newer than what Holdfast was tried with", program.version)
        why = self._wanted.instead or servable.refused_model(self.ref, self.nf4)
        if why := why or servable.refused_settings(settings):
            self._change(why, say)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the server, or drop the weights that are here."""
        if self._serving is not None:
            self._serving.close()
        if self._here is not None:
            self._here.__exit__(kind, error, trace)
            self._here = None

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
            EndpointError: the server does not start, does not stay, or refuses a question.
            OutOfMemory: vLLM has no room any more, and it answered what this is compared with.
        """
        from holdfast.engines.next_token import seed_of

        samples = sampling.samples
        rows = [
            (one, ids, sample)
            for one in (examples if self._here is None else ())
            for ids in [chat.asked_ids(self._tokenizer, one)]
            for sample in range(samples)
        ]
        questions = [
            drawn(
                ids, sampling, seed_of(sampling.seed, one.id, sample), self._stops,
                stops_of(one, sampling),
            )
            for one, ids, sample in rows
        ]  # fmt: skip
        replies: list[list[Reply]] = [[] for _ in examples]

        def done(place: int, choice: Choice) -> None:
            example, ids, _ = rows[place]
            found = replies[place // samples]
            tokens: list[int] = choice["token_ids"]
            found.append(self._thoughts.reply(rows[place], sampling, tokens, self._stops))
            progress.worked(len(tokens))
            if len(found) == samples:
                found.sort(key=lambda one: one.sample)
                self.usage.read += samples * len(ids)
                self.usage.written += sum(one.n_tokens for one in found)
                if self.answered is not None:
                    self.answered(example, found)
                progress.advance(1)

        if (here := self._asked(questions, adapter, scale, progress, done)) is not None:
            return here.generate(examples, sampling, adapter, progress, scale)
        progress.stop.release()
        return replies

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """See `Engine.token_nll`; raises what `generate` raises."""
        rows = [
            chat.encode(self._tokenizer, one, frozenset(self._stops))
            for one in (examples if self._here is None else ())
        ]
        found: list[list[float]] = [[]] * len(rows)

        def done(place: int, choice: Choice) -> None:
            row = rows[place]
            told = losses(choice, row.ids, NAME)[-row.cost.supervised :]
            found[place] = [-value for value, _ in told]

        questions = [scored(row.ids) for row in rows]
        if (here := self._asked(questions, None, 1.0, Silent(), done)) is not None:
            return here.token_nll(examples)
        self.usage.read += sum(len(row.ids) for row in rows)
        return found

    def loglikelihood(
        self, pairs: Sequence[tuple[Example, str]], adapter: str | None, scale: float = 1.0
    ) -> list[tuple[float, bool]]:
        """See `Engine.loglikelihood`; raises what `generate` raises."""
        rows = [
            chat.followed_ids(self._tokenizer, *pair)
            for pair in (pairs if self._here is None else ())
        ]
        found = [(0.0, False)] * len(rows)

        def done(place: int, choice: Choice) -> None:
            head, tail = rows[place]
            told = losses(choice, [*head, *tail], NAME)[-len(tail) :]
            likeliest = all(rank == 1 for _, rank in told)
            found[place] = sum(value for value, _ in told), likeliest

        questions = [scored([*head, *tail]) for head, tail in rows]
        if (here := self._asked(questions, adapter, scale, Silent(), done)) is not None:
            return here.loglikelihood(pairs, adapter, scale)
        self.usage.read += sum(len(head) + len(tail) for head, tail in rows)
        return found

    def text_nll(
        self,
        texts: Sequence[str],
        window: int | None,
        stride: int | None,
        adapter: str | None,
        scale: float = 1.0,
    ) -> list[TextLoss]:
        """See `Engine.text_nll`; raises what `generate` raises."""
        shape = sizes(self.ref)
        positions = None if shape is None else shape.max_positions - 1  # it writes one token
        some = texts if self._here is None else ()
        read = rolling.read(self._tokenizer, some, window, stride, positions)
        found: list[list[float]] = [[]] * len(read.rows)

        def done(place: int, choice: Choice) -> None:
            row = read.rows[place]
            told = losses(choice, row.ids, NAME)[-row.cost.supervised :]
            found[place] = [-value for value, _ in told]

        questions = [scored(row.ids) for row in read.rows]
        if (here := self._asked(questions, adapter, scale, Silent(), done)) is not None:
            return here.text_nll(texts, window, stride, adapter, scale)
        self.usage.read += sum(len(row.ids) for row in read.rows)
        return read.told(found)

    def first_token(
        self, examples: Sequence[Example], words: Sequence[str], progress: Progress
    ) -> list[list[float]]:
        """See `Engine.first_token`; raises what `generate` raises."""
        first = chat.first_ids(self._tokenizer, words)
        rows = [
            chat.asked_ids(self._tokenizer, one) for one in (examples if self._here is None else ())
        ]
        found: list[list[float]] = [[]] * len(rows)

        def done(place: int, choice: Choice) -> None:
            found[place] = [math.exp(one) for one in log_chances(choice, first, NAME)]
            progress.worked(len(rows[place]))
            progress.advance(1)

        questions = [chosen(ids, first) for ids in rows]
        if (here := self._asked(questions, None, 1.0, progress, done)) is not None:
            return here.first_token(examples, words, progress)
        self.usage.read += sum(map(len, rows))
        progress.stop.release()
        return found

    @property
    def has_answered(self) -> bool:
        """Whether vLLM answered anything."""
        return self._serving is not None and self._serving.answered

    def _asked(
        self, questions: Sequence[Question], adapter: str | None, scale: float,
        progress: Progress, done: Done,
    ) -> Engine | None:  # fmt: skip
        """Have vLLM answer; the local engine where that is to answer instead."""
        serving = self._serving
        assert serving is not None, "the engine is entered first"
        if self._here is None and questions:
            applied = None if adapter is None else (adapter, scale)
            try:
                serving.ask(questions, applied, progress, done)
            except NoRoom as error:
                if serving.answered or not self._wanted.may_change:
                    raise _no_change(error) from None
                self._change(f"it has no room: {error}", progress.say)
            else:
                more = f", {MERGED}" if serving.merged else ""
                self.about = f"{self._named}, {self._about}{more}"
        if self._here is not None:
            self._here.usage, self._here.answered = self.usage, self.answered
            self._here.answer_folder = self.answer_folder
        return self._here

    def _change(self, why: str, say: Callable[[str], None]) -> None:
        """Load the model here, from now on."""
        assert self._serving is not None
        self._serving.close()
        say(f"vLLM cannot answer ({why}): transformers answer instead")
        own = REGISTRY.find("hf", "answer.engine")
        self._here = own.build(
            self.ref, self.device, self.dtype, self.nf4, self.batch_size, self.device_map
        ).__enter__()
        self.instead = why
        self.about = f"{INSTEAD} ({why}): {self._here.about}"


def _no_change(error: NoRoom) -> OutOfMemory:
    """The error where transformers may not answer instead."""
    return OutOfMemory(
        f"vLLM has no room any more ({error}), and it answered what this is compared with",
        phase="answer",
        where="answer.engine: vllm",
        remedy="free memory and give the same command again; or answer.engine: hf for all of it, "
        "in another run folder",
    )
