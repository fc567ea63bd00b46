"""Progress: bars in a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import io
import sys
from types import ModuleType, SimpleNamespace

import pytest

from holdfast import progress
from holdfast.progress import Bars


def _work(bars: Bars) -> None:
    with bars:
        bars.begin(4, 1)
        bars.enter("train/sft/seed1")
        bars.total(10, "steps")
        bars.advance(3)
        bars.leave("train/sft/seed1")
        bars.say("deleted checkpoint-1 [kept: 2]")


class Cell:
    """What a notebook shows below the cell at work, as it changes."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, data: dict[str, str], raw: bool) -> None:
        assert raw
        self.shown.append(data["text/plain"])


def test_a_log_gets_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    _work(Bars(quiet_below_s=0))
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("train/sft/seed1  ") and first.endswith(" s")
    assert second == "deleted checkpoint-1 [kept: 2]"


def test_short_stages_leave_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    _work(Bars(quiet_below_s=60))
    assert capsys.readouterr().err == "deleted checkpoint-1 [kept: 2]\n"


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    _work(progress.default())
    assert "2/4" in screen.getvalue()
    assert "━" in screen.getvalue()


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    """The process is the kernel of a notebook."""
    made = Cell()

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Cell:
        assert display_id and raw and data == {"text/plain": ""}
        return made

    ipython, shown = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    shown.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return made


def test_a_notebook_gets_bars(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    _work(progress.default())
    begun = cell.shown[0]
    assert begun.startswith("stages") and "1/4" in begun and "━" in begun
    assert any(text.startswith("train/sft/seed1") and "\n  steps" in text for text in cell.shown)
    assert "2/4" in cell.shown[-2] and "steps" not in cell.shown[-2], "the stage is over"
    assert cell.shown[-1] == "", "the bars go when the work is done"
    out, err = capsys.readouterr()
    assert (out, err) == ("deleted checkpoint-1 [kept: 2]\n", "")


def test_a_notebook_is_not_drawn_at_every_piece(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    with progress.default() as bars:
        bars.total(1000)
        before = len(cell.shown)
        for _ in range(100):
            now.seconds += 0.01
            bars.advance()
        assert 3 <= len(cell.shown) - before <= 4
        assert "100 of 1000" in cell.shown[-1]


def test_ipython_in_a_terminal_is_no_notebook(
    cell: Cell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace())
    _work(progress.default())
    assert cell.shown == []
    assert "deleted" in capsys.readouterr().err
