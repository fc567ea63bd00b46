"""What a tracker is told of a study, read from its run folder: what is new since it was last told.

The run folder is the queue: the trainer's log and the meters' as they are written, readings when
their stage is finished, tables and report at the end. What was sent is a `Sent`, kept beside the
study, so that a study which goes on goes on in the same runs and nothing is sent twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.analysis.results import Results, Share, from_json
from holdfast.analysis.so_far import cell_of, frontier_so_far, measured_stages
from holdfast.errors import HoldfastError
from holdfast.grading.grade import READINGS
from holdfast.runs import live, store
from holdfast.runs.chapters import Trained
from holdfast.runs.live import Look
from holdfast.runs.plan import Plan, place
from holdfast.train.job import HISTORY
from holdfast.train.meters import FILE as METERS
from holdfast.types import BASE, Point

STUDY = "study"
"""The run of what belongs to no single training: tables, the decision, the report."""
AGAIN = "again"
"""In what was sent: how often a training was made, where it was made again."""
SO_FAR = "frontier_so_far"
"""The table of the frontier before the study's end, and how many readings it was made of."""
GROWS = 1.1
"""It is made anew when there are so many times as many readings."""
LEFT_OUT = {"step", "time", "epoch"}
"""Of a row of the log: what is no figure of its own."""
GIB = 1 << 30
Cell = str | int | float | bool | None
Sent = dict[str, str | float]
"""What was sent: by stage the mark of its making, by stage and figure the last step."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of one run after a step of training, and when they were written (since 1970)."""

    step: int
    at: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Table:
    """A table by name; each row has all columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Something that is sent as a whole.

    Attributes:
        run: its key: ``sft/seed1``, ``base``, ``study``.
        sent: what is noted once it has arrived.
        figures: in order of their steps.
        tables: of the study.
        files: kept with the run, under their own names.
        words: findings in words, by name.
    """

    run: str
    sent: Mapping[str, str | float]
    figures: tuple[Figures, ...] = ()
    tables: tuple[Table, ...] = ()
    files: tuple[Path, ...] = ()
    words: tuple[tuple[str, str], ...] = ()


def key_of(point: Point) -> str:
    """The run that a model's figures belong to."""
    return point.arm if point.seed is None else f"{point.arm}/seed{point.seed}"


def batches(plan: Plan, look: Look, sent: Sent) -> Iterator[Batch]:
    """Everything that is there and was not sent, the study's own last.

    Args:
        plan: of the study.
        look: at its run folder.
        sent: what was; is not changed here.
    """
    for arm, seed in plan.trained:
        for one in plan.trainings(arm, seed):
            yield from _training(plan, look, one, f"{arm}/seed{seed}", sent)
    for stage, (point, task) in measured_stages(plan).items():
        made = look.done.get(stage)
        base = f"readings/{BASE}/{task}"
        if made is None or sent.get(stage) == made or base not in look.done:
            continue
        if (found := _reading(plan, point, task)) is not None:
            yield Batch(key_of(point), {stage: made}, (found,))
    yield from _whole(plan, look, sent)


def renew(plan: Plan, look: Look, sent: Sent) -> list[str]:
    """Forget what was sent of trainings that are being made again: they get a run of their own.

    Returns:
        The keys of their runs.
    """
    found = []
    every = [(*one, of.stage) for one in plan.trained for of in plan.trainings(*one)]
    for arm, seed, stage in every:
        run = f"{arm}/seed{seed}"
        now = look.done.get(stage, "" if stage in look.working else None)
        if stage not in sent or now is None or now == sent[stage]:
            continue
        for name in [one for one in sent if one == stage or one.startswith(f"{stage}:")]:
            del sent[name]
        if run not in found:
            sent[f"{AGAIN}/{run}"] = float(sent.get(f"{AGAIN}/{run}", 1)) + 1
            found.append(run)
    return found


def _training(plan: Plan, look: Look, one: Trained, run: str, sent: Sent) -> Iterator[Batch]:
    stage = one.stage
    folder = live.training_folder(plan.folder, stage, look)
    done: Mapping[str, str] = {stage: look.done[stage]} if stage in look.done else {}
    if done and sent.get(stage) == done[stage]:
        return
    found: list[Figures] = []
    last: dict[str, str | float] = {}
    for file, prefix in ((HISTORY, "train"), (METERS, "meters")):
        for row in live.rows(folder / file):
            step = row.get("step")
            if not isinstance(step, int):
                continue
            values = {}
            for name, value in _numbers(row, prefix).items():
                mark = f"{stage}:{name}"
                if step > float(last.get(mark, sent.get(mark, -1))):
                    values[name], last[mark] = value, step
            if values:
                found.append(Figures(one.before + step, _number(row.get("time")), values))
    if found or done:
        yield Batch(run, {**last, **done}, tuple(sorted(found, key=lambda one: one.step)))


