"""Answers with a model that runs on a server.

An `Engine` over an OpenAI-compatible endpoint. Of a model that is known by its address alone, a
server gives text: it takes no adapter, applies no share of one, and scores no text that is not its
own, so `token_nll` and `first_token` are refused. Of a model whose files are here it is proved that
both read the same prompts, adapters are loaded into the server (`served_adapters`), and what a
server cannot do is done here. Its precision is its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdfast.config import Sampling
from holdfast.data import thinking
from holdfast.endpoint import FIRST_WAIT_S, Answer, Endpoint, is_endpoint, parse_url
from holdfast.engines import REGISTRY, Engine, TextLoss, Usage
from holdfast.engines.prompt_proof import PromptProof
from holdfast.engines.reply_text import cut, stops_of
from holdfast.engines.server_fields import ServedAdapters, told_beyond, tools_of
from holdfast.errors import EndpointError, ModelError
from holdfast.models import ModelRef
from holdfast.progress import Progress, Silent
from holdfast.types import Example, Reply

KEY_ENV = "HOLDFAST_API_KEY"
"""Where the key is looked for, if the server's address names no other variable."""


class RemoteEngine(Engine):
    """An `Engine` over a server.

    Attributes:
        about: says that it is remote.
        answer_folder: where every answer is kept as it comes.
    """

    def __init__(
        self,
        ref: ModelRef,
        device: str = "auto",
        dtype: str = "auto",
        nf4: bool = False,
        batch_size: int | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        """Name the model; nothing is sent.

        Args:
            ref: its base is the address, ``http://localhost:8000/v1#model``
                (`endpoint.parse_url`).
            device: the server's own affair, as is `dtype`.
            dtype: see `device`.
            nf4: refused: the server serves the precision that it was started with.
            batch_size: questions under way at a time; None: as the address says.
            endpoint: the server and how it is asked, where that is not in the address; what was
                sent and spent counts against the caps of both.

        Raises:
            StudyError: the address is none.
            ModelError: an adapter, or 4 bits.
        """
        found = endpoint.server if endpoint else parse_url(ref.base)
        changes: dict[str, object] = {} if batch_size is None else {"concurrency": batch_size}
        if found.key_env is None and os.environ.get(KEY_ENV, "").strip():
            changes["key_env"] = KEY_ENV
        self.server = found.model_copy(update=changes)
        if nf4:
            raise ModelError(
                "a server cannot be told to answer in 4 bits",
                where=self.server.where,
                remedy="start it with a quantised model, and set answer.quantize: none",
            )
        self.ref = ref
        self._refuse(ref.adapter, ref.scale)
        told_beyond(Sampling(), ref, self.server.where)
        first_wait_s = endpoint.first_wait_s if endpoint else FIRST_WAIT_S
        self._endpoint = Endpoint(self.server, first_wait_s)
        if endpoint is not None:
            self._endpoint.spending = endpoint.spending
        self._adapters = ServedAdapters(self._endpoint)
        self._proof = None if self._known_by_address else PromptProof(ref, self.server.where)
        self._local: Engine | None = None
        self._device = device
        self.answer_folder: Path | None = None
        self.usage = Usage()
        self.about = "remote, precision as served"

    def __enter__(self) -> Self:
        """Look for the key and the packages.

        Raises:
            UsageError: the key is not there.
            MissingDependency: a package.
        """
        self._endpoint.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Have the server drop the adapter, and drop the model that was loaded here."""
        self._adapters.drop()
        if self._local is not None:
            self._local.__exit__(kind, error, trace)
            self._local = None

    def generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
        scale: float = 1.0,
    ) -> list[list[Reply]]:
        """See `Engine.generate`; a reply has 0 tokens where the server does not count them.

        What the server's filter withholds is no answer of the model: `finish` is `filtered`.

        Raises:
            ModelError: an adapter, a share of one, or a turn that is not the assistant's.
            EndpointError: a fault that did not pass, a cap, or a prompt that is too long.
        """
        self._refuse(adapter, scale)
        if any(one.meta.keys() & {"continue", "prefix"} for one in examples):
            what = "write the user's turn or go on with a bare text"
            return self._loaded(what).generate(examples, sampling, adapter, progress, scale)
        try:
            return self._asked(examples, sampling, adapter, progress, scale)
        except EndpointError as error:
            if error.fault != "unknown" or adapter is None:
                raise
        self._adapters.forget()  # the server was started again since it was given it
        return self._asked(examples, sampling, adapter, progress, scale)

    def _asked(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
        scale: float,
    ) -> list[list[Reply]]:
        """The server's replies, to the prompts that the model here would read."""
        endpoint = self._adapters.of(adapter, scale)
        rows = [(example, sample) for example in examples for sample in range(sampling.samples)]
        more: dict[str, object] = {"stop": list(sampling.stop)} if sampling.stop else {}
        more |= told_beyond(sampling, self.ref, self.server.where)
        bodies = [
            endpoint.request(
                example.messages,
                sampling.max_new_tokens,
                sampling.temperature,
                sampling.top_p,
                _seed(sampling, example.id, sample),
                **more,
                **tools_of(example),
            )
            for example, sample in rows
        ]
        steps = _Shared(progress, sampling.samples)
        try:
            if self._proof is not None and not self._proof.proved and bodies:
                self._prove(endpoint, rows[0][0], [one for one, _ in rows], bodies)
            answers = endpoint.ask(bodies, self.answer_folder, steps, silent=True)
        except EndpointError as error:
            raise _explained(error, more) from error
        if self._proof is not None:
            for (example, _), answer in zip(rows, answers, strict=True):
                self._proof.check_count(example, answer.read)
        self.usage.read += sum(answer.read for answer in answers)
        self.usage.written += sum(answer.written for answer in answers)
        replies = [
            self._reply(example, sample, answer, sampling)
            for (example, sample), answer in zip(rows, answers, strict=True)
        ]
        samples = sampling.samples
        return [replies[start : start + samples] for start in range(0, len(replies), samples)]

    def _prove(
        self,
        endpoint: Endpoint,
        first: Example,
        examples: Sequence[Example],
        bodies: Sequence[Mapping[str, object]],
    ) -> None:
        """See that the prompts are the same; one question is asked alone where tokens are not told.

        Raises:
            EndpointError: they are not.
        """
        assert self._proof is not None
        with endpoint.running() as running:
            running.check_model()
            self._proof.check(running, examples, bodies)
        if not self._proof.proved:
            (answer,) = endpoint.ask(bodies[:1], self.answer_folder, Silent(), silent=True)
            self._proof.check_count(first, answer.read)

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """See `Engine.token_nll`; by the model that is loaded here.

        Raises:
            ModelError: it is known by its address alone.
        """
        what = "say how likely a given text is to it (perplexity, drift, KL)"
        return self._loaded(what).token_nll(examples)

    def loglikelihood(
        self, pairs: Sequence[tuple[Example, str]], adapter: str | None, scale: float = 1.0
    ) -> list[tuple[float, bool]]:
        """See `Engine.loglikelihood`; by the model that is loaded here.

        Raises:
            ModelError: it is known by its address alone.
        """
        self._refuse(adapter, scale)
        what = "say how likely a given text is to it (multiple choice)"
        return self._loaded(what).loglikelihood(pairs, adapter, scale)

    def text_nll(
        self,
        texts: Sequence[str],
        window: int | None,
        stride: int | None,
        adapter: str | None,
        scale: float = 1.0,
    ) -> list[TextLoss]:
        """See `Engine.text_nll`; by the model that is loaded here.

        Raises:
            ModelError: it is known by its address alone.
        """
        self._refuse(adapter, scale)
        what = "say how likely a whole text is to it (bits per byte)"
        return self._loaded(what).text_nll(texts, window, stride, adapter, scale)

    def first_token(
        self, examples: Sequence[Example], words: Sequence[str], progress: Progress
    ) -> list[list[float]]:
        """See `Engine.first_token`; by the model that is loaded here.

        Raises:
            ModelError: it is known by its address alone.
        """
        what = "say how likely each first word is (a judge's threshold)"
        return self._loaded(what).first_token(examples, words, progress)

    @property
    def _known_by_address(self) -> bool:
        return is_endpoint(self.ref.base)

    def _loaded(self, what: str) -> Engine:
        """The model loaded here, from now on until this engine is left."""
        if self._known_by_address:
            raise ModelError(
                f"a server cannot {what}",
                where=self.server.where,
                remedy="load the model here (engine: hf), or leave that measure out",
            )
        if self._local is None:
            own = REGISTRY.find("hf", "answer.engine")
            self._local = own.build(self.ref, self._device).__enter__()
        self._local.usage = self.usage
        return self._local

    def _refuse(self, adapter: str | None, scale: float) -> None:
        if (adapter is not None or scale != 1) and self._known_by_address:
            raise ModelError(
                "a server cannot be given an adapter, or a share of one",
                where=self.server.where,
                remedy="have it serve the adapter under a name of its own, and ask for that name",
            )

    def _reply(self, example: Example, sample: int, answer: Answer, sampling: Sampling) -> Reply:
        if answer.finish == "too long":
            raise EndpointError(
                f"the prompt of {example.id!r} does not fit: {answer.text}",
                fault="refused",
                where=self.server.where,
                remedy="start the server with a longer context, or lower max_new_tokens or shots.n",
            )
        text = cut(answer.text, stops_of(example, sampling))
        finish = "stop" if text != answer.text else answer.finish
        if answer.thinking:
            closed = finish != "length" or bool(text.strip())
            text = thinking.written(answer.thinking, text, closed)
        found = thinking.split(text)
        thought = answer.thought
        if not thought and found.blocks:
            thought = thinking.tokens_of(Reply("", 0, text, finish, answer.written), found) or 0
        return Reply(example.id, sample, text, finish, answer.written, thought)


class _Shared:
    """A progress that counts several answers as one example."""

    def __init__(self, progress: Progress, samples: int) -> None:
        self._progress, self._samples, self._done = progress, samples, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)

    def kept(self, amount: int) -> None:
        self.advance(amount)

    def advance(self, amount: int = 1) -> None:
        before, self._done = self._done, self._done + amount
        self._progress.advance(self._done // self._samples - before // self._samples)


def _explained(error: EndpointError, more: Mapping[str, object]) -> EndpointError:
    """A refusal with the fields that may be its cause."""
    own = [name for name in more if name != "stop"]
    if error.fault != "refused" or not own:
        return error
    return EndpointError(
        error.message,
        fault=error.fault,
        where=error.where,
        remedy=f"this study sends {', '.join(own)}, which not every server takes: leave it out of "
        f"answer.sampling, or of `model`; {error.remedy}",
    )


def _seed(sampling: Sampling, example_id: str, sample: int) -> int:
    """A seed of its own for every drawn answer; greedy ones share the study's."""
    if sampling.temperature == 0:
        return sampling.seed
    text = f"{sampling.seed}:{example_id}:{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
