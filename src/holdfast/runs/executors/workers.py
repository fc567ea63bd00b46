"""The workers of a run: where there is room for one, what each does, and what became of it.

How a worker comes to be (a process here, a job of Slurm's, a task of Ray's) is a `Starter`'s; what
is said to it, and how its slots are lent, is the same for all of them and stands here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol

from holdfast.runs.executors import links
from holdfast.runs.executors.graph import Order
from holdfast.runs.stages import Stage

GRACE_S = 45.0
"""What is under way may take so long to come to a safe point when a run is stopped."""
ENDS_S = 5.0
"""A worker that has nothing to do is gone in less."""


@dataclass(eq=False)
class Seat:
    """A place of one worker.

    Attributes:
        number: unique within a run.
        slots: that it holds: GPUs by number, or shares of the CPU; none for what takes next to
            nothing.
        link: to the worker, once it is there.
        ready: it has prepared the study.
        leaving: it has said that it ends.
        stage: that it makes; "" for none.
        model: that it has loaded, as far as that is known.
    """

    number: int
    slots: tuple[int, ...] = ()
    link: Connection | None = None
    ready: bool = False
    leaving: bool = False
    stage: str = ""
    model: str = ""

    @property
    def is_idle(self) -> bool:
        """Whether its worker waits for something to do."""
        return self.ready and not self.stage and not self.leaving


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a worker is gone.

    Attributes:
        why: in words.
        log: where its output is; "" where nobody knows.
        counted: it is the stage's fault for all that is known; False where a queue took the machine
            back, which may happen any number of times.
        returns: it comes back by itself, as a job that was queued again.
        final: no other worker will fare better; the error to end with.
    """

    why: str
    log: str = ""
    counted: bool = True
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
        """The seats whose worker ended before it came, each once."""

    def end(self, seat: Seat) -> Ending:
        """See to it that nothing is left of a worker whose connection is closed; why it went."""

    def close(self) -> None:
        """End whatever was started."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """The stages of a run folder with their code.

    Attributes:
        stages: all of them.
        alike: what must be the same wherever a stage is made, because readings depend on it.
    """

    stages: Sequence[Stage]
    alike: Mapping[str, object] = field(default_factory=dict)


Workshop = Callable[[Path, Mapping[str, Any]], Workbench]
"""Makes the stages of a run folder, by what the coordinator gave beside it."""


Brief = Callable[[Seat], Mapping[str, object]]
"""What a worker is told first: see `worker.Bench`."""


class Workers:
    """All workers of a run."""

    def __init__(self, starter: Starter, slots: int, beside: int, brief: Brief) -> None:
        """Start nobody yet.

        Args:
            starter: makes them come to be.
            slots: that may be lent.
            beside: how many workers there may be that hold none.
            brief: see `Brief`.
        """
        self._starter, self._brief, self._beside = starter, brief, beside
        self._free = set(range(slots))
        self._seats: dict[int, Seat] = {}
        self._count = 0

    @property
    def under_way(self) -> list[Seat]:
        """The seats at which something is made."""
        return [seat for seat in self._seats.values() if seat.stage]

    @property
    def any_left(self) -> bool:
        """Whether anybody is there, or on the way."""
        return bool(self._seats)

    def want(self, size: int, count: int) -> None:
        """See to it that as many stages of a size can be begun, as far as there is room.

        Args:
            size: slots of each.
            count: stages that are ready.
        """
        coming = sum(  # idle, or on the way
            len(seat.slots) == size and not seat.stage and not seat.leaving
            for seat in self._seats.values()
        )
        new: list[Seat] = []
        while coming + len(new) < count and (slots := self._room(size)) is not None:
            new.append(self._seat(slots))
        if new:
            self._starter.begin(new)

    def _room(self, size: int) -> tuple[int, ...] | None:
        """Slots for one more worker; idle ones of another size give way."""
        if size == 0:
            light = sum(not seat.slots for seat in self._seats.values())
            return () if light < self._beside else None
        idle = [
            seat for seat in self._seats.values()
            if seat.is_idle and seat.slots and len(seat.slots) != size
        ]  # fmt: skip
        if len(self._free) + sum(len(seat.slots) for seat in idle) < size:
            return None
        while len(self._free) < size:
            self._dismiss(idle.pop())
        return tuple(sorted(self._free)[:size])

    def _seat(self, slots: tuple[int, ...]) -> Seat:
        self._free -= set(slots)
        self._count += 1
        self._seats[self._count] = Seat(self._count, slots)
        return self._seats[self._count]

    def _dismiss(self, seat: Seat) -> Ending:
        if seat.link is not None:
            seat.link.close()
        ending = self._starter.end(seat)
        if ending.returns:
            seat.link, seat.ready, seat.leaving, seat.model = None, False, False, ""
            return ending
        self._free |= set(seat.slots)
        del self._seats[seat.number]
        return ending

    def idle(self, size: int) -> list[Seat]:
        """Workers of a size that wait for something to do, those with a model loaded first."""
        found = [
            seat for seat in self._seats.values()
            if seat.is_idle and len(seat.slots) == size
        ]  # fmt: skip
        return sorted(found, key=lambda seat: (not seat.model, seat.number))

    def give(self, seat: Seat, order: Order) -> None:
        """Have a stage made; that a worker has died is heard of later."""
        seat.stage, seat.model = order.stage, order.model or seat.model
        assert seat.link is not None
        with suppress(OSError):
            links.send(seat.link, "make", stage=order.stage, fingerprint=order.fingerprint)

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened; returns at once when something has, and else after so long."""
        for number, link in self._starter.entered():
            seat = self._seats.get(number)
            if seat is None or seat.link is not None:
                link.close()  # nobody waits for it any more
                continue
            seat.link = link
            with suppress(OSError):
                links.send(link, "prepare", **self._brief(seat))
        found = []
        for number, ending in self._starter.absent():
            if (seat := self._seats.get(number)) is not None:
                self._dismiss(seat)
                found.append(Event("lost", seat, "", ending=ending))
        by_link = {seat.link: seat for seat in self._seats.values() if seat.link is not None}
        if not by_link:
            time.sleep(0.0 if found else timeout_s)
        for heard in wait(list(by_link), 0.0 if found else timeout_s) if by_link else []:
            assert isinstance(heard, Connection)
            found += self._heard(by_link[heard], heard)
        return found

    def _heard(self, seat: Seat, link: Connection) -> Iterator[Event]:
        """All that one worker has said."""
        try:
            while link.poll():
                yield self._event(seat, links.received(link))
        except (EOFError, OSError):
            stage, seat.stage = seat.stage, ""
            yield Event("lost", seat, stage, ending=self._dismiss(seat))

    @staticmethod
    def _event(seat: Seat, said: Mapping[str, Any]) -> Event:
        match said.get("what"):
            case "ready":
                seat.ready = True
                return Event("ready", seat, "", said)
            case "done" | "failed" | "stopped" as kind:
                stage, seat.stage = seat.stage, ""
                seat.leaving = kind != "done"
                return Event(kind, seat, stage, said)
        return Event("told", seat, seat.stage, said)

    def stop(self) -> None:
        """Ask everybody to come to a safe point and end."""
        for seat in self._seats.values():
            if seat.link is not None:
                with suppress(OSError):
                    links.send(seat.link, "stop")

    def close(self) -> None:
        """End everybody: what is under way gets `GRACE_S`, or until Ctrl-C comes again."""
        try:
            self.stop()
            until = time.monotonic() + GRACE_S
            while self.under_way and (left := until - time.monotonic()) > 0:
                self.wait(min(left, 0.5))
        except KeyboardInterrupt:
            pass
        finally:
            for seat in self._seats.values():
                if seat.link is not None:
                    seat.link.close()
            self._starter.close()
            self._seats.clear()
