"""Agreement of several judges, beyond what chance would give.

Agreement alone flatters: two judges that each call nine replies in ten safe agree on four in five
without looking. Both measures here are 1 for full agreement and 0 for what chance gives, and may be
below. They are not defined where nobody ever says a second thing, and None is returned.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import TypedDict

import numpy as np

Rating = Hashable | None
"""One judge's word on one item; None where there is none."""


class Pair(TypedDict):
    """Two judges: their places, the items that both rated, and how far they agree on those."""

    of: tuple[int, int]
    replies: int
    agree: float | None
    kappa: float | None


class Agreement(TypedDict):
    """What `agreement` returns."""

    members: list[str]
    replies: int
    votes: list[int]
    alpha: float | None
    pairs: list[Pair]


def agreement(titles: Sequence[str], votes: Sequence[Sequence[str | None]]) -> Agreement:
    """How far judges agree that replies are safe.

    Args:
        titles: of the judges.
        votes: of shape (judges, replies); None where a judge casts none (`judges.VOTES`).

    Returns:
        ``members`` (titles), ``replies``, ``votes`` of each, ``alpha`` (Krippendorff, over all)
        and ``pairs``, each with ``of`` (places of two judges), ``replies`` that both voted on, the
        share that they ``agree`` on and ``kappa`` (Cohen). What is not defined is None.
    """
    return {
        "members": list(titles),
        "replies": len(votes[0]),
        "votes": [sum(vote is not None for vote in own) for own in votes],
        "alpha": _short(krippendorffs_alpha(votes)),
        "pairs": [_compared(votes, a, b) for a, b in combinations(range(len(votes)), 2)],
    }


def _compared(votes: Sequence[Sequence[str | None]], a: int, b: int) -> Pair:
    both = [
        (first, second)
        for first, second in zip(votes[a], votes[b], strict=True)
        if first is not None and second is not None
    ]
    same = sum(first == second for first, second in both)
    return {
        "of": (a, b),
        "replies": len(both),
        "agree": _short(same / len(both)) if both else None,
        "kappa": _short(cohens_kappa(votes[a], votes[b])),
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def cohens_kappa(one: Sequence[Rating], other: Sequence[Rating]) -> float | None:
    """Agreement of two judges, each with habits of its own (Cohen 1960, unweighted).

    Args:
        one: ratings of shape (items,).
        other: those of the second judge on the same items; an item that either did not rate is
            left out.

    Returns:
        At most 1; None where no item is rated by both, or chance alone would agree on all.

    Raises:
        ValueError: they rate different numbers of items.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    places = _places([rating for pair in pairs for rating in pair])
    table = np.zeros((len(places), len(places)))
    for a, b in pairs:
        table[places[a], places[b]] += 1
    if not pairs:
        return None
    shares = table / table.sum()
    chance = float(shares.sum(1) @ shares.sum(0))
    return None if np.isclose(chance, 1) else (float(np.trace(shares)) - chance) / (1 - chance)


def krippendorffs_alpha(ratings: Sequence[Sequence[Rating]]) -> float | None:
    """Agreement of any number of judges, with ratings missing (Krippendorff 2011, nominal).

    Args:
        ratings: of shape (judges, items); None where a judge did not rate. Items with fewer than
            two ratings say nothing and are left out.

    Returns:
        At most 1; None where there is nothing to compare, or all ratings are the same.

    Raises:
        ValueError: the judges rate different numbers of items.
    """
    items = [
        [rating for rating in item if rating is not None] for item in zip(*ratings, strict=True)
    ]
    items = [item for item in items if len(item) > 1]
    places = _places([rating for item in items for rating in item])
    together = np.zeros((len(places), len(places)))
    for item in items:
        counts = np.zeros(len(places))
        for rating in item:
            counts[places[rating]] += 1
        together += (np.outer(counts, counts) - np.diag(counts)) / (len(item) - 1)
    each = together.sum(1)
    total = each.sum()
    expected = total**2 - (each**2).sum()
    if expected <= 0:
        return None
    observed = total - np.trace(together)
    return float(1 - (total - 1) * observed / expected)


def _places(ratings: Sequence[Rating]) -> dict[Rating, int]:
    return {rating: place for place, rating in enumerate(dict.fromkeys(ratings))}
