"""Chooses what is replayed, in an order of which any part is as mixed as the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import TypeVar

from holdfast.methods._bound import ROUND
from holdfast.types import Example

One = TypeVar("One")


def choose(
    pool: Sequence[Example],
    wanted: int,
    kind: str,
    balance: bool = True,
    seen: int | None = None,
) -> list[Example]:
    """`wanted` examples of the pool, again from its beginning when it is too small.

    Args:
        pool: what `_own_answers.read` gave.
        wanted: how many.
        kind: ``meta["kind"]`` of the chosen, which are numbered anew: ``replay-0``, ...
        balance: choose as evenly as can be: sources (refusals, everyday answers) take turns, and
            within each the categories do (``meta["category"]``). What is replayed should be of many
            kinds (behaviour-aware sampling, arXiv:2510.21885).
        seen: of so many rows training sees no more than this many; they stand for the others, and
            none is seen again before all have been (``meta["round"]``). None: each can be seen.
    """
    ordered = in_order(pool, balance)
    few = seen is not None and seen < wanted
    ordered = ordered[:seen] if few else ordered
    return [
        replace(
            example,
            id=f"{kind}-{place}",
            meta={**example.meta, "kind": kind, **({ROUND: place // len(ordered)} if few else {})},
        )
        for place, example in enumerate(islice(cycle(ordered), wanted))
    ]


def in_order(pool: Sequence[Example], balance: bool) -> list[Example]:
    """The pool in the order in which it is chosen from.

    Leaving out any that are not chosen does not change which are: those of a group keep their order
    among themselves, and so do the groups, by their first.
    """
    if not balance:
        return list(pool)
    groups: dict[str, dict[str, list[Example]]] = {}
    for example in pool:
        category = str(example.meta.get("category", ""))
        groups.setdefault(example.source, {}).setdefault(category, []).append(example)
    return list(in_turn([list(in_turn(of.values())) for of in groups.values()]))


def in_turn(lists: Iterable[Sequence[One]]) -> Iterator[One]:
    """One of each list after the other, until all are used up."""
    pending = list(lists)
    for place in range(max(map(len, pending), default=0)):
        yield from (some[place] for some in pending if place < len(some))
