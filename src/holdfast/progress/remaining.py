"""How long a run still takes: what its stages were expected to take, corrected by what they took.

A stage that counts its pieces is judged by their pace in this sitting. Pieces end in bursts, so
what was expected of the stage counts as the pace of an eighth of its pieces beside those that are
done. A stage that has not begun takes what was expected of it, times how far off the expectations
of stages like it were; without an expectation, what stages like it took. Where neither is known,
nothing is said.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

CHEAP = ("budget", "data", "judges", "readings", "report", "stats", "weights")
"""Kinds of stages that ask no model for long, where nothing else is known."""
CHEAP_S = 1.0
IN_PHASES = ("data", "shared")
"""Kinds that may count pieces several times over."""
PRIOR = 1 / 8
"""Share of a stage's pieces that what was expected of it counts as."""
WINDOW_S = 60.0
"""Tokens per second are those of the last minute, or of the last two reports."""


class Remaining:
    """Follows a run as a `Progress` does, and tells how far it is.

    Attributes:
        stage: at work; "" between stages.
        stages: of the run.
        done: stages that are finished.
        what: unit of the pieces.
        pieces: of the stage; 0 where it does not count.
        made: pieces that are done.
        loss: the last one; None: there is none.
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        """Know nothing yet.

        Args:
            now: the clock, in seconds; None: the system's.
        """
        self._now = now or (lambda: time.monotonic())
        self.stages, self.done = 0, 0
        self._left: dict[str, float | None] = {}
        self._took: dict[str, float] = {}
        self._off: dict[str, tuple[float, float]] = {}  # by likeness: seconds taken, and expected
        self._others: dict[str, Remaining] = {}  # stages that are made side by side
        self._at_once = 1  # the most of them
        self.loss: float | None = None
        self._begin("")

    def _begin(self, stage: str) -> None:
        self.stage, self.started = stage, self._now()
        self.total(0)
        self.pieces, self.loss = 0, None

    def begin(self, total: int, done: int) -> None:
        """See `Progress.begin`."""
        self.stages, self.done = total, done

    def expect(self, left: Mapping[str, float | None], took: Mapping[str, float]) -> None:
        """See `Progress.expect`."""
        self._left, self._took = dict(left), dict(took)

    def enter(self, stage: str) -> None:
        """See `Progress.enter`."""
        self._begin(stage)

    def beside(self, stage: str) -> Remaining:
        """What follows a stage that is made beside others; see `finish`."""
        other = Remaining(self._now)
        other._left, other._took, other._off = self._left, self._took, self._off
        other.enter(stage)
        self._others[stage] = other
        self._at_once = max(self._at_once, len(self._others))
        return other

    def finish(self, other: Remaining, made: bool) -> None:
        """A stage beside others has ended: it is made, or was given up."""
        self._others.pop(other.stage, None)
        if made:
            other.leave(other.stage)
            self.done += 1

    def leave(self, stage: str) -> None:
        """See `Progress.leave`."""
        took, expected = self._now() - self.started, self._left.pop(stage, None)
        self._took[stage] = took
        if expected:
            for key in _likeness(stage)[: None if _large(stage) else -1]:
                seconds, told = self._off.get(key, (0.0, 0.0))
                self._off[key] = seconds + took, told + expected
        self.done += 1
        self._begin("")

    def total(self, amount: int, what: str = "") -> None:
        """See `Progress.total`."""
        self.pieces, self.what, self.made = amount, what, 0
        self._here = 0  # pieces of this sitting
        self._counted = self._now()
        self._tokens = 0
        self._reports: deque[tuple[float, int]] = deque([(self._counted, 0)])

    def kept(self, amount: int) -> None:
        """See `Progress.kept`."""
        self.made += amount

    def advance(self, amount: int = 1) -> None:
        """See `Progress.advance`."""
        self.made += amount
        self._here += amount

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        """See `Progress.worked`."""
        self.loss = self.loss if loss is None else loss
        if not tokens:
            return
        now = self._now()
        self._tokens += tokens
        self._reports.append((now, self._tokens))
        while len(self._reports) > 2 and self._reports[1][0] < now - WINDOW_S:
            self._reports.popleft()

    @property
    def seconds(self) -> float:
        """Of the stage at work, in this sitting."""
        return self._now() - self.started

    @property
    def tokens_per_s(self) -> float | None:
        """Through the model; None: nothing is known of it."""
        (since, before), (until, now) = self._reports[0], self._reports[-1]
        return (now - before) / (until - since) if until > since else None

    @property
    def stage_left(self) -> float | None:
        """Seconds that the stage at work still takes; None: nobody knows."""
        expected = self._expected(self.stage) if self.stage else 0.0
        more = None if expected is None else max(0.0, expected - self.seconds)
        phases = self.stage.split("/")[0] in IN_PHASES
        if phases and not more:
            return None  # nobody knows how many more there will be
        if not self._here or not self.pieces:
            return more
        spent, pieces = self._now() - self._counted, float(self._here)
        if expected is not None:
            spent, pieces = spent + PRIOR * expected, pieces + PRIOR * self.pieces
        left = (self.pieces - self.made) * spent / pieces
        return max(left, more) if phases and more else left

    @property
    def _work_left(self) -> float | None:
        """Seconds of all stages that are not done, however many are made at a time."""
        others = self._others.copy()
        now = [self.stage_left, *(one.stage_left for one in others.values())]
        later = [
            self._expected(name)
            for name in list(self._left)
            if name != self.stage and name not in others
        ]
        known = [one for one in (*now, *later) if one is not None]
        told = self._left or self.stage or others
        return sum(known) if len(known) == len(now) + len(later) and told else None

    @property
    def left(self) -> float | None:
        """Seconds that the run still takes; None: nobody knows."""
        every = self._work_left
        if every is None or not self._others:
            return every
        longest = max(one.stage_left or 0.0 for one in self._others.copy().values())
        return max(longest, every / self._at_once)

    @property
    def share(self) -> float:
        """Of the run that is done, from 0 to 1: of its time, or of its stages."""
        left = self._work_left
        spent = sum(list(self._took.values())) + (self.seconds if self.stage else 0.0)
        spent += sum(one.seconds for one in self._others.copy().values())
        if left is None or spent + left <= 0:
            return self.done / max(1, self.stages)
        return spent / (spent + left)

    def line(self) -> str:
        """How far the stages at work and the run are, for a log."""
        at_work = [*([self] if self.stage else []), *self._others.copy().values()]
        words = [
            f"{one.stage}: {one.stage_words() or f'{in_words(one.seconds)} so far'}"
            for one in at_work
        ]
        if (left := self.left) is not None and len(self._left) > 1:
            words.append(f"about {in_words(left)} left of the run")
        return "; ".join([*words, f"{self.done} of {self.stages} stages done"])

    @property
    def at_work(self) -> bool:
        """Whether any stage is."""
        return bool(self.stage or self._others)

    def run_words(self) -> str:
        """How far the run is."""
        left = self.left
        return f"{self.done}/{self.stages}" + (f", about {in_words(left)} left" if left else "")

    def stage_words(self) -> str:
        """How far the stage at work is; "" where it does not count."""
        if not self.pieces:
            return ""
        words = [f"{self.made} of {self.pieces} {self.what}".rstrip()]
        if self.loss is not None:
            words.append(f"loss {self.loss:.4g}")
        if (speed := self.tokens_per_s) is not None:
            words.append(f"{speed:,.0f} tokens/s" if speed >= 10 else f"{speed:.1f} tokens/s")
        if (left := self.stage_left) is not None and self.made < self.pieces:
            words.append(f"about {in_words(left)} left")
        return ", ".join(words)

    def _expected(self, stage: str) -> float | None:
        """Seconds of a whole stage."""
        told = self._left.get(stage)
        if told is not None:
            off = (self._off[key] for key in (*_likeness(stage), "") if key in self._off)
            took, expected = next(off, (1.0, 1.0))
            return told * took / expected
        for key in _likeness(stage)[:-1]:
            like = [took for name, took in list(self._took.items()) if key in _likeness(name)]
            if like:
                return sum(like) / len(like)
        return None if _large(stage) else CHEAP_S


def _large(stage: str) -> bool:
    """Whether how far off its expectation was says something of the others."""
    return stage.split("/")[0] not in CHEAP


def _likeness(stage: str) -> tuple[str, ...]:
    """What a stage has in common with others, the closest first: kind and task, kind, nothing."""
    kind, *more = stage.split("/")
    return (f"{kind}/{more[-1]}", kind, "") if more else (kind, "")


def shortened(name: str, room: int) -> str:
    """A stage's or a reading's name in so many letters: its head stays, and the end of its task.

    Args:
        name: parted by slashes, or by spaces.
        room: letters that there are, 4 or more.
    """
    if len(name) > room:
        name = name.replace("/checkpoint-", "/")
    if len(name) <= room:
        return name
    task = max(name.rfind("/"), name.rfind(" ")) + 1
    left, half = room - task - 1, room // 2
    return (
        f"{name[:task]}…{name[-left:]}" if left > 2 else f"{name[:half]}…{name[half + 1 - room :]}"
    )


def in_words(seconds: float) -> str:
    """A time to come as a person says it: 40 s, 12 min, 2 h 10 min, 3 days 4 h."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5 if seconds > 20 else round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes if minutes < 20 else round(minutes / 5) * 5} min"
    minutes = round(minutes / 10) * 10
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(minutes / 60)
    return f"{hours // 24} days" + (f" {hours % 24} h" if hours % 24 else "")
