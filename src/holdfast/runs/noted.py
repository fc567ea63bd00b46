"""Writes down how far a run is, once a second, for whoever looks on (`holdfast.runs.live`)."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.progress import Progress
from holdfast.progress.remaining import Remaining
from holdfast.runs import temporary

FILE = "progress.json"
"""In the run folder while a run is under way."""
EVERY_S = 1.0
LINES = 5
"""Of what a run says, the last so many are kept."""


class Noted:
    """A `Progress` that passes everything on, and writes down how far the run is."""

    def __init__(self, inner: Progress, folder: Path) -> None:
        """Write into the run folder; `inner` is told everything."""
        self._inner, self._file, self.stop = inner, folder / FILE, inner.stop
        self._remaining, self._written, self._said = Remaining(), 0.0, deque[str](maxlen=LINES)

    def begin(self, total: int, done: int) -> None:
        """See `Progress.begin`."""
        self._inner.begin(total, done)
        self._remaining.begin(total, done)
        self._write()

    def expect(self, left: Mapping[str, float | None], took: Mapping[str, float]) -> None:
        """See `Progress.expect`."""
        self._inner.expect(left, took)
        self._remaining.expect(left, took)

    def enter(self, stage: str) -> None:
        """See `Progress.enter`."""
        self._inner.enter(stage)
        self._remaining.enter(stage)
        self._write()

    def leave(self, stage: str) -> None:
        """See `Progress.leave`."""
        self._inner.leave(stage)
        self._remaining.leave(stage)
        self._write()

    def beside(self, stage: str) -> Progress:
        """See `Progress.beside`."""
        found = _Beside(self, self._inner.beside(stage), self._remaining.beside(stage))
        self._write()
        return found

    def left_beside(self, other: Remaining, made: bool) -> None:
        """A stage that was made beside others is made, or was given up."""
        self._remaining.finish(other, made)
        self._write()

    def total(self, amount: int, what: str = "") -> None:
        """See `Progress.total`."""
        self._inner.total(amount, what)
        self._remaining.total(amount, what)

    def kept(self, amount: int) -> None:
        """See `Progress.kept`."""
        self._inner.kept(amount)
        self._remaining.kept(amount)

    def advance(self, amount: int = 1) -> None:
        """See `Progress.advance`."""
        self._inner.advance(amount)
        self._remaining.advance(amount)
        self._write(EVERY_S)

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        """See `Progress.worked`."""
        self._inner.worked(tokens, loss)
        self._remaining.worked(tokens, loss)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._inner.say(line)
        self._said.append(line[:500])

    def _write(self, every_s: float = 0.0) -> None:
        if time.monotonic() - self._written < every_s:
            return
        self._written, now = time.monotonic(), self._remaining
        about = {
            "at": round(time.time(), 3), "pid": os.getpid(), "host": host(),
            "stages": now.stages, "done": now.done, "left_s": now.left, "share": now.share,
            "stage": now.stage, "words": now.stage_words(), "said": [*self._said],
        }  # fmt: skip
        part = temporary.beside(self._file)
        with suppress(OSError):  # it only says how far the work is
            part.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
            os.replace(part, self._file)


class _Beside:
    """One of several stages that are made at a time; a `Progress` of its own."""

    def __init__(self, outer: Noted, inner: Progress, follows: Remaining) -> None:
        self._outer, self._inner, self._follows, self.stop = outer, inner, follows, inner.stop
        self.begin, self.expect, self.enter = inner.begin, inner.expect, inner.enter
        self.beside, self.say = inner.beside, outer.say

    def leave(self, stage: str) -> None:
        self._inner.leave(stage)
        self._outer.left_beside(self._follows, bool(stage))

    def total(self, amount: int, what: str = "") -> None:
        self._inner.total(amount, what)
        self._follows.total(amount, what)

    def kept(self, amount: int) -> None:
        self._inner.kept(amount)
        self._follows.kept(amount)

    def advance(self, amount: int = 1) -> None:
        self._inner.advance(amount)
        self._follows.advance(amount)
        self._outer._write(EVERY_S)

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        self._inner.worked(tokens, loss)
        self._follows.worked(tokens, loss)


@contextmanager
def noted(progress: Progress, folder: Path) -> Iterator[Progress]:
    """The same progress, written into the run folder for as long as this lasts."""
    try:
        yield Noted(progress, folder)
    finally:
        (folder / FILE).unlink(missing_ok=True)


def host() -> str:
    """Tells machines apart without naming them."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
