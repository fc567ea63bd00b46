"""What does a person see while the work runs?

One line per stage that took time, and below it two bars: the whole run and the stage at work. In a
pipe or a log file the bars are left out and only the lines remain. `Silent` is for libraries and
tests.
"""

from __future__ import annotations

import time
from typing import Protocol


class Progress(Protocol):
    """What a stage may say."""

    def begin(self, total: int, done: int) -> None:
        """The run has `total` stages, of which `done` are finished already."""

    def enter(self, stage: str) -> None:
        """A stage starts."""

    def leave(self, stage: str) -> None:
        """A stage is finished."""

    def total(self, amount: int, what: str = "") -> None:
        """The stage at work consists of `amount` pieces."""

    def advance(self, amount: int = 1) -> None:
        """Some pieces are done."""

    def say(self, line: str) -> None:
        """One line worth keeping."""


class Silent:
    """Says nothing."""

    def begin(self, total: int, done: int) -> None: ...  # noqa: D102
    def enter(self, stage: str) -> None: ...  # noqa: D102
    def leave(self, stage: str) -> None: ...  # noqa: D102
    def total(self, amount: int, what: str = "") -> None: ...  # noqa: D102
    def advance(self, amount: int = 1) -> None: ...  # noqa: D102
    def say(self, line: str) -> None: ...  # noqa: D102


class Bars:
    """Bars on a terminal, plain lines elsewhere; use as a context manager."""

    def __init__(self, quiet_below_s: float = 2.0) -> None:
        """Print a line for every stage that took longer than `quiet_below_s` seconds."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._run = self._bars.add_task("stages", total=None)
        self._stage = self._bars.add_task("", total=None, visible=False)
        self._quiet_below_s = quiet_below_s
        self._started = 0.0

    def __enter__(self) -> Bars:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars; the lines stay."""
        self._bars.stop()

    def begin(self, total: int, done: int) -> None:
        """Set the outer bar."""
        self._bars.update(self._run, total=total, completed=done)

    def enter(self, stage: str) -> None:
        """Show the stage at work."""
        self._started = time.monotonic()
        self._bars.update(self._run, description=stage)

    def leave(self, stage: str) -> None:
        """Advance the outer bar; keep a line when the stage took a while."""
        seconds = time.monotonic() - self._started
        self._bars.update(self._stage, visible=False)
        self._bars.advance(self._run)
        if seconds >= self._quiet_below_s:
            self.say(f"{stage:<46} {seconds:7.1f} s")

    def total(self, amount: int, what: str = "") -> None:
        """Set the inner bar."""
        self._bars.reset(self._stage, total=amount, description=f"  {what}", visible=True)

    def advance(self, amount: int = 1) -> None:
        """Advance the inner bar."""
        self._bars.advance(self._stage, amount)

    def say(self, line: str) -> None:
        """Print above the bars."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
