"""Which stage is begun next: of those whose needs are met, the one with the longest way to go.

Pure: it knows no process and no clock. A stage is ready when the last of its needs is done; ready
stages wait in a heap for each size and model, so that a worker which has a model loaded is given
more stages of that model. Every event costs the logarithm of what is waiting.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from holdfast.runs.stages import Step

LOAD_S = 10.0
"""What loading another model takes, where nobody says: a stage that spares it may come so much
before its turn."""


@dataclass(frozen=True, slots=True)
class Order:
    """A stage as a worker is told to make it.

    Attributes:
        stage: its name.
        fingerprint: that it must have where it is made.
        slots: that it takes: GPUs, or worker processes where there are none; 0: next to nothing.
        model: that must be loaded for it; "" for none.
    """

    stage: str
    fingerprint: str
    slots: int = 1
    model: str = ""


Asks = Callable[[str], tuple[int, str]]
"""Slots and model of a stage, by name; asked once its needs are done, so it may look at these."""


class Graph:
    """The stages that are not done, by what they wait for."""

    def __init__(
        self,
        steps: Sequence[Step],
        asks: Asks = lambda name: (1, ""),
        seconds: Mapping[str, float] | None = None,
        first: Collection[str] = (),
        load_s: float = LOAD_S,
    ) -> None:
        """Count what each stage waits for.

        Args:
            steps: a schedule, needs first.
            asks: see `Asks`.
            seconds: that stages may take, by name; 1 of those that are not in it.
            first: names of stages that come before all others.
            load_s: seconds that it takes to load another model.
        """
        self._steps = {step.stage.name: step for step in steps if not step.done}
        self._asks, self._load_s = asks, load_s
        self._after: dict[str, list[str]] = {name: [] for name in self._steps}
        self._missing: dict[str, int] = {}
        self._turn = {name: number for number, name in enumerate(self._steps)}
        self._heaps: dict[tuple[int, str], list[tuple[float, int, str]]] = {}
        self._waiting = Counter[int]()
        for name, step in self._steps.items():
            needs = {need for need in step.stage.needs if need in self._steps}
            self._missing[name] = len(needs)
            for need in needs:
                self._after[need].append(name)
        self._way = self._ways(seconds or {}, first)
        self.left = len(self._steps)
        for name, missing in self._missing.items():
            if not missing:
                self._push(name)

    def _ways(self, seconds: Mapping[str, float], first: Collection[str]) -> dict[str, float]:
        """Seconds from the beginning of each stage to the end of the longest chain after it."""
        found: dict[str, float] = {}
        for name in reversed(self._steps):
            later = max((found[other] for other in self._after[name]), default=0.0)
            found[name] = later + max(0.0, seconds.get(name, 1.0))
        return found | dict.fromkeys(first, math.inf)

    def _push(self, name: str) -> None:
        slots, model = self._asks(name)
        entry = (-self._way[name], self._turn[name], name)
        heapq.heappush(self._heaps.setdefault((slots, model), []), entry)
        self._waiting[slots] += 1

    def sizes(self) -> list[int]:
        """Slots of the stages that are ready, the most urgent first."""
        best: dict[int, tuple[float, int, str]] = {}
        for (slots, _), heap in self._heaps.items():
            if heap and (slots not in best or heap[0] < best[slots]):
                best[slots] = heap[0]
        return sorted(best, key=lambda slots: best[slots])

    def waiting(self, slots: int) -> int:
        """How many stages of a size are ready."""
        return self._waiting[slots]

    def take(self, slots: int, model: str = "") -> Order | None:
        """The next stage of a size, for a worker that has a model loaded; None: none is ready."""
        chosen: tuple[tuple[float, int], str] | None = None
        for (size, wanted), heap in self._heaps.items():
            if size != slots or not heap:
                continue
            way, turn, _ = heap[0]
            rank = (way - (self._load_s if wanted and wanted == model else 0.0), turn)
            if chosen is None or rank < chosen[0]:
                chosen = rank, wanted
        if chosen is None:
            return None
        name = heapq.heappop(self._heaps[slots, chosen[1]])[2]
        if not self._heaps[slots, chosen[1]]:
            del self._heaps[slots, chosen[1]]  # of a model that may never come again
        self._waiting[slots] -= 1
        return Order(name, self._steps[name].fingerprint, slots, chosen[1])

    def done(self, name: str) -> None:
        """A stage is made: those that waited for it alone are ready."""
        self.left -= 1
        for other in self._after[name]:
            self._missing[other] -= 1
            if not self._missing[other]:
                self._push(other)

    def again(self, name: str) -> None:
        """A stage that was taken could not be made: it is ready as before."""
        self._push(name)


def makespan(graph: Graph, seconds: Mapping[str, float], slots: int, beside: int = 1) -> float:
    """Seconds that a whole graph takes, by what its stages are expected to take; uses it up.

    Args:
        graph: fresh; what its `Asks` says is taken at once.
        seconds: of every stage.
        slots: that there are.
        beside: stages without a slot that may run at a time.
    """
    now, under_way = 0.0, list[tuple[float, str, int]]()
    free, light = slots, beside
    while graph.left:
        for size in graph.sizes():
            while (light if size == 0 else free >= size) and (order := graph.take(size)):
                free, light = free - size, light - (size == 0)
                ends = now + seconds.get(order.stage, 0.0)
                heapq.heappush(under_way, (ends, order.stage, size))
        if not under_way:
            return math.inf  # a stage that no machine of this size can make
        now, name, size = heapq.heappop(under_way)
        free, light = free + size, light + (size == 0)
        graph.done(name)
    return now
