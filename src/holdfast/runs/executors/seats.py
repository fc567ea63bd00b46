"""The places of a run's workers: who sits there, what is heard of them, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal, Protocol


@dataclass(eq=False)
class Seat:
    """A place of one worker.

    Attributes:
        number: unique within a run.
        slots: that it holds: GPUs by number, or shares of the CPU; none for what takes next to
            nothing.
        link: to the worker, while it is there.
        ready: it has prepared the study.
        leaving: it has said that it ends.
        stage: that it makes, or made when it went; "" for none.
        model: that it has loaded, as far as that is known.
        lock: the file that its worker holds while it lives; "" before it is ready.
        gone: when its connection ended, by the clock of `time.monotonic`; None: it has not, or what
            became of the worker is known.
    """

    number: int
    slots: tuple[int, ...] = ()
    link: Connection | None = None
    ready: bool = False
    leaving: bool = False
    stage: str = ""
    model: str = ""
    lock: str = ""
    gone: float | None = None

    @property
    def is_free(self) -> bool:
        """Whether it has nothing to do, be its worker there or on the way."""
        return not self.stage and not self.leaving and self.gone is None

    @property
    def is_idle(self) -> bool:
        """Whether its worker is there and waits for something to do."""
        return self.is_free and self.ready and self.link is not None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a worker is gone.

    Attributes:
        why: in words.
        log: where its output is; "" where nobody knows.
        counted: it is the stage's fault for all that is known; False where a queue took the machine
            back, which may happen any number of times.
        late: its time was over; the stage is to blame if nothing of what it did is gone on with.
        returns: it comes back by itself, as a job that was queued again.
        final: no other worker will fare better; the error to end with.
    """

    why: str
    log: str = ""
    counted: bool = True
    late: bool = False
    returns: bool = False
    final: Exception | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened.

    Attributes:
        kind: `ready`, `told` (progress), `done`, `failed`, `stopped`, `lost`.
        seat: where.
        stage: the one concerned; "" for none.
        said: the worker's message.
        ending: of one that is lost.
    """

    kind: Literal["ready", "told", "done", "failed", "stopped", "lost"]
    seat: Seat
    stage: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)
    ending: Ending | None = None


class Starter(Protocol):
    """Makes workers come to be, and go."""

    def begin(self, seats: Sequence[Seat]) -> None:
        """Start a worker for each seat; it may come much later.

        Raises:
            HoldfastError: it never will.
        """

    def entered(self) -> Iterable[tuple[int, Connection]]:
        """Number and connection of the workers that have come since this was last asked."""

    def absent(self) -> Iterable[tuple[int, Ending]]:
        """The seats whose worker has ended, whether it ever came or not, each once."""

    def end(self, seat: Seat) -> Ending | None:
        """See to it that nothing is left of a worker whose connection is closed.

        Returns:
            Why it went; None: that will be known later, ask again.
        """

    def close(self) -> None:
        """End whatever was started; asked twice it does nothing."""
