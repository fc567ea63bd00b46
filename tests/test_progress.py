"""Progress: bars in a terminal and in a notebook, lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from holdfast import progress
from holdfast.progress import Bars
from holdfast.progress.remaining import Remaining, in_words


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


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_a_minute_inside_long_stages(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    bars = Bars(now=clock)
    bars.begin(3, 0)
    bars.expect({"replies/base/a": 200.0, "train/sft/seed1": 600.0, "report": 1.0}, {})
    bars.enter("replies/base/a")
    bars.total(240, "answers")
    for _ in range(15):  # a batch every ten seconds
        clock.now += 10
        bars.worked(tokens=800)
        bars.advance(8)
    assert capsys.readouterr().err.splitlines() == [
        "progress: replies/base/a: 48 of 240 answers, 80 tokens/s, about 3 min left; "
        "about 14 min left of the run; 0 of 3 stages done",
        "progress: replies/base/a: 96 of 240 answers, 80 tokens/s, about 3 min left; "
        "about 13 min left of the run; 0 of 3 stages done",
    ]
    bars.leave("replies/base/a")
    bars.enter("train/sft/seed1")
    bars.total(160, "steps")
    for step in range(1, 8):
        clock.now += 9
        bars.worked(tokens=100)
        bars.worked(loss=2 / step)
        bars.advance()
    seconds, line = capsys.readouterr().err.splitlines()
    assert seconds.split() == ["replies/base/a", "150.0", "s"]
    assert line.startswith("progress: train/sft/seed1: 7 of 160 steps, loss 0.2857, 11 tokens/s, ")


def test_a_stage_of_less_than_a_minute_has_no_line_inside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    bars = Bars(now=clock)
    for stage in ("readings/a", "readings/b", "readings/c"):
        bars.enter(stage)
        clock.now += 59
        bars.look()
        bars.leave(stage)
    assert "progress:" not in capsys.readouterr().err


def test_a_log_is_written_while_nothing_moves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch, or a step, may take minutes."""
    clock = Clock()
    monkeypatch.setattr("holdfast.progress.bars.LOOK_EVERY_S", 0.01)
    with Bars(now=clock) as bars:
        bars.enter("shared/a")
        clock.now += 61
        end = time.monotonic() + 10
        said = ""
        while not said and time.monotonic() < end:
            time.sleep(0.01)
            said = capsys.readouterr().err
    assert said == "progress: shared/a: 60 s so far; 0 of 0 stages done\n"


def test_what_is_left_follows_what_was_measured() -> None:
    clock = Clock()
    run = Remaining(clock)
    run.begin(5, 1)
    names = ["replies/base/a", "replies/sft/a", "train/sft/seed1", "report"]
    run.expect({name: 100.0 for name in names}, {"replies/old/b": 50.0})
    assert run.left == 400 and run.share == pytest.approx(50 / 450)
    run.enter(names[0])
    run.total(10, "answers")
    run.kept(4)
    clock.now += 30
    run.advance(2)
    clock.now += 20
    run.advance(2)
    pace = (50 + 100 / 8) / (4 + 10 / 8)
    assert run.stage_left == pytest.approx(2 * pace), "what was there before is left out"
    clock.now += 20
    run.advance(2)
    assert run.stage_left == 0
    run.leave(names[0])
    assert run.left == pytest.approx(70 + 70 + 70), "all were told to take 100, and this took 70"
    run.enter(names[1])
    clock.now += 20
    assert run.stage_left == pytest.approx(50), "nothing is counted yet"


def test_answers_end_in_bursts() -> None:
    """Sixty go at a time, and the first two end together: that is no pace of two a moment."""
    clock = Clock()
    run = Remaining(clock)
    run.begin(2, 0)
    run.expect({"replies/base/a": 2000.0, "report": 1.0}, {})
    run.enter("replies/base/a")
    run.total(200, "answers")
    clock.now += 100
    run.advance(1)
    run.advance(1)
    assert run.stage_left == pytest.approx(198 * (100 + 250) / (2 + 25))
    for _ in range(49):
        clock.now += 6
        run.advance(2)
    assert run.stage_left == pytest.approx(394, rel=0.35), "100 in 394 s"


def test_of_a_stage_that_counts_several_times_no_end_is_told_once_it_takes_longer() -> None:
    clock = Clock()
    run = Remaining(clock)
    run.begin(2, 0)
    run.expect({"shared/replay": 60.0, "replies/sft/a": 100.0}, {})
    run.enter("shared/replay")
    for _ in range(2):
        run.total(2, "answers")
        clock.now += 20
        run.advance(2)
        assert run.stage_left == pytest.approx(60 - run.seconds)
    run.total(2, "answers")
    clock.now += 25
    assert run.stage_left is None and run.left is None and "left" not in run.line()


def test_a_cheap_stage_says_nothing_of_the_others() -> None:
    clock = Clock()
    run = Remaining(clock)
    run.begin(3, 0)
    run.expect({"budget": 0.1, "replies/base/a": 600.0, "report": 1.0}, {})
    run.enter("budget")
    clock.now += 6
    run.leave("budget")
    assert run.left == 601


def test_nothing_is_said_of_what_nobody_knows() -> None:
    clock = Clock()
    run = Remaining(clock)
    run.begin(3, 0)
    run.expect({"train/a/seed1": None, "train/a/seed2": None, "report": None}, {})
    assert run.left is None and run.share == 0
    run.enter("train/a/seed1")
    clock.now += 300
    run.leave("train/a/seed1")
    assert run.left == 301, "the second takes what the first took, and the report next to nothing"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (42, "40 s"), (100, "2 min"), (1500, "25 min"), (7800, "2 h 10 min"),
     (7210, "2 h"), (200_000, "2 days 8 h")],
)  # fmt: skip
def test_a_time_to_come_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


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


def test_what_is_left_is_shared_by_stages_side_by_side() -> None:
    clock = Clock()
    run = Remaining(clock)
    run.begin(4, 0)
    run.expect(dict.fromkeys(("a", "b", "c", "d"), 60.0), {})
    assert run.left == 240
    first, second = run.beside("a"), run.beside("b")
    assert run.left == 120
    clock.now += 30
    assert (run.left, run.share) == (90, 60 / 240)
    run.finish(first, made=True)
    assert run.done == 1
    assert run.left == 30, "the others will be as quick as the first"
    run.finish(second, made=False)
    assert (run.done, run.at_work) == (1, False)
    assert run.left == 90, "one by one, as long as none is begun"


def test_a_log_tells_of_all_that_is_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    bars = Bars(quiet_below_s=0, now=clock)
    bars.begin(3, 0)
    one, two = bars.beside("train/sft/seed1"), bars.beside("replies/base/gsm8k")
    one.total(10, "steps")
    one.advance(3)
    two.total(8, "items")
    two.kept(2)
    clock.now += 61
    one.advance()
    assert "progress: train/sft/seed1: 4 of 10 steps" in (said := capsys.readouterr().err)
    assert "replies/base/gsm8k: 2 of 8 items" in said and "0 of 3 stages done" in said
    one.leave("train/sft/seed1")
    two.leave("")
    assert capsys.readouterr().err.split() == ["train/sft/seed1", "61.0", "s"]
