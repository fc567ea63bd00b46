"""The workers of a run: where there is room for one, what each does, and what became of it.

How a worker comes to be (a process here, a job of Slurm's, a task of Ray's) is a `Starter`'s; what
is said to it, and how its slots are lent, is the same for all of them and stands here.

Nobody waits for one that is gone: its seat is settled when it is known why it went and, where it
had begun, when its process lets go of its lock or must have ended. Only then is its stage begun
again, so that never two make one stage; whoever else has something to do goes on meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from holdfast.runs import run_folder
from holdfast.runs.executors import links
from holdfast.runs.executors.graph import Order
from holdfast.runs.executors.seats import Ending, Event, Seat, Starter
from holdfast.runs.stages import Stage

GRACE_S = 45.0
"""What is under way may take so long to come to a safe point when a run is stopped."""
STILL_S = run_folder.WORKER_ENDS_S
"""After so long without a connection a worker has ended, whatever a disk says of its lock."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """The stages of a run folder with their code.

    Attributes:
        stages: all of them.
        alike: what must be the same wherever a stage is made, because readings depend on it.
        notices: of the machine, for whoever reads the figures.
    """

    stages: Sequence[Stage]
    alike: Mapping[str, object] = field(default_factory=dict)
    notices: Sequence[str] = ()


Workshop = Callable[[Path, Mapping[str, Any]], Workbench]
"""Makes the stages of a run folder, by what the coordinator gave beside it."""
Brief = Callable[[Seat], Mapping[str, object]]
"""What a worker is told first: see `worker.Bench`."""


class Workers:
    """All workers of a run.

    Attributes:
        slots: that may be lent.
    """

    def __init__(self, starter: Starter, slots: int, beside: int, brief: Brief) -> None:
        """Start nobody yet.

        Args:
            starter: makes them come to be.
            slots: that may be lent.
            beside: how many workers there may be that hold none.
            brief: see `Brief`.
        """
        self._starter, self._brief, self._beside = starter, brief, beside
        self.slots, self._free = slots, set(range(slots))
        self._seats: dict[int, Seat] = {}
        self._endings: dict[int, Ending] = {}  # known of workers whose seats are not settled
        self._count = 0

    @property
    def under_way(self) -> list[Seat]:
        """The seats at which something is made."""
        return [one for one in self._seats.values() if one.stage and one.link is not None]

    @property
    def any_left(self) -> bool:
        """Whether anybody is there, on the way, or not yet known to be gone."""
        return bool(self._seats)

    def want(self, size: int, count: int) -> bool:
        """See to it that as many stages of a size can be begun, as far as there is room.

        Args:
            size: slots of each.
            count: stages that are ready.

        Returns:
            Whether each of them has a worker, be it on the way.
        """
        free = sum(len(seat.slots) == size and seat.is_free for seat in self._seats.values())
        new: list[Seat] = []
        while free + len(new) < count and (slots := self._room(size)) is not None:
            new.append(self._seat(slots))
        if new:
            self._starter.begin(new)
        return free + len(new) >= count

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
        while len(self._free) < size and idle:
            seat = idle.pop()
            self._part(seat)
            self._settled(seat)
        return tuple(sorted(self._free)[:size]) if len(self._free) >= size else None

    def _seat(self, slots: tuple[int, ...]) -> Seat:
        self._free -= set(slots)
        self._count += 1
        self._seats[self._count] = Seat(self._count, slots)
        return self._seats[self._count]

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
        found = [*self._come(), *self._gone()]
        by_link = {seat.link: seat for seat in self._seats.values() if seat.link is not None}
        if not by_link:
            time.sleep(0.0 if found else timeout_s)
        for heard in wait(list(by_link), 0.0 if found else timeout_s) if by_link else []:
            assert isinstance(heard, Connection)
            found += self._heard(by_link[heard], heard)
        return found

    def _come(self) -> Iterator[Event]:
        """Let in who has come."""
        for number, link in self._starter.entered():
            seat = self._seats.get(number)
            if seat is not None and seat.gone is not None:
                again = Ending(
                    "its job was queued again, and has begun", counted=False, returns=True
                )
                yield self._left(seat, again)
            if seat is None or seat.link is not None:
                link.close()  # nobody waits for it any more
                continue
            seat.link = link
            with suppress(OSError):
                links.send(link, "prepare", **self._brief(seat))

    def _gone(self) -> Iterator[Event]:
        """The workers of whom it is known by now what became of them."""
        for number, ending in self._starter.absent():
            if (seat := self._seats.get(number)) is None:
                continue
            self._endings[number] = ending  # of one that came, what it said last is read first
            if seat.link is None and seat.gone is None:
                yield self._left(seat, ending)
        for seat in [one for one in self._seats.values() if one.gone is not None]:
            if (event := self._settled(seat)) is not None:
                yield event

    def _heard(self, seat: Seat, link: Connection) -> Iterator[Event]:
        """All that one worker has said."""
        try:
            while link.poll():
                yield self._event(seat, links.received(link))
        except (EOFError, OSError):
            self._part(seat)
            if (event := self._settled(seat)) is not None:
                yield event

    @staticmethod
    def _event(seat: Seat, said: Mapping[str, Any]) -> Event:
        match said.get("what"):
            case "ready":
                seat.ready, seat.lock = True, str(said.get("lock", ""))
                return Event("ready", seat, "", said)
            case "done" | "failed" | "stopped" as kind:
                stage, seat.stage = seat.stage, ""
                seat.leaving = kind != "done"
                return Event(kind, seat, stage, said)
        return Event("told", seat, seat.stage, said)

    @staticmethod
    def _part(seat: Seat) -> None:
        """Close the connection to a worker."""
        link, seat.link, seat.gone = seat.link, None, time.monotonic()
        if link is not None:
            link.close()

    def _settled(self, seat: Seat) -> Event | None:
        """What became of a worker whose connection is closed; None: that is not known yet."""
        assert seat.gone is not None
        ending = self._endings.get(seat.number) or self._starter.end(seat)
        if ending is None:
            return None
        self._endings[seat.number] = ending
        waited = time.monotonic() - seat.gone
        if not ending.returns and waited < STILL_S and run_folder.is_held(seat.lock):
            return None  # it lives where nobody can reach it, and may still write
        return self._left(seat, ending)

    def _left(self, seat: Seat, ending: Ending) -> Event:
        """Settle a seat: its slots are free, unless its worker comes back."""
        self._endings.pop(seat.number, None)
        stage, seat.stage, seat.gone = seat.stage, "", None
        if ending.returns:
            seat.ready, seat.leaving, seat.model, seat.lock = False, False, "", ""
        else:
            self._free |= set(seat.slots)
            del self._seats[seat.number]
        return Event("lost", seat, stage, ending=ending)

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
