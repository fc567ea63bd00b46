"""Shows how far the work is: bars in a terminal and in a notebook, lines in a log.

One line per stage that took time, and below it two bars: the whole run and the stage at work. In a
pipe or a log file the bars are left out and only the lines remain. `Silent` is for libraries and
tests.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

REDRAWN_S = 0.25
"""How often a notebook's cell is drawn anew at most, in seconds."""
KEPT_S = 10.0
"""How often the seconds of a stage are written down at most."""


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


class Clocked:
    """A `Progress` that counts the seconds of a stage, over interruptions too.

    Attributes:
        sittings: how often the stage was begun, or gone on with.
        keep: writes the seconds down; called when something is done, but not often.
    """

    def __init__(self, inner: Progress, before: float = 0.0, sittings: int = 1) -> None:
        """Start the clock.

        Args:
            inner: is told everything.
            before: seconds of earlier sittings.
            sittings: this one included.
        """
        self._inner, self._before, self.sittings = inner, before, sittings
        self._started = self._kept = time.monotonic()
        self.keep: Callable[[], None] = lambda: None
        self.begin, self.enter, self.leave = inner.begin, inner.enter, inner.leave
        self.total, self.say = inner.total, inner.say

    @property
    def seconds(self) -> float:
        """Of all sittings."""
        return self._before + time.monotonic() - self._started

    def advance(self, amount: int = 1) -> None:
        """See `Progress.advance`."""
        self._inner.advance(amount)
        if time.monotonic() - self._kept >= KEPT_S:
            self._kept = time.monotonic()
            self.keep()


class Bars:
    """Bars on a terminal or in a notebook, plain lines elsewhere; use as a context manager."""

    def __init__(
        self, quiet_below_s: float = 2.0, cell: Callable[[str], object] | None = None
    ) -> None:
        """Draw nothing yet.

        Args:
            quiet_below_s: a line is kept for every stage that took longer, in seconds.
            cell: replaces the text of a notebook's cell; None: the bars go to standard error, if
                that is a terminal.
        """
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._console = console(stderr=True)
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=cell is not None or not self._console.is_terminal,
        )
        self._run = self._bars.add_task("stages", total=None)
        self._stage = self._bars.add_task("", total=None, visible=False)
        self._quiet_below_s = quiet_below_s
        self._started = 0.0
        self._cell = cell
        self._drawn = -REDRAWN_S

    def __enter__(self) -> Bars:
        """Start drawing."""
        if not self._bars.disable:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars; the lines stay."""
        if not self._bars.disable:
            self._bars.stop()  # rich 14 ends with an empty line even where it drew nothing
        if self._cell is not None:
            self._cell("")

    def begin(self, total: int, done: int) -> None:
        """Set the outer bar."""
        self._bars.update(self._run, total=total, completed=done)
        self._draw()

    def enter(self, stage: str) -> None:
        """Show the stage at work."""
        self._started = time.monotonic()
        self._bars.update(self._run, description=stage)
        self._draw()

    def leave(self, stage: str) -> None:
        """Advance the outer bar; keep a line when the stage took a while."""
        seconds = time.monotonic() - self._started
        self._bars.update(self._stage, visible=False)
        self._bars.advance(self._run)
        self._draw()
        if seconds >= self._quiet_below_s:
            self.say(f"{stage:<46} {seconds:7.1f} s")

    def total(self, amount: int, what: str = "") -> None:
        """Set the inner bar."""
        self._bars.reset(self._stage, total=amount, description=f"  {what}", visible=True)
        self._draw()

    def advance(self, amount: int = 1) -> None:
        """Advance the inner bar."""
        self._bars.advance(self._stage, amount)
        if time.monotonic() - self._drawn >= REDRAWN_S:
            self._draw()

    def say(self, line: str) -> None:
        """Print above the bars; in a notebook below them."""
        line = printable(line, keep="\n\t")
        if self._cell is not None:
            print(line)
        else:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _draw(self) -> None:
        """Draw a notebook's cell anew; a terminal is drawn by a thread of rich's."""
        if self._cell is None:
            return
        page = console(file=io.StringIO(), width=100, force_jupyter=False, force_terminal=False)
        with page.capture() as drawn:
            page.print(self._bars.get_renderable())
        self._cell(drawn.get().rstrip("\n"))
        self._drawn = time.monotonic()


def console(**options: Any) -> Console:
    """A console of rich's that prints nothing which a terminal would obey, but rich's own marks.

    Args:
        **options: of `rich.console.Console`.
    """
    from rich import console as rich
    from rich.segment import Segment

    class Harmless(rich.Console):
        """Cleans what is laid out, whatever it was made of."""

        def render(
            self, renderable: rich.RenderableType, options: rich.ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for one in super().render(renderable, options):
                text = one.text if one.control else printable(one.text, keep="\n\t")
                yield one if text == one.text else Segment(text, one.style)

    return Harmless(**options)


def default() -> Bars:
    """What suits the place: bars in a terminal or a notebook, lines in a log."""
    return Bars(cell=_new_cell() if _in_notebook() else None)


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook; IPython in a terminal is not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


def _new_cell() -> Callable[[str], object]:
    """Text below the cell that runs, to be replaced; needs no widgets."""
    from IPython.display import display

    shown = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: shown.update({"text/plain": text}, raw=True)
