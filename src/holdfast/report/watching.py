"""Shows a run in the terminal while it is under way: stages, losses, readings as they come, GPUs.

Reads the run folder alone (`holdfast.runs.live`), so that it works beside a run of another process,
on one that is finished, and on one that broke off.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from holdfast.analysis.findings import Cell
from holdfast.analysis.so_far import (
    cell_of,
    how_far,
    losses,
    measured_stages,
    ungraded,
    waiting,
)
from holdfast.memory.hardware.detect import InUse, in_use
from holdfast.progress import console as harmless
from holdfast.progress.remaining import shortened
from holdfast.progress.translation import told
from holdfast.report.console import share_text
from holdfast.report.words import difference
from holdfast.runs.live import Look, Watched
from holdfast.runs.plan import Plan, TaskPlan

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*#%"
"""Heights of a sparkline, where the terminal has them and where it has not."""
LINE, NARROW = 24, 70
"""Blocks of a sparkline; and characters below which a terminal shows less."""
GIB = 1 << 30
SEED = re.compile(r"/seed\d+(?=/)")
ENDLESS = 200
"""Lines that are shown where no terminal ends them."""
AROUND, FEW = 15, 6
"""Lines that the header and the heads of three tables take; and the fewest of curves and readings,
before stages are told by their sum alone."""


class Screen:
    """Lays out what a run folder shows; what has not changed is not read again."""

    def __init__(self, folder: Path) -> None:
        """Watch a run folder.

        Raises:
            FolderError: it is none, or has no plan.
        """
        self._watched = Watched(folder)
        self._cells: dict[tuple[str, str], Cell | None] = {}
        self._curves: dict[tuple[str, str], Sequence[tuple[int, float]]] = {}
        self.look = self._watched.look()

    def draw(self, console: Console) -> Group:
        """The page as it is now, no higher and no wider than the terminal."""
        look = self.look = self._watched.look()
        plan, narrow = self._watched.plan, console.width < NARROW
        below = _below(look, plan, console.is_terminal)
        room = (console.height if console.is_terminal else ENDLESS) - AROUND - len(below)
        stages = _stages(look, narrow)
        if stages.row_count + FEW > room:
            stages = _stages(look, narrow=True)
        rows = max(4, room - stages.row_count)
        head = Text(f"{plan.study.name}: {plan.study.model.id}\n{told(how_far(look))}")
        blocks = BLOCKS if (console.encoding or "").lower().startswith("utf") else PLAIN
        found = {f"{arm}/seed{seed}": self._losses(look, arm, seed) for arm, seed in plan.trained}
        trained = {name: curve for name, curve in found.items() if curve}
        curves = _curves(trained, plan.steps, blocks, narrow, rows // 2)
        readings = self._readings(look, console.width, rows - rows // 2)
        parts: list[RenderableType | None] = [head, stages, curves, readings, *below]
        return Group(*(one for one in parts if one is not None))

    def _losses(self, look: Look, arm: str, seed: int) -> Sequence[tuple[int, float]]:
        """The losses of a training; those of a finished one are read once."""
        stages = [one.stage for one in self._watched.plan.trainings(arm, seed)]
        key = (stages[-1], "".join(look.done.get(stage, "") for stage in stages))
        if not look.done.keys() >= {*stages} or key not in self._curves:
            self._curves[key] = losses(self._watched.plan, look, arm, seed)
        return self._curves[key]

    def _readings(self, look: Look, width: int, rows: int) -> Table | None:
        """The newest readings, each with its interval and its difference to the base."""
        plan = self._watched.plan
        made, stages = self._watched.times(), measured_stages(plan)
        newest = sorted((one for one in stages if one in look.done), key=lambda o: made[o])[-rows:]
        found = []
        for stage in newest:
            point, task = stages[stage]
            key = (stage, look.done[stage])
            if self._cells.get(key) is None:
                self._cells[key] = cell_of(plan, point, task)
            if (cell := self._cells[key]) is not None:
                told = _figures(cell, plan.tasks[task])
                found.append((_called(stage, len(plan.study.seeds) > 1), *told))
        if not found:
            return None
        heads = ("reading", "in %", *([] if width < NARROW else ["against base, points"]))
        wide = [max(len(row[place]) for row in (*found, heads)) for place in range(1, len(heads))]
        room = max(12, width - sum(wide) - 3 * len(heads) - 1)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
        for name in heads:
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for name, *figures in found:
            table.add_row(escape(shortened(name, room)), *figures[: len(heads) - 1])
        return table


def _called(stage: str, seeds: bool) -> str:
    """A reading in few letters: arm, its seed if that is to be told, step, task."""
    name = stage if seeds else SEED.sub("", stage)
    return name.partition("/")[2].replace("/checkpoint-", " ").replace("/", " ")


def _figures(cell: Cell, task: TaskPlan) -> tuple[str, str]:
    change = difference(cell.diff, task)
    told = f"{change.points} {change.interval}" if change else ""
    return share_text(cell.score, task).replace("\n", ", "), told


def _stages(look: Look, narrow: bool) -> Table:
    """How many stages of each kind are done, at work and left."""
    kinds: dict[str, list[int]] = {}
    for place, some in enumerate((look.done, look.working, look.left)):
        for name in some:
            kinds.setdefault(name.partition("/")[0], [0, 0, 0])[place] += 1
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("stages", "done", "at work", "left"):
        table.add_column(name, justify="left" if name == "stages" else "right")
    rows = kinds.items()
    if narrow:
        totals = [sum(some[place] for some in kinds.values()) for place in range(3)]
        rows = {"all": totals}.items()
    for kind, (done, working, left) in rows:
        table.add_row(escape(kind), str(done), str(working or ""), str(left or ""))
    return table


def _curves(
    found: Mapping[str, Sequence[tuple[int, float]]],
    steps: int,
    blocks: str,
    narrow: bool,
    rows: int,
) -> Table | None:
    """The losses of every training, the newest trainings last."""
    if not found:
        return None
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("loss", *([] if narrow else [""]), "last", "step"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name, curve in list(found.items())[-rows:]:
        step, last = curve[-1]
        drawn = [] if narrow else [sparkline([loss for _, loss in curve], blocks)]
        table.add_row(escape(name), *drawn, f"{last:.4g}", f"{step}/{steps}")
    return table


def sparkline(values: Sequence[float], blocks: str = BLOCKS, width: int = LINE) -> str:
    """Values as a line of blocks, from the least to the largest; means where there are more."""
    parts = min(width, len(values))
    edges = [len(values) * one // parts for one in range(parts + 1)]
    means = [_mean(values[a:b]) for a, b in pairwise(edges)]
    least, most = min(means), max(means)
    scale = (len(blocks) - 1) / (most - least) if most > least else 0.0
    return "".join(blocks[round((one - least) * scale)] for one in means)


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)


def _gpu(one: InUse) -> str:
    busy = "" if one.busy is None else f", {one.busy:.0%} busy"
    used, total = one.used_bytes / GIB, one.total_bytes / GIB
    return f"GPU {one.index} {one.name}: {used:.1f} of {total:.0f} GiB{busy}"


def _below(look: Look, plan: Plan, cut: bool) -> list[Text]:
    """What waits, the GPUs, what the run said last, and what to do next; `cut`: a line each."""
    said = look.told.get("said", [])[-2:]
    hint, waits = _hint(look, plan.folder), waiting(plan, look)
    return [
        *(
            [Text(told(waits), no_wrap=cut, overflow="ellipsis" if cut else "fold")]
            if waits
            else []
        ),
        *(Text(told(_gpu(one))) for one in in_use()),
        *(
            Text(told(one), "dim", no_wrap=cut, overflow="ellipsis" if cut else "fold")
            for one in said
        ),
        *([Text(told(hint))] if hint else []),
    ]


def _hint(look: Look, folder: Path) -> str:
    """What to do next."""
    page = folder / "report" / "index.html"
    if look.state == "finished":
        return f"Report: {page}"
    if look.state == "under way":
        return ""
    return "Finished stages are kept: the command that began it goes on from here."


def as_values(folder: Path) -> dict[str, object]:
    """What a run folder shows now, as JSON values.

    Raises:
        FolderError: no run folder, or one without a plan.
    """
    watched = Watched(folder)
    look, plan = watched.look(), watched.plan
    curves = {f"{arm}/seed{seed}": losses(plan, look, arm, seed) for arm, seed in plan.trained}
    cells = {
        stage.partition("/")[2]: cell_of(plan, *measured)
        for stage, measured in measured_stages(plan).items()
        if stage in look.done
    }
    return {
        "state": look.state, "line": how_far(look), "done": list(look.done),
        "working": look.working, "left": look.left, "told": dict(look.told),
        "losses": curves, "gpus": [asdict(one) for one in in_use()],
        "ungraded": ungraded(plan, look), "readings": {
            name: {"share": asdict(one.score), "difference": one.diff and asdict(one.diff)}
            for name, one in cells.items()
            if one is not None
        },
    }  # fmt: skip


def shown_until_it_ends(folder: Path, once: bool = False, every_s: float = 2.0) -> Look:
    """Show a run until it ends, or once where that is asked for or nobody looks on.

    Args:
        folder: the run folder.
        once: one page, and no more.
        every_s: how often it is drawn anew, in seconds.

    Returns:
        What was seen last.

    Raises:
        FolderError: no run folder, or one without a plan.
    """
    screen, console = Screen(folder), harmless()
    page = screen.draw(console)
    if once or not console.is_terminal or screen.look.state != "under way":
        console.print(page)
        return screen.look
    with Live(page, console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while screen.look.state == "under way":
            time.sleep(every_s)
            live.update(screen.draw(console), refresh=True)
    return screen.look
