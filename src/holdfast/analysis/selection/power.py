"""How many items does a rule take, and which margin can so many items support?

Before anything is trained: what a model that changed nothing, or lost one or three answers, could
show (`check_power`). After: how many more items would settle what is still open (`forecast`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.analysis.selection.rule import Need, percent_of
from holdfast.analysis.stats import Values, paired_difference, worse_end

MOST = 1_000_000
"""More items than this are no answer."""
LOST = (0, 1, 3)
"""Lost answers for which a rule is tried before it runs."""


@dataclass(frozen=True, slots=True)
class Attainable:
    """What one need takes, by the number of answers that are lost and none won: `LOST`.

    Attributes:
        need: of the rule; its margin is 0 or below.
        items: that are measured.
        available: that the task has; None where it makes as many as are asked for.
        level: of the interval that judges it.
        margins: the least that these items can show, rounded up to a tenth of a point.
        wanted: items that the need's margin takes; None: more than a million.
    """

    need: Need
    items: int
    available: int | None
    level: float
    margins: tuple[float, ...]
    wanted: tuple[int | None, ...]

    def words(self, tasks: Sequence[str] = ()) -> str:
        """What the interval shows for every number of lost answers, and which of them will do.

        Args:
            tasks: all of which this is true; none: of its own alone.
        """
        names = " and ".join(tasks or [self.need.task])
        points = "points each" if len(tasks) > 1 else "points"
        ends = ", ".join(f"{100 * margin:g}" for margin in self.margins)
        lost, most = ", ".join(map(str, LOST)), -self.need.margin + 1e-9
        met = [few for few, end in zip(LOST, self.margins, strict=True) if end <= most]
        return (
            f"{names} may lose {100 * abs(self.need.margin):g} {points}. If {lost} of "
            f"{self.items:,} answers are lost, the interval reaches down to {ends}: "
            + (f"met with {met[-1]} lost" if met else "this cannot be met")
        )


def attainable_words(found: Iterable[Attainable]) -> list[str]:
    """A sentence for all tasks of which the same is true."""
    alike: dict[object, list[Attainable]] = {}
    for one in found:
        alike.setdefault((one.need.margin, one.items, one.margins), []).append(one)
    return [same[0].words([one.need.task for one in same]) for same in alike.values()]


def attainable(need: Need, level: float, items: int, available: int | None) -> Attainable:
    """What one need takes.

    Args:
        need: of a rule; its margin is 0 or below.
        level: of the interval that judges it.
        items: that are measured.
        available: that there are in all; None: as many as one likes.
    """
    margins = tuple(_up(-worse_end(min(lost, items), 0, items, level)) for lost in LOST)
    wanted = tuple(items_for(need.margin, lost, level) for lost in LOST)
    return Attainable(need, items, available, level, margins, wanted)


def check_power(found: Iterable[Attainable]) -> list[str]:
    """What to say of needs that even an unchanged model cannot meet, or only without any loss."""
    return [text for one in found for text in _said(one)]


def items_for(margin: float, lost: int, level: float) -> int | None:
    """The fewest items with which a model that lost so many answers meets a margin below 0.

    Args:
        margin: least change allowed, as a share.
        lost: answers that were good and are not any more; none is won.
        level: of the interval.
    """
    few, many = lost, max(1, 2 * lost)
    while worse_end(lost, 0, many, level) < margin:
        few, many = many, 2 * many
        if few > MOST:
            return None
    while many - few > 1:
        middle = (few + many) // 2
        met = worse_end(lost, 0, middle, level) >= margin
        few, many = (few, middle) if met else (middle, many)
    return many


@dataclass(frozen=True, slots=True)
class Wanted:
    """What would settle one open need.

    Attributes:
        task: whose items are too few.
        more: about so many beyond those scored; None: the change lies on the margin, or more than a
            million would do.
        available: so many beyond those asked there are; None: as many as one likes.
        margin: the least that all items of the task can support, if shares stay as they are.
    """

    task: str
    more: int | None
    available: int | None
    margin: float | None

    @property
    def enough(self) -> bool:
        """Whether the task has the items."""
        return self.more is not None and (self.available is None or self.more <= self.available)

    def words(self) -> str:
        """As part of a sentence: ``about 380 more examples of contrast``."""
        if self.enough:
            assert self.more is not None
            about = _about(self.more)
            if self.available is not None:
                about = min(about, self.available)
            return f"about {about:,} more examples of {self.task}"
        if self.more is None:
            text = f"{self.task} on so many more examples that no number can be named (the change "
            text += "stands just where the rule asks"
        else:
            left = "none are" if not self.available else f"only {self.available:,} are"
            text = f"about {_about(self.more):,} more examples of {self.task} ({left} left"
        if self.margin is None or self.available is None:
            return f"{text})"
        key = f"ship.retain.{self.task}: {-self.margin:g}"
        return f"{text}; all it has support no stricter margin than {key})"


def forecast(
    need: Need, base: Values, tuned: Values, level: float, available: int | None
) -> Wanted:
    """What would settle an open need, if the shares of flips stay as they are.

    Args:
        need: one whose state is open.
        base: shape (items,).
        tuned: the same items.
        level: of the interval that judges it.
        available: items of the task in all; None: as many as one likes.
    """
    left = None if available is None else max(0, available - len(base))
    more = more_items(need, base, tuned, level)
    margin = None
    if available is not None and need.margin < 0:
        scored = int((~(np.isnan(base) | np.isnan(tuned))).sum())
        margin = _supported(base, tuned, level, scored + left if left else scored)
    return Wanted(need.task, more, left, margin)


def more_items(need: Need, base: Values, tuned: Values, level: float = 0.95) -> int | None:
    """About how many items beyond those scored would meet the need, or show that it is missed.

    For ones and zeros: the smallest number at which the interval, computed for the same shares of
    lost, won and unchanged items, leaves the margin. For means over several samples: its distance
    from the mean is taken to shrink with the root of the number.

    Args:
        need: one whose state is open.
        base: shape (items,).
        tuned: the same items.
        level: of the interval.

    Returns:
        None where the observed mean lies on the margin, or more than a million would be needed.
    """
    before, after = _scored(base, tuned)
    now = paired_difference(before, after[None, :], level)
    if now.mean is None or now.low is None or now.high is None:
        return None
    above = now.mean > need.margin
    distance = abs(now.mean - need.margin)
    if distance < 1e-9:
        return None
    if not _binary(before, after):
        reach = now.mean - now.low if above else now.high - now.mean
        wanted = math.ceil(now.n * (reach / distance) ** 2)
        return max(1, wanted - now.n) if wanted <= MOST else None

    def settled(n: int) -> bool:
        one, two = _grown(before, after, n)
        change = paired_difference(one, two[None, :], level)
        return need.state(change) == ("met" if above else "missed")

    few, many = now.n, 2 * now.n
    while not settled(many):
        few, many = many, 2 * many
        if few > MOST:
            return None
    while many - few > max(1, few // 100):  # one in a hundred is close enough for "about"
        middle = (few + many) // 2
        few, many = (few, middle) if settled(middle) else (middle, many)
    return many - now.n


def _supported(base: Values, tuned: Values, level: float, n: int) -> float | None:
    """The least margin that `n` items with these shares of flips meet."""
    before, after = _scored(base, tuned)
    if not len(before):
        return None
    now = paired_difference(before, after[None, :], level)
    if _binary(before, after):
        one, two = _grown(before, after, n)
        low = paired_difference(one, two[None, :], level).low
        return None if low is None else _up(-low)
    if now.mean is None or now.low is None:
        return None
    return _up((now.mean - now.low) * math.sqrt(now.n / n) - now.mean)


def _scored(base: Values, tuned: Values) -> tuple[Values, Values]:
    kept = ~(np.isnan(base) | np.isnan(tuned))
    return base[kept], tuned[kept]


def _binary(before: Values, after: Values) -> bool:
    return bool(np.isin(np.stack([before, after]), (0.0, 1.0)).all())


def _grown(before: Values, after: Values, n: int) -> tuple[Values, Values]:
    """`n` items with the same shares of lost, won and unchanged ones."""
    pairs, counts = np.unique(np.stack([before, after]), axis=1, return_counts=True)
    exact = n * counts / len(before)
    times = np.floor(exact).astype(int)
    times[np.argsort(times - exact, kind="stable")[: n - times.sum()]] += 1  # largest remainder
    one, two = (np.repeat(row, times) for row in pairs)
    return one, two


def _said(one: Attainable) -> Iterator[str]:
    need, n, allowed = one.need, one.items, 100 * abs(one.need.margin)
    key, (least, with_one, _) = f"ship.retain.{need.task}", one.margins
    if with_one <= -need.margin + 1e-9:
        return
    losses = "; ".join(
        f"with {lost} lost it takes {_count(wanted)} or {key}: {-margin:g}"
        for lost, margin, wanted in list(zip(LOST, one.margins, one.wanted, strict=True))[1:]
    )
    if least <= -need.margin + 1e-9:
        yield (
            f"The rule can be met on {need.task} only if no answer is lost: {allowed:g} points may "
            f"be, and {n:,} items are measured; {losses}."
        )
        return
    fewest = one.wanted[0]
    there = fewest is not None and (one.available is None or fewest <= one.available)
    more = f"measure {_count(fewest)}, or" if there else f"that takes {_count(fewest)}"
    if not there:
        more += f", and the task has {one.available:,};" if one.available is not None else ";"
    yield (
        f"The rule cannot be met on {need.task}, not even by a model that changes nothing: "
        f"{allowed:g} points may be lost, and the {percent_of(one.level)} interval of no change in "
        f"{n:,} items reaches down to {100 * least:.1f}. {_capital(more)} set {key}: {-least:g}; "
        f"{losses}."
    )


def _count(items: int | None) -> str:
    return "more than a million items" if items is None else f"{items:,} items"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _up(margin: float) -> float:
    """Rounded up to a tenth of a point, a hair's breadth aside."""
    return math.ceil(1000 * margin - 1e-6) / 1000


def _about(count: int) -> int:
    """A forecast with two figures and no more, never too few."""
    power = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // power) * power
