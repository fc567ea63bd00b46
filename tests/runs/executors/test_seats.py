"""What becomes of the seats of workers that are gone; the workers are this test's own."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from holdfast.runs.executors import links, workers
from holdfast.runs.executors.graph import Order
from holdfast.runs.executors.seats import Ending, Event, Seat
from holdfast.runs.executors.workers import Workers

DEAD = Ending("it died")


class Desk:
    """A `Starter`: a test says for its workers what they say, and why they went.

    Attributes:
        seats: in the order in which they were taken.
        said: the workers' ends of their connections, by seat.
        known: why workers went, as far as that is known.
        gone: what `absent` tells next.
    """

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.said: dict[int, Connection] = {}
        self.known: dict[int, Ending] = {}
        self.gone: list[tuple[int, Ending]] = []
        self._new: list[tuple[int, Connection]] = []

    def begin(self, seats: Sequence[Seat]) -> None:
        self.seats += seats
        for seat in seats:
            self.come(seat.number)

    def come(self, number: int) -> None:
        """A worker comes for a seat."""
        ours, self.said[number] = Pipe()
        self._new.append((number, ours))

    def entered(self) -> list[tuple[int, Connection]]:
        new, self._new = self._new, []
        return new

    def absent(self) -> list[tuple[int, Ending]]:
        gone, self.gone = self.gone, []
        return gone

    def end(self, seat: Seat) -> Ending | None:
        return self.known.get(seat.number)

    def close(self) -> None:
        for link in self.said.values():
            link.close()


def _at_work(desk: Desk, count: int = 1, lock: str = "") -> Workers:
    """Workers of which each makes a stage: `a`, `b`, and so on."""
    found = Workers(desk, count, 0, lambda seat: {})
    assert found.want(1, count)
    assert found.wait(0.0) == []
    for number, link in desk.said.items():
        links.send(link, "ready", alike={}, lock=lock)
        assert links.received(link) == {"what": "prepare"}, number
    while len(idle := found.idle(1)) < count:
        found.wait(1.0)
    for seat, stage in zip(idle, "abcd", strict=False):
        found.give(seat, Order(stage, "mark"))
    return found


def _told(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.kind, event.stage) for event in events]


def test_what_a_worker_said_last_is_heard_though_its_job_is_known_to_be_over() -> None:
    desk = Desk()
    found = _at_work(desk)
    links.send(desk.said[1], "done", stage="a")
    desk.said[1].close()
    desk.gone = [(1, DEAD)]
    assert _told(found.wait(1.0)) == [("done", "a"), ("lost", "")]
    assert not found.any_left


def test_no_stage_is_lost_with_a_job_that_is_known_to_be_over() -> None:
    """The cluster's program may know it before the end of the connection is heard."""
    desk = Desk()
    found = _at_work(desk)
    desk.said[1].close()
    desk.gone = [(1, DEAD)]
    [event] = found.wait(1.0)
    assert _told([event]) == [("lost", "a")] and event.ending == DEAD


def test_nobody_waits_until_it_is_known_what_became_of_another() -> None:
    desk = Desk()
    found = _at_work(desk, 2)
    desk.said[1].close()
    assert found.wait(1.0) == [] and [seat.stage for seat in found.under_way] == ["b"]
    assert not found.want(1, 2), "its slot is not free, and nobody sits there"
    links.send(desk.said[2], "done", stage="b")
    assert _told(found.wait(1.0)) == [("done", "b")]
    desk.known[1] = DEAD
    assert _told(found.wait(1.0)) == [("lost", "a")]
    assert found.want(1, 2) and [seat.number for seat in desk.seats] == [1, 2, 3]


def test_a_stage_is_free_when_the_process_that_made_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, lock = Desk(), tmp_path / "node1-7.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = _at_work(desk, 2, str(lock))
        desk.known |= {1: DEAD, 2: DEAD}
        desk.said[1].close()
        assert found.wait(0.5) == [], "nobody reaches it, and it lives"
        monkeypatch.setattr(workers, "STILL_S", 0.0)
        assert _told(found.wait(0.5)) == [("lost", "a")], "it must have ended by now"
        monkeypatch.undo()
        desk.said[2].close()
        assert found.wait(0.5) == []
    assert _told(found.wait(0.5)) == [("lost", "b")]


def test_a_job_that_was_queued_again_keeps_its_seat() -> None:
    desk = Desk()
    found = _at_work(desk)
    desk.said[1].close()
    desk.known[1] = Ending("queued again", counted=False, returns=True)
    assert _told(found.wait(1.0)) == [("lost", "a")]
    assert found.want(1, 1) and len(desk.seats) == 1
    desk.come(1)
    assert found.wait(0.0) == []
    assert links.received(desk.said[1]) == {"what": "prepare"}


def test_a_job_that_has_begun_again_is_let_in_before_that_is_known() -> None:
    desk = Desk()
    found = _at_work(desk)
    desk.said[1].close()
    assert found.wait(1.0) == []
    desk.come(1)
    [event] = found.wait(0.0)
    assert _told([event]) == [("lost", "a")]
    assert event.ending is not None and event.ending.returns and not event.ending.counted
    assert links.received(desk.said[1]) == {"what": "prepare"}


def test_ctrl_c_while_one_ends_leaves_the_others_to_be_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    found = _at_work(desk, 2)

    def interrupted(seat: Seat) -> Ending:
        raise KeyboardInterrupt

    desk.said[1].close()
    monkeypatch.setattr(desk, "end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.wait(1.0)
    monkeypatch.undo()
    links.send(desk.said[2], "stopped", stage="b")
    started = time.monotonic()
    found.close()
    assert time.monotonic() - started < 5 and not found.any_left
