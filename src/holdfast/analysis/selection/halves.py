"""Which items choose a model, and which only report on the one that was chosen?

The best of many models looks better than it is on the items that chose it: it was also the
luckiest. Its figures are therefore taken on items that had no part in the choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Halves = tuple[NDArray[np.bool_], NDArray[np.bool_]]
"""Two masks over a task's items: those that choose, those that report; no item is in both."""


def halves(ids: Sequence[str], groups: Sequence[str], seed: int) -> Halves:
    """Split a task's items in two, the same way whatever their order.

    Every group is halved too: its items, sorted by a hash, go to the two halves in turn. Halves
    differ by one item at most, in all and within each group.

    Args:
        ids: of the items.
        groups: of the same items, e.g. their hazard; "" where a task has none.
        seed: another seed, another split.

    Returns:
        The items that choose and those that report, two masks of shape (items,).
    """

    def place(index: int) -> tuple[str, str]:
        text = f"{seed}:{ids[index]}"
        return groups[index], hashlib.sha256(text.encode()).hexdigest()

    choosing = np.zeros(len(ids), dtype=np.bool_)
    choosing[sorted(range(len(ids)), key=place)[::2]] = True
    return choosing, ~choosing
