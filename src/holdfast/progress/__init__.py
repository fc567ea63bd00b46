"""Shows how far the work is: bars in a terminal and in a notebook, lines in a log.

One line per stage that took time, and below it two bars: the whole run with the time that it still
takes (`holdfast.progress.remaining`), and the stage at work. In a pipe or a log file a line a
minute stands for the bars. `Silent` is for libraries and tests.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from holdfast.progress.bars import Bars as Bars
from holdfast.progress.bars import console as console
from holdfast.progress.stopping import Stop

KEPT_S = 10.0
"""How often the seconds of a stage are written down at most."""


class Progress(Protocol):
    """What a stage may say.

    Attributes:
        stop: whether to end, and what is worth finishing first.
    """

    stop: Stop

    def begin(self, total: int, done: int) -> None:
        """The run has `total` stages, of which `done` are finished already."""

    def expect(self, left: Mapping[str, float | None], took: Mapping[str, float]) -> None:
        """How long the stages of the run may take.

        Args:
            left: seconds of each that is left, in order; None: nothing is known of it.
            took: seconds of those that are finished.
        """

    def enter(self, stage: str) -> None:
        """A stage starts."""

    def leave(self, stage: str) -> None:
        """A stage is finished."""

    def beside(self, stage: str) -> Progress:
        """A stage starts beside others, and says of itself to this one; `leave("")`: given up."""

    def total(self, amount: int, what: str = "") -> None:
        """The stage at work consists of `amount` pieces."""

    def kept(self, amount: int) -> None:
        """Some pieces were done in an earlier sitting."""

    def advance(self, amount: int = 1) -> None:
        """Some pieces are done."""

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        """So many tokens went through the model since the last call; the loss of training."""

    def say(self, line: str) -> None:
        """One line worth keeping."""


class Silent:
    """Says nothing."""

    stop: Stop = Stop()  # which nobody asks, unless whoever listens puts another in its place

    def begin(self, total: int, done: int) -> None: ...  # noqa: D102
    def expect(self, left: Mapping[str, float | None], took: Mapping[str, float]) -> None: ...  # noqa: D102
    def enter(self, stage: str) -> None: ...  # noqa: D102
    def leave(self, stage: str) -> None: ...  # noqa: D102
    def total(self, amount: int, what: str = "") -> None: ...  # noqa: D102
    def advance(self, amount: int = 1) -> None: ...  # noqa: D102
    def worked(self, tokens: int = 0, loss: float | None = None) -> None: ...  # noqa: D102

    def beside(self, stage: str) -> Progress:
        """One after another for whoever does not tell them apart."""
        self.enter(stage)
        return self

    def kept(self, amount: int) -> None:
        """Counted as done by whoever overrides `advance` alone."""
        self.advance(amount)

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
        self.begin, self.expect, self.enter = inner.begin, inner.expect, inner.enter
        self.leave, self.total, self.kept = inner.leave, inner.total, inner.kept
        self.beside = inner.beside
        self.worked, self.say, self.stop = inner.worked, inner.say, inner.stop

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
