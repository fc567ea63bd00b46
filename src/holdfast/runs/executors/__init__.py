"""Carries out the stages of a plan side by side: hands out what is ready, and loses nothing.

The coordinator is the process that holds the run folder. It makes no stage itself; workers do, by
the very code that makes stages one after another (`holdfast.runs.stages.make`), so that whatever
one of them leaves behind is gone on with by any other. What is read of the stages is the same
whatever their order, because each reads only what its needs have written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from holdfast import errors
from holdfast.errors import HoldfastError, WorkerLost
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.runs.executors import links
from holdfast.runs.executors.arrival import SHARE
from holdfast.runs.executors.graph import Graph
from holdfast.runs.executors.seats import Ending, Event, Seat
from holdfast.runs.executors.workers import Workers

LOOK_S = 0.2
"""How often it is looked whether somebody wants the run to end."""
RETRIES = 2
"""How often a stage is begun again whose worker has died."""
AGAIN = "everything finished is kept, and the same command goes on from there"


def carry_out(
    graph: Graph,
    workers: Workers,
    progress: Progress,
    arrived: Callable[[str], bool],
    retries: int = RETRIES,
    noticed: Callable[[Sequence[str]], object] = lambda notices: None,
) -> None:
    """Have all stages of a graph made.

    The first stage that fails ends the run, as it does where one is made after another; what is
    under way elsewhere is stopped at its next safe point. A stage whose worker dies is begun again.

    Args:
        graph: of the stages.
        workers: who makes them; closed in the end, whatever happens.
        progress: follows it, and says when it should end.
        arrived: whether a stage that is said to be made is in the run folder.
        retries: how often a stage is begun again whose worker has died.
        noticed: is told what each worker has noticed of its machine.

    Raises:
        HoldfastError: what a stage raised; WorkerLost when its worker died too often.
        KeyboardInterrupt: somebody asked for the end, and nothing is under way any more.
    """
    floor = _Floor(graph, workers, progress, arrived, retries)
    stopping = False
    try:
        while graph.left and not (stopping and not workers.under_way):
            if not stopping:
                floor.hand_out()
            for event in workers.wait(LOOK_S):
                floor.heard(event)
                if event.kind == "ready":
                    noticed(event.said.get("notices", ()))
            if progress.stop.asked and not stopping:
                stopping = True
                workers.stop()
        if graph.left:
            progress.stop.release()
    finally:
        progress.stop.hold("")
        workers.close()


class _Floor:
    """What is under way, and how often what has gone wrong."""

    def __init__(
        self,
        graph: Graph,
        workers: Workers,
        progress: Progress,
        arrived: Callable[[str], bool],
        retries: int,
    ) -> None:
        self._graph, self._workers, self._progress = graph, workers, progress
        self._arrived, self._retries = arrived, retries
        self._shown: dict[str, Progress] = {}
        self._held: dict[int, str] = {}
        self._alike: dict[str, object] = {}
        self._lost = Counter[str]()  # by stage; "" for workers that never came to be ready
        self._late = Counter[str]()  # as above: whose time was over
        self._kept, self._most_kept = Counter[str](), Counter[str]()
        self._fresh, self._whole = set[int](), set[str]()  # seats; stages that came first at one
        self._carried: set[str] = set()  # machines that do not see the run folder
        self._stopped: dict[int, str] = {}  # by seat: what it gave up, until it is known why

    def hand_out(self) -> None:
        """Give every idle worker a stage.

        One that needs many slots is not overtaken by those that need few, except on the slots that
        are left when as many as possible of its own size are under way.

        Raises:
            WorkerLost: there is no room for what is left.
        """
        over: int | None = None  # of the first size that lacks room; None: none does
        for size in self._graph.sizes():
            most = self._graph.waiting(size)
            if size and over is not None:
                others = sum(len(seat.slots) == size for seat in self._workers.under_way)
                most = min(most, over // size - others)
            if most <= 0:
                continue
            enough = self._workers.want(size, most)
            for seat in self._workers.idle(size)[:most]:
                order = self._graph.take(size, seat.model)
                if order is None:
                    break
                self._shown[order.stage] = self._progress.beside(order.stage)
                self._whole.discard(order.stage)
                self._kept[order.stage] = 0
                if seat.number in self._fresh:
                    self._fresh.discard(seat.number)
                    self._whole.add(order.stage)
                self._workers.give(seat, order)
            if size and over is None and not enough:
                over = self._workers.slots % size
        if self._graph.left and not self._workers.any_left:
            raise WorkerLost("there is no room for the stages that are left", remedy=AGAIN)

    def heard(self, event: Event) -> None:
        """Take note of what has happened."""
        match event.kind:
            case "ready":
                self._lost[""] = self._late[""] = 0
                self._fresh.add(event.seat.number)
                self._check(event)
            case "told":
                self._told(event)
            case "done":
                self._made(event)
            case "failed":
                raise errors.from_json(event.said["error"])
            case "stopped":
                self._given_up(event.seat, event.stage)
                if not self._progress.stop.asked:  # its queue wants the machine back
                    self._stopped[event.seat.number] = event.stage
            case "lost":
                self._given_up(event.seat, event.stage)
                self._ended(event, event.ending or Ending("nobody knows why"))

    def _check(self, event: Event) -> None:
        """Refuse workers that would compute otherwise than the others."""
        machine = str(event.said.get("machine"))
        if event.said.get("carried") and machine not in self._carried:
            self._carried.add(machine)
            self._progress.say(f"{machine} does not see the run folder: what stages read there is "
                               "brought, what they make is fetched back")  # fmt: skip
        alike = event.said.get("alike") if event.seat.slots else None
        if not alike:
            return
        self._alike = self._alike or dict(alike)
        lines = store.field_diff(self._alike, alike)
        if lines:
            raise HoldfastError(
                f"computes otherwise than the first worker: {', '.join(lines)}",
                where=f"the worker on {machine}",
                remedy="let all workers have GPUs of one kind (Slurm: --constraint or --partition);"
                " what is compared must be computed alike",
            )

    def _made(self, event: Event) -> None:
        if not self._arrived(event.stage):
            raise HoldfastError(
                "was made, and is not in the run folder: the worker writes into another one",
                where=event.stage,
                remedy=f"{SHARE}; {AGAIN}",
            )
        self._hold(event.seat, "")
        self._shown.pop(event.stage).leave(event.stage)
        self._graph.done(event.stage)

    def _given_up(self, seat: Seat, stage: str) -> None:
        self._hold(seat, "")
        if stage:
            self._shown.pop(stage).leave("")
            self._graph.again(stage)

    def _ended(self, event: Event, ending: Ending) -> None:
        """Say who died, and end the run when the same thing dies too often."""
        if ending.final is not None:
            raise ending.final
        stage = self._stopped.pop(event.seat.number, "") or event.stage
        if not stage and (event.seat.ready or (event.seat.leaving and not ending.late)):
            return  # it had nothing to do, and another comes when there is
        self._lost[stage] += ending.counted
        self._late[stage] += ending.late and (not stage or stage in self._whole)
        log = ending.log or links.FOLDER + "/ of the run folder"
        if self._late[stage] > self._retries:
            raise WorkerLost(
                f"is not made in the time that a worker has, and not gone on with either "
                f"({self._late[stage]} times; the last time {ending.why})",
                where=stage or "a worker that prepares",
                remedy=f"let workers live longer (hardware.slurm.time); {AGAIN}",
            )
        if self._lost[stage] > self._retries:
            raise WorkerLost(
                f"the worker died {self._lost[stage]} times; the last time {ending.why}",
                where=stage or ending.log,
                remedy=f"its output is in {log}; {AGAIN}",
            )
        if stage or ending.counted or ending.late:
            self._progress.say(f"{stage or 'a worker'}: {ending.why}; it is begun again")

    def _told(self, event: Event) -> None:
        """Pass on what a stage says of itself."""
        shown = self._shown.get(event.stage, self._progress)
        said: Any = event.said
        match said:
            case {"what": "total", "amount": int(amount), "unit": str(unit)}:
                shown.total(amount, unit)
            case {"what": "advance", "amount": int(amount)}:
                shown.advance(amount)
            case {"what": "kept", "amount": int(amount)}:
                shown.kept(amount)
                self._goes_on(event.stage, amount)
            case {"what": "worked", "tokens": int(tokens), "loss": float() | None as loss}:
                shown.worked(tokens, loss)
            case {"what": "hold", "text": str(words)}:
                self._hold(event.seat, words)
            case {"what": "say", "line": str(words)}:
                self._progress.say(words)

    def _goes_on(self, stage: str, amount: int) -> None:
        """A stage of which more is kept than ever will be made one day, however short the time."""
        self._kept[stage] += amount
        if self._kept[stage] > self._most_kept[stage]:
            self._most_kept[stage], self._late[stage] = self._kept[stage], 0

    def _hold(self, seat: Seat, words: str) -> None:
        """The first Ctrl-C waits while anybody is at something that is worth finishing."""
        if words:
            self._held[seat.number] = words
        elif self._held.pop(seat.number, None) is None:
            return
        self._progress.stop.hold("; ".join(self._held.values()))