def _numbers(row: Mapping[str, object], prefix: str) -> dict[str, float]:
    """The finite numbers of a row, by the names that trackers show."""
    found = {}
    for name, value in row.items():
        if name in LEFT_OUT or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name == "memory_bytes":
            name, value = "memory_gib", value / GIB
        if math.isfinite(value):
            found[f"{prefix}/{name}"] = float(value)
    return found


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _reading(plan: Plan, point: Point, task: str) -> Figures | None:
    """A model's figure on a task with its interval, and its difference to the untouched model."""
    cell = cell_of(plan, point, task)
    if cell is None:
        return None
    name = f"readings/{task}" + ("" if point.scale == 1 else f"/x{point.scale:g}")
    values = _share(f"{name}/", cell.score)
    values |= {f"{name}/n": cell.score.n, f"{name}/unscored": cell.score.unscored}
    if cell.diff is not None:
        values |= _share(f"{name}/diff_", cell.diff)
    return Figures(point.step, _written(plan.folder / "readings" / place(point, task)), values)


def _written(folder: Path) -> float:
    """When readings were written, so that what is sent twice is recognised as the same."""
    try:
        return (folder / READINGS).stat().st_mtime
    except OSError:
        return 0.0


def _share(prefix: str, share: Share) -> dict[str, float]:
    ends = {"value": share.mean, "low": share.low, "high": share.high}
    return {f"{prefix}{name}": value for name, value in ends.items() if value is not None}


def _whole(plan: Plan, look: Look, sent: Sent) -> Iterator[Batch]:
    """Tables and findings once the statistics are done, and the report as files."""
    stats, report = look.done.get("stats"), look.done.get("report")
    if stats is None and "stats" not in sent:  # else the whole one is there already
        yield from _so_far(plan, look, sent)
    if stats is not None and sent.get("stats") != stats and (found := _results(plan)) is not None:
        yield Batch(STUDY, {"stats": stats}, tables=_tables(found), words=_words(found))
    if report is not None and sent.get("report") != report:
        names = ("index.html", "report.md", "results.json")
        files = [plan.folder / "report" / name for name in names]
        yield Batch(STUDY, {"report": report}, files=tuple(one for one in files if one.is_file()))


def _so_far(plan: Plan, look: Look, sent: Sent) -> Iterator[Batch]:
    """The frontier of what is measured, whenever a good deal more is than when it was sent."""
    there, before = sum(one in look.done for one in measured_stages(plan)), sent.get(SO_FAR, 0)
    if there <= GROWS * float(before):
        return
    with suppress(HoldfastError, OSError):  # a file that is written anew just now
        rows, of = frontier_so_far(plan, look)
        if of:
            table = [_table(SO_FAR, [one._asdict() for one in rows])] if rows else []
            yield Batch(STUDY, {SO_FAR: there}, tables=(*table,), words=((f"{SO_FAR}_of", of),))


def _results(plan: Plan) -> Results | None:
    """What the study found; None where that cannot be read just now."""
    with suppress(HoldfastError, OSError):
        return from_json(store.read_json(plan.folder / "stats" / "results.json"))
    return None


def _tables(results: Results) -> tuple[Table, ...]:
    frontier = [one._asdict() for one in results.frontier()]
    found: list[tuple[str, Sequence[Mapping[str, Cell]]]] = [
        ("results", results.rows()), ("frontier", frontier),
    ]  # fmt: skip
    return tuple(_table(name, rows) for name, rows in found if rows)


def _table(name: str, rows: Sequence[Mapping[str, Cell]]) -> Table:
    return Table(name, tuple(rows[0]), tuple(tuple(row.values()) for row in rows))


def _words(results: Results) -> tuple[tuple[str, str], ...]:
    made = results.decision
    decided = () if made is None else (("decision", made.answer), ("reason", made.reason))
    return (("verdict", results.verdict), *decided)
