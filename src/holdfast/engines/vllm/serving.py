"""Has vLLM answer for one base and its adapters, or for weights into which one is merged.

The server is started when something is asked, with as much memory as there is, and again when it
dies, when a prompt is longer than it takes, or an adapter of a higher rank. What was answered stays
answered. Where memory does not hold it, it is started smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from holdfast.engines.server_fields import ServedAdapters
from holdfast.engines.vllm.program import Program
from holdfast.engines.vllm.questions import Done, Question, put_all
from holdfast.engines.vllm.servable import rank_of, refused_adapter
from holdfast.engines.vllm.server import NO_ROOM, Died, NoRoom, Server
from holdfast.engines.vllm.settings import (
    ROWS,
    Settings,
    beside,
    fitted,
    lora_rank,
    rounded,
    sizes,
)
from holdfast.engines.vllm.wanted import Wanted
from holdfast.errors import EndpointError
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.planner.inference import longest
from holdfast.memory.precision import Dtype
from holdfast.models import ModelRef
from holdfast.models.precision import torch_dtype
from holdfast.models.whole import write_merged
from holdfast.progress import Progress

RESTARTS = 3
"""How often a server that died is started again without one answer in between."""
MOST_ROWS = 256
SLOTS = 4
"""Adapters that a server holds at a time."""
MERGED = "its adapter merged into the weights, rounded with them"


class Serving:
    """One base behind a server of its own; `close` ends it.

    Attributes:
        answered: whether anything was.
        merged: whether the server has merged weights now.
    """

    def __init__(
        self, ref: ModelRef, program: Program, device: str, dtype: Dtype, rows: int | None,
        wanted: Wanted,
    ) -> None:  # fmt: skip
        """Take what is served; nothing is started.

        Args:
            ref: the base, without an adapter.
            program: that is started.
            device: `cpu` or `cuda`.
            dtype: of the computation.
            rows: prompts under way at a time; None: as suits the device.
            wanted: what will be asked.
        """
        self._ref, self._program, self._device, self._dtype = ref, program, device, dtype
        self._rows = min(rows or ROWS[device], MOST_ROWS)
        self._wanted, self._rank = wanted, lora_rank(wanted.rank) if wanted.rank else 0
        self._shape = sizes(ref)
        self._most = self._shape.max_positions if self._shape else 1 << 30
        self._server: Server | None = None
        self._adapters: ServedAdapters
        self._smaller: Settings | None = None
        self._kept = ExitStack()
        self._whole: tuple[str, float, ModelRef] | None = None
        self._refused: dict[str, str] = {}
        self.answered = self.merged = False

    def ask(
        self,
        questions: Sequence[Question],
        adapter: tuple[str, float] | None,
        progress: Progress,
        done: Done,
    ) -> None:
        """Put questions, many at a time, the longest first; asked to stop, no more begin.

        Args:
            questions: in any order.
            adapter: folder and share; None: the plain base.
            progress: is told what goes on; it is not advanced.
            done: gets the number of a question and the choice that answers it, as each comes.

        Raises:
            NoRoom: memory does not hold even the smallest server.
            EndpointError: it does not start, does not stay, or refuses a question.
        """
        needed = max(self._fits(one) for one in questions)
        order = sorted(range(len(questions)), key=lambda i: -len(questions[i].ids))
        left, deaths = dict.fromkeys(order), 0
        while left and not progress.stop.asked:
            before = len(left)
            try:
                server, name = self._ready(adapter, needed, progress.say)
                put_all(questions, left, (server, name), progress, done)
            except Died as error:
                deaths = 1 if len(left) < before else deaths + 1
                if error.forgotten:
                    self._adapters.forget()
                self._mourn(str(error), deaths, len(left), needed, progress.say)
            except BaseException:
                self.close()
                raise
            finally:
                self.answered = self.answered or len(left) < before

    def close(self) -> None:
        """End the server, and remove merged weights."""
        if self._server is not None:
            self._server.stop()
            self._adapters.forget()
        self._server = self._whole = None
        self.merged = False
        self._kept.close()

    def _fits(self, question: Question) -> int:
        """Tokens that a question takes, as far as the model reads.

        Raises:
            EndpointError: its prompt alone is too long.
        """
        if len(question.ids) >= self._most:
            raise EndpointError(
                f"a prompt has {len(question.ids)} tokens, and the model reads {self._most}",
                fault="refused",
                where="answer.engine: vllm",
                remedy="lower shots.n, or let the models answer here: answer.engine: hf",
            )
        return min(question.tokens, self._most)

    def _ready(
        self, adapter: tuple[str, float] | None, needed: int, say: Callable[[str], None]
    ) -> tuple[Server, str]:
        """The server and the name to ask for; it is started, and given the adapter, if need be."""
        ref, rank, why = self._ref, 0, ""
        if adapter is not None:
            why = self._refused.get(adapter[0]) or refused_adapter(Path(adapter[0]))
            rank = 0 if why else rank_of(Path(adapter[0]))
        if why and self._wanted.place is not None:
            raise _not_taken(why)
        if adapter is not None and why:
            ref = self._merged(adapter, why, say)
        server = self._server
        if server is None or not server.alive or not server.settings.serves(ref, needed, rank):
            server = self._started(ref, needed, rank, say)
        self.merged = ref is not self._ref
        if adapter is None or self.merged:
            return server, server.name
        try:
            return server, self._adapters.of(*adapter).server.model
        except EndpointError as error:
            if error.fault != "refused" or server.ended(0):
                raise Died(error.message) from None
            self._refused[adapter[0]] = error.message
            return self._ready(adapter, needed, say)

    def _merged(self, adapter: tuple[str, float], why: str, say: Callable[[str], None]) -> ModelRef:
        """Whole weights with a share of an adapter in them; written once for all that is asked."""
        if self._whole is not None and self._whole[:2] == adapter:
            return self._whole[2]
        self.close()
        say(f"vLLM does not take the adapter {adapter[0]} ({why}): {MERGED}, it is served whole")
        folder = self._kept.enter_context(TemporaryDirectory(prefix="holdfast-merged-"))
        write_merged(
            replace(self._ref, adapter=adapter[0], scale=adapter[1]),
            torch_dtype("float32"), Path(folder),
        )  # fmt: skip
        self._whole = (*adapter, replace(self._ref, base=folder, revision=None))
        return self._whole[2]

    def _started(self, ref: ModelRef, needed: int, rank: int, say: Callable[[str], None]) -> Server:
        """A server that can be asked this, as large as memory allows.

        Raises:
            NoRoom: the smallest does not fit.
        """
        if self._server is not None:
            self._server.stop()
            self._adapters.forget()
            self._server = None
        whole = ref is not self._ref
        self._rank = max(self._rank, lora_rank(rank) if rank else 0)
        usual = longest(self._shape, self._wanted.new_tokens) if self._shape else needed
        usual = self._wanted.place.tokens if self._wanted.place else usual
        settings: Settings | None = Settings(
            replace(ref, adapter=None, scale=1.0), self._dtype,
            rounded(max(needed, usual), self._most), self._rows,
            rank=0 if whole else self._rank, slots=SLOTS,
        )  # fmt: skip
        assert settings is not None
        if (place := self._wanted.place) is not None:
            settings = beside(settings, place, self._wanted.visible)
        else:
            settings = fitted(settings, self._shape, self._gpus())
        if (small := self._smaller) is not None:  # memory ran out before
            settings = replace(
                settings, rows=min(settings.rows, small.rows), eager=True, slots=1,
                tokens=max(needed, min(settings.tokens, small.tokens)),
                cache_gib=min(settings.cache_gib, small.cache_gib),
            )  # fmt: skip
        while settings is not None:
            server = Server(self._program, settings)
            try:
                server.start(say)
            except NoRoom as error:
                settings, why = settings.smaller(needed), str(error)
                if settings is None:
                    raise
                say(f"vLLM has no room ({why}); trying with {settings.rows} prompts at a time")
                self._smaller = settings
                continue
            self._server, self._adapters = server, ServedAdapters(server.endpoint, settings.slots)
            return server
        raise NoRoom("nothing smaller is left to try")

    def _gpus(self) -> list[GPU]:
        """The GPUs, with what is free on each now."""
        if self._device == "cpu":
            return []
        now = {one.index: one for one in detect()}
        return [now.get(one.index, one) for one in self._wanted.gpus] or list(now.values())

    def _mourn(
        self, why: str, deaths: int, left: int, needed: int, say: Callable[[str], None]
    ) -> None:
        """Say that a server died, and make the next one smaller where memory was the cause.

        Raises:
            EndpointError: it died too often.
            NoRoom: memory was the cause, and nothing smaller is left.
        """
        server = self._server
        if server is not None and server.alive and deaths == 1:
            return  # it has forgotten its adapter, or stumbled over one question
        said, ended = ("", False) if server is None else (server.tail(), server.ended(0))
        if server is not None:
            server.stop()
            self._adapters.forget()
            self._server = None
        last = said.splitlines()[-1:] or [""]
        if deaths > RESTARTS:
            raise EndpointError(
                f"vLLM died {deaths} times without an answer in between ({why}). The end of its "
                f"log:\n{said}",
                fault="down",
                where="answer.engine: vllm",
                remedy="what was answered is kept: give the same command again when its cause is "
                "mended, or let the models answer here: answer.engine: hf",
            )
        if server is not None and NO_ROOM.search(said):
            self._smaller = server.settings.smaller(needed)
            if self._smaller is None:
                raise NoRoom(f"memory ran out while it answered: {last[0][:200]}")
        what = "ended" if ended else "does not answer"
        say(f"vLLM {what} ({why}), with {left} questions left; starting it again")


def _not_taken(why: str) -> EndpointError:
    """The error where an adapter could be served merged only, anew after every step."""
    return EndpointError(
        f"vLLM does not take the adapter that is trained: {why}",
        fault="refused",
        where="answer.engine: vllm",
        remedy="leave `engine: vllm` out of the method",
    )
