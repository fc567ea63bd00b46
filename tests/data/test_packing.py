"""Does packing keep what every step learns from, and fill the rows?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from holdfast.data.packing import Passes, Room, pack

LENGTHS = [7, 3, 5, 2, 8, 4, 6, 1, 3, 3, 2, 8]


def _rows(passes: Passes, at: int) -> list[list[int]]:
    """The rows of one pass."""
    assert passes.rows is not None
    found: dict[int, list[int]] = {}
    for index, row in zip(passes.slots[at], passes.rows[at], strict=True):
        found.setdefault(row, []).append(index)
    assert list(found) == list(range(len(found)))
    return list(found.values())


@given(
    lengths=some.lists(some.integers(1, 40), min_size=1, max_size=40),
    micro_batches=some.integers(1, 4),
    per_slot=some.integers(1, 5),
    rows=some.integers(1, 4),
    world=some.integers(1, 3),
    spare=some.integers(0, 30),
)
def test_every_step_keeps_its_examples_and_no_pass_is_too_large(
    lengths: list[int], micro_batches: int, per_slot: int, rows: int, world: int, spare: int
) -> None:
    order = list(range(len(lengths)))
    each = micro_batches * per_slot
    steps = -(-len(order) // each)
    slots = [order[i : i + per_slot] for i in range(0, steps * each, per_slot)]
    width = max(lengths) + spare
    found = pack(slots, lengths, micro_batches, Room(width, rows, world))
    per_step, rest = divmod(len(found.slots), steps)
    assert rest == 0 and per_step % world == 0
    for step in range(steps):
        here = range(step * per_step, (step + 1) * per_step)
        learned = sorted(index for at in here for index in found.slots[at])
        assert learned == order[step * each : (step + 1) * each]
        skipped = [at in found.skipped for at in here]
        assert skipped == sorted(skipped, reverse=True), "those that are skipped come first"
        assert sum(skipped) % world == 0 and not skipped[-1], "ranks skip alike, and meet"
    for at in range(len(found.slots)):
        made = _rows(found, at)
        assert len(made) <= rows
        assert all(sum(lengths[i] for i in row) <= width for row in made)
        assert (at not in found.skipped) or not made
        assert found.size(at, lengths) == (
            len(made), max((sum(lengths[i] for i in row) for row in made), default=0)
        )  # fmt: skip


def test_rows_are_as_few_and_as_equal_as_they_can_be() -> None:
    slots = [list(range(6)), list(range(6, 12))]
    found = pack(slots, LENGTHS, 2, Room(13, 8))
    assert len(found.slots) == 1 and found.skipped == frozenset()
    filled = sorted(sum(LENGTHS[i] for i in row) for row in _rows(found, 0))
    assert filled == [13, 13, 13, 13], "52 tokens in four rows"
    assert found.padding(LENGTHS) == 0
    assert Passes(slots).padding(LENGTHS) == pytest.approx(1 - 52 / 96)


def test_a_step_that_needs_fewer_passes_skips_the_first() -> None:
    lengths = [8, 8, 1, 1]
    found = pack([[0], [1], [2], [3]], lengths, 2, Room(8, 1))
    assert found.slots == [[0], [1], [], [2, 3]]
    assert found.skipped == frozenset({2})


def test_processes_get_as_many_rows_as_there_are_examples_for() -> None:
    """One row would hold them all, and the second process would wait."""
    found = pack([[0, 1, 2, 3]], [4, 4, 4, 4], 1, Room(16, 1, world_size=2))
    assert [len(slot) for slot in found.slots] == [2, 2]


def test_a_step_without_examples_still_has_a_pass_for_every_process() -> None:
    found = pack([[0, 1], [], []], [3, 4], 1, Room(8, 1, world_size=2))
    assert len(found.slots) == 6 and found.skipped == frozenset()
    assert found.slots[2:] == [[], [], [], []]
