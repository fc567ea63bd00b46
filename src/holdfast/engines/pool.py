"""Keeps one model loaded at a time: a judge comes after the model under test has left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from holdfast import engines, models
from holdfast.config import Study, TrainSpec
from holdfast.endpoint import Endpoint, is_endpoint, parse_url
from holdfast.engines import FROM_FILES, Engine, Usage
from holdfast.engines.chunks import spent_in
from holdfast.engines.server_fields import REMOTE, server_of
from holdfast.engines.vllm import VLLMEngine
from holdfast.engines.vllm.wanted import Wanted, wanted_of
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner.inference import answering_map, longest
from holdfast.memory.precision import Dtype, Precision
from holdfast.models import ModelRef
from holdfast.models.external import engine_of, has_shape
from holdfast.models.precision import decide
from holdfast.runs import store

USAGE = "usage.json"
OWN, VLLM = "hf", "vllm"
"""The engine that loads weights by itself, and the one that has a server of its own."""


class EnginePool:
    """At most one engine at a time; asking for another model closes the one that is open.

    Attributes:
        under_test: all models that are measured.
        alone: no other process asks them meanwhile, so that this one may change the engine.
    """

    def __init__(
        self, study: Study, gpus: Sequence[GPU] = (), under_test: Sequence[ModelRef] = ()
    ) -> None:
        """Take what decides how models answer; nothing is loaded yet.

        Args:
            study: its settings for answering.
            gpus: that may be used.
            under_test: all models that are measured: in one precision, which suits all of them.
        """
        self._study, self._gpus, self.under_test = study, gpus, tuple(under_test)
        self._decided: dict[tuple[Dtype, ...], Precision] = {}
        self._open: Engine | None = None
        self._ref: tuple[ModelRef, bool, str, str] | None = None
        self._about = ""
        self._usage = Usage()
        self._charged: Usage | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self.alone = True
        self._vllm_answered, self._judges, self._instead = False, False, ""
        self.server = server_of(study.answer, self.under_test)

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
                what suits it and the device, whatever the study trains and measures in.
        """
        dtype: Dtype | Literal["auto"] = self._dtype(ref) if nf4 is None else "auto"
        kind = engine_of(ref, self._study.answer.engine)
        if nf4 is not None and not is_endpoint(ref.base) and kind == REMOTE:
            kind = OWN  # the server has the model under test, no judge
        judges, nf4 = nf4 is not None, self.nf4 if nf4 is None else nf4
        wanted = (ref, nf4, dtype, kind)
        if self._open is None or self._ref != wanted:
            self.close()
            device, answer = self._study.hardware.device, self._study.answer
            found = engines.REGISTRY.find(kind, "answer.engine")
            engine = found.build(
                ref, device, dtype, nf4, answer.batch_size, **self._placed(*wanted, judges)
            )
            self._open, self._ref, self._judges = engine.__enter__(), wanted, judges
            engine.usage = self._usage
        return self._open

    def precision(self, train: TrainSpec | None = None) -> Precision | None:
        """What models under test are computed with in; None where no weights are loaded here.

        Args:
            train: an arm's own settings; None: the study's, in which all are measured.
        """
        allowed = (train or self._study.train).precisions
        if self._study.answer.engine not in FROM_FILES or not any(map(has_shape, self.under_test)):
            return None
        if allowed not in self._decided:
            device = models.pick_device(self._study.hardware.device)
            self._decided[allowed] = decide(device, self.under_test, allowed, self._gpus)
        return self._decided[allowed]

    def _dtype(self, ref: ModelRef) -> Dtype | Literal["auto"]:
        """For the engine of a model under test: decided for all of them, or left to it."""
        kind = engine_of(ref, self._study.answer.engine)
        found = self.precision() if kind in FROM_FILES else None
        if found is not None:
            return found.dtype
        allowed = self._study.train.precisions
        return allowed[0] if len(allowed) == 1 else "auto"

    def _placed(
        self, ref: ModelRef, nf4: bool, dtype: Dtype | Literal["auto"], kind: str, judges: bool
    ) -> dict[str, object]:
        """Where a model lies that no single GPU holds, or that a server has."""
        found: dict[str, object] = {"wanted": self._wanted(judges)} if kind == VLLM else {}
        if kind == REMOTE:
            named = ref.base if is_endpoint(ref.base) else ""
            server = parse_url(named) if named else self.server
            if server is not None:  # its caps hold for the command, however often it is opened
                return {"endpoint": self._endpoints.setdefault(named, Endpoint(server))}
        if len(self._gpus) < 2 or not has_shape(ref):
            return found
        shape = read_shape(ref.base, ref.revision)
        tokens = longest(shape, self._study.answer.sampling.max_new_tokens)
        if dtype == "auto":
            dtype = decide("cuda", [ref], gpus=self._gpus).dtype
        where = answering_map(shape, self._gpus, nf4, tokens, dtype)
        return {**found, "device_map": where} if where else found

    def _wanted(self, judges: bool) -> Wanted:
        """What a server of our own is asked; a judge is compared with nothing."""
        if judges:
            return replace(self._usual, rank=0)
        free = self.alone and not self._vllm_answered
        return replace(self._usual, may_change=free, instead=self._instead)

    @cached_property
    def _usual(self) -> Wanted:
        return wanted_of(self._study, self.under_test, self._gpus)

    @contextmanager
    def counted(self, folder: Path) -> Iterator[Usage]:
        """Count the tokens of a stage's work, the same however often it is interrupted.

        What was asked in chunks is counted from the chunks that are kept. All else is done anew
        after an interruption, and counted then.

        Args:
            folder: of the stage; gets ``usage.json``.

        Yields:
            The usage, complete when the work is done.
        """
        usage = Usage()
        self._usage, self._charged = Usage(), None
        if self._open is not None:
            self._open.usage = self._usage
        yield usage
        kept = spent_in(folder)
        usage.read, usage.written = self._usage.read + kept.read, self._usage.written + kept.written
        if self._charged is not None:  # scoring counts in full, whoever had it done
            usage.read, usage.seconds = self._charged.read, self._charged.seconds
        store.write_json(folder / USAGE, usage)

    def charge(self, usage: Usage) -> None:
        """Let the stage under way bear the cost of losses that may have been known already."""
        before = self._charged or Usage()
        read, seconds = before.read + usage.read, before.seconds + usage.seconds
        self._charged = Usage(read, 0, seconds)

    @property
    def about(self) -> str:
        """Device and precision of the engine that was last open; "" before the first."""
        return self._about if self._open is None else self._open.about

    def close(self) -> None:
        """Free the device, e.g. before training."""
        if self._open is not None:
            self._about, engine = self._open.about, self._open
            self._open = self._ref = None
            engine.__exit__(None, None, None)
            if isinstance(engine, VLLMEngine) and not self._judges:
                self._vllm_answered |= engine.has_answered
                self._instead = self._instead or engine.instead
