"""How many more items would settle what is open?

A forecast, not a promise: it takes the shares seen so far for the true ones.
"""

from __future__ import annotations

import math

import numpy as np

from holdfast.analysis.selection.rule import Need
from holdfast.analysis.stats import Values, paired_difference

MOST = 1_000_000
"""More items than this are no answer."""


def more_items(need: Need, base: Values, tuned: Values) -> int | None:
    """About how many items beyond those scored would meet the need, or show that it is missed.

    For ones and zeros: the smallest number at which the interval, computed for the same shares of
    lost, won and unchanged items, leaves the margin. For means over several samples: its distance
    from the mean is taken to shrink with the root of the number.

    Args:
        need: one whose state is open.
        base: shape (items,).
        tuned: the same items.

    Returns:
        None where the observed mean lies on the margin, or more than a million would be needed.
    """
    scored = ~(np.isnan(base) | np.isnan(tuned))
    before, after = base[scored], tuned[scored]
    now = paired_difference(before, after[None, :])
    if now.mean is None or now.low is None or now.high is None:
        return None
    above = now.mean > need.margin
    distance = abs(now.mean - need.margin)
    if distance < 1e-9:
        return None
    pairs, counts = np.unique(np.stack([before, after]), axis=1, return_counts=True)
    if not np.isin(pairs, (0.0, 1.0)).all():
        reach = now.mean - now.low if above else now.high - now.mean
        wanted = math.ceil(now.n * (reach / distance) ** 2)
        return wanted - now.n if wanted <= MOST else None

    def settled(n: int) -> bool:
        exact = n * counts / now.n
        times = np.floor(exact).astype(int)
        times[np.argsort(times - exact, kind="stable")[: n - times.sum()]] += 1  # largest remainder
        one, two = (np.repeat(row, times) for row in pairs)
        return need.state(paired_difference(one, two[None, :])) == ("met" if above else "missed")

    few, many = now.n, 2 * now.n
    while not settled(many):
        few, many = many, 2 * many
        if few > MOST:
            return None
    while many - few > max(1, few // 100):  # one in a hundred is close enough for "about"
        middle = (few + many) // 2
        few, many = (few, middle) if settled(middle) else (middle, many)
    return many - now.n
