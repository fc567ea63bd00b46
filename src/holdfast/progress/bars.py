"""Bars in a terminal and in a notebook; in a log one line a minute inside long stages."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from holdfast.errors import printable
from holdfast.progress.remaining import Remaining, shortened
from holdfast.progress.stopping import Stop
from holdfast.progress.translation import told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task

REDRAWN_S = 0.25
"""How often a notebook's cell is drawn anew at most, in seconds."""
EVERY_S = 60.0
"""How often a log gets a line inside a stage."""
LOOK_EVERY_S = 1.0
LONGEST = 28
"""Letters of a stage's name beside a bar, so that a terminal of 80 holds all the rest."""


class Bars:
    """Bars on a terminal or in a notebook, plain lines elsewhere; use as a context manager.

    Attributes:
        remaining: how far the run is.
        stop: see `Progress`.
    """

    def __init__(
        self,
        quiet_below_s: float = 2.0,
        cell: Callable[[str], object] | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Draw nothing yet.

        Args:
            quiet_below_s: a line is kept for every stage that took longer, in seconds.
            cell: replaces the text of a notebook's cell; None: the bars go to standard error, if
                that is a terminal.
            now: the clock, in seconds; None: the system's.
        """
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self.remaining, self.stop = Remaining(now), Stop()
        self._console = console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            _column(self._words),
            console=self._console,
            transient=True,
            disable=cell is not None or not self._console.is_terminal,
        )
        self._run = self._bars.add_task("stages", total=None)
        self._stage = self._bars.add_task("", total=None, visible=False)
        self._quiet_below_s = quiet_below_s
        self._cell = cell
        self._now = now or (lambda: time.monotonic())
        self._drawn, self._told = -REDRAWN_S, self._now()
        self._ended = threading.Event()

    def __enter__(self) -> Bars:
        """Start drawing, or looking at the clock."""
        if not self._bars.disable:
            self._bars.start()
        elif self._cell is None:
            threading.Thread(target=self._look, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars; the lines stay."""
        self._ended.set()
        if not self._bars.disable:
            self._bars.stop()  # rich 14 ends with an empty line even where it drew nothing
        if self._cell is not None:
            self._cell("")

    def begin(self, total: int, done: int) -> None:
        """Set the outer bar."""
        self.remaining.begin(total, done)
        self._draw()

    def expect(self, left: Mapping[str, float | None], took: Mapping[str, float]) -> None:
        """Know how long the run may take."""
        self.remaining.expect(left, took)

    def enter(self, stage: str) -> None:
        """Show the stage at work."""
        self.remaining.enter(stage)
        self._told = self._now()
        self._bars.update(self._stage, visible=False)  # of a stage that was put off
        self._bars.update(self._run, description=shortened(stage, LONGEST))
        self._draw()

    def leave(self, stage: str) -> None:
        """Advance the outer bar; keep a line when the stage took a while."""
        seconds = self.remaining.seconds
        self.remaining.leave(stage)
        self._bars.update(self._stage, visible=False)
        self._draw()
        if seconds >= self._quiet_below_s:
            self.say(f"{stage:<46} {seconds:7.1f} s")

    def beside(self, stage: str) -> _Beside:
        """Show one more stage at work, in a line of its own."""
        if not self.remaining.at_work:
            self._told = self._now()
        self._bars.update(self._run, description="stages")
        return _Beside(self, self._bars, self.remaining.beside(stage))

    def left_beside(self, other: Remaining, made: bool) -> None:
        """One of several stages has ended; keep a line when it took a while."""
        stage, seconds = other.stage, other.seconds
        self.remaining.finish(other, made)
        self._draw()
        if made and seconds >= self._quiet_below_s:
            self.say(f"{stage:<46} {seconds:7.1f} s")

    def total(self, amount: int, what: str = "") -> None:
        """Set the inner bar."""
        self.remaining.total(amount, what)
        self._bars.reset(self._stage, total=amount, description=f"  {what}", visible=True)
        self._draw()

    def kept(self, amount: int) -> None:
        """Advance the inner bar by what was there before."""
        self.remaining.kept(amount)
        self._bars.update(self._stage, completed=self.remaining.made)

    def advance(self, amount: int = 1) -> None:
        """Advance the inner bar."""
        self.remaining.advance(amount)
        self._bars.update(self._stage, completed=self.remaining.made)
        self.look()
        if self._now() - self._drawn >= REDRAWN_S:
            self._draw()

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        """Show speed and loss."""
        self.remaining.worked(tokens, loss)

    def say(self, line: str) -> None:
        """Print above the bars; in a notebook below them."""
        line = printable(told(line), keep="\n\t")
        if self._cell is not None:
            print(line)
        else:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def look(self) -> None:
        """Write the line of a log when a minute has passed within a stage."""
        if self.remaining.at_work and self._cell is None and self._bars.disable:
            now = self._now()
            if now - self._told >= EVERY_S:
                self._told = now
                self.say(f"progress: {self.remaining.line()}")

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self.look()

    def _words(self, task: Task) -> str:
        """What stands beside a bar."""
        if (other := task.fields.get("beside")) is not None:
            return str(other.stage_words())
        if task.id == self._stage:
            return self.remaining.stage_words()
        self._bars.update(self._run, total=1.0, completed=self.remaining.share)
        return self.remaining.run_words()

    def _draw(self) -> None:
        """Draw a notebook's cell anew; a terminal is drawn by a thread of rich's."""
        if self._cell is None:
            return
        page = console(file=io.StringIO(), width=100, force_jupyter=False, force_terminal=False)
        with page.capture() as drawn:
            page.print(self._bars.get_renderable())
        self._cell(drawn.get().rstrip("\n"))
        self._drawn = self._now()


class _Beside:
    """One of several stages that are made at a time; a `Progress` of its own."""

    def __init__(self, inner: Bars, bars: RichProgress, follows: Remaining) -> None:
        self._inner, self._bars, self._follows, self.stop = inner, bars, follows, inner.stop
        self.begin, self.expect, self.enter = inner.begin, inner.expect, inner.enter
        self.beside, self.say, self.worked = inner.beside, inner.say, follows.worked
        self._line = bars.add_task(
            f"  {shortened(follows.stage, LONGEST)}", total=None, beside=follows
        )

    def leave(self, stage: str) -> None:
        self._bars.remove_task(self._line)
        self._inner.left_beside(self._follows, bool(stage))

    def total(self, amount: int, what: str = "") -> None:
        self._follows.total(amount, what)
        self._bars.update(self._line, total=amount, completed=0)

    def kept(self, amount: int) -> None:
        self._follows.kept(amount)
        self._bars.update(self._line, completed=self._follows.made)

    def advance(self, amount: int = 1) -> None:
        self._follows.advance(amount)
        self._bars.update(self._line, completed=self._follows.made)
        self._inner.look()


def _column(words: Callable[[Task], str]) -> ProgressColumn:
    """A column of rich's that is asked at every drawing."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Words(ProgressColumn):
        """Text that changes with the time."""

        def render(self, task: Task) -> Text:
            return Text(told(words(task)), no_wrap=True)

    return Words()


def console(**options: Any) -> Console:
    """A console of rich's that prints nothing which a terminal would obey, but rich's own marks.

    Args:
        **options: of `rich.console.Console`.
    """
    from rich import console as rich
    from rich.segment import Segment
    from rich.text import Text

    class Harmless(rich.Console):
        """Cleans what is laid out, whatever it was made of; words are put into the reader's."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(told(text), **options)

        def render(
            self, renderable: rich.RenderableType, options: rich.ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for one in super().render(renderable, options):
                text = one.text if one.control else printable(one.text, keep="\n\t")
                yield one if text == one.text else Segment(text, one.style)

    return Harmless(**options)
