"""Packs the examples of each optimiser step into rows that are full, instead of padding them.

What a step learns from is fixed beforehand (`holdfast.data.batching.deal`) and stays: packing only
decides which of its examples share a row, and which rows a forward pass. So the budget in tokens
holds, arms stay comparable, and a packed run has the losses of an unpacked one, up to the order of
summation and, with dropout, other random numbers. A pass takes no more rows than it took examples,
and a row is no longer than the longest example or `train.max_length`: what the memory plan priced.
(Flash attention takes the tokens of all of them as one row.)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Room:
    """What one forward pass of one process holds.

    Attributes:
        width: tokens of a row, at most; a longer example gets a row of its own.
        rows: at most.
        world_size: processes that share a step.
    """

    width: int
    rows: int
    world_size: int = 1


@dataclass(frozen=True, slots=True)
class Passes:
    """The forward passes of a run, the same number for every step, as ranks draw them.

    Attributes:
        slots: the examples of each.
        rows: for each pass, in which row each of its examples stands; None: each in its own.
        skipped: which of them nobody runs, on any process, because the step needs fewer.
    """

    slots: list[list[int]]
    rows: list[list[int]] | None = None
    skipped: frozenset[int] = frozenset()

    def size(self, at: int, lengths: Sequence[int]) -> tuple[int, int]:
        """Rows and width of one pass, padding included; (0, 0) for an empty one.

        Args:
            at: which pass.
            lengths: tokens of every example.
        """
        slot = self.slots[at]
        filled: dict[int, int] = {}
        for place, index in enumerate(slot):
            row = place if self.rows is None else self.rows[at][place]
            filled[row] = filled.get(row, 0) + lengths[index]
        return len(filled), max(filled.values(), default=0)

    def padding(self, lengths: Sequence[int]) -> float:
        """Which share of all that goes through the model is padding."""
        there = sum(lengths[index] for slot in self.slots for index in slot)
        sizes = [self.size(at, lengths) for at in range(len(self.slots))]
        return 1 - there / max(1, sum(rows * width for rows, width in sizes))


def pack(
    slots: Sequence[Sequence[int]], lengths: Sequence[int], micro_batches: int, room: Room
) -> Passes:
    """Pack every step's examples into as few passes as they need.

    Args:
        slots: steps x micro_batches lists of indices, from `holdfast.data.batching.deal`.
        lengths: tokens of every example.
        micro_batches: slots that make one optimiser step.
        room: of a pass.

    Returns:
        Passes in the order in which ranks draw them: the first of every rank, then the second of
        every rank. A step that needs fewer than others begins with such as are skipped.
    """
    steps: list[list[list[list[int]]]] = []
    for start in range(0, len(slots), micro_batches):
        step = [index for slot in slots[start : start + micro_batches] for index in slot]
        steps.append(_passes(_rows(step, lengths, room), lengths, room))
    most = max(map(len, steps), default=0)
    order: list[list[int]] = []
    rows: list[list[int]] = []
    skipped: set[int] = set()
    for passes in steps:
        for _ in range(most - len(passes)):
            skipped.add(len(order))
            order.append([])
            rows.append([])
        for one in passes:
            order.append([index for row in one for index in row])
            rows.append([number for number, row in enumerate(one) for _ in row])
    return Passes(order, rows, frozenset(skipped))


def _rows(step: Sequence[int], lengths: Sequence[int], room: Room) -> list[list[int]]:
    """As few rows as first-fit-decreasing finds, made as equally long as they can be.

    Their number is a multiple of the processes', as far as there are examples, so that none waits.
    """
    by_length = sorted(range(len(step)), key=lambda place: -lengths[step[place]])
    tight: list[list[int]] = []
    room_left: list[int] = []
    for place in by_length:
        size = lengths[step[place]]
        at = next((n for n, left in enumerate(room_left) if left >= size), len(tight))
        if at == len(tight):
            tight.append([])
            room_left.append(room.width)
        tight[at].append(place)
        room_left[at] -= size
    each = room.world_size
    count = min(len(step), -(-len(tight) // each) * each)
    even: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, number) for number in range(count)]
    for place in by_length:  # the longest first, each into the row that is emptiest
        size, number = heapq.heappop(filled)
        even[number].append(place)
        heapq.heappush(filled, (size + lengths[step[place]], number))
    fits = max((size for size, _ in filled), default=0) <= room.width
    return [[step[place] for place in sorted(row)] for row in (even if fits else tight)]


def _passes(rows: list[list[int]], lengths: Sequence[int], room: Room) -> list[list[list[int]]]:
    """Rows in passes: such as are about equally long together, equally many for every process."""
    ranked = sorted(rows, key=lambda row: -sum(lengths[index] for index in row))
    each = room.world_size
    count = max(1, -(-len(ranked) // (room.rows * each))) * each  # one at least: ranks meet in it
    bounds = [len(ranked) * at // count for at in range(count + 1)]
    found = [ranked[bounds[at] : bounds[at + 1]] for at in range(count)]
    return sorted(found, key=lambda one: not one)  # those that a rank has none of come last
