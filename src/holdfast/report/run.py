"""A run folder opened again: its plan, results, replies and readings, and its report.

Everything comes from the folder: no data set is read, no model, task or judge is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

from holdfast.analysis.collect import replies_shown
from holdfast.analysis.results import CurvePoint, FrontierPoint, Results, from_json
from holdfast.errors import Damaged, DataError, FolderError, UsageError
from holdfast.grading.answer import read_replies
from holdfast.grading.grade import read_readings
from holdfast.grading.judge import read_verdicts
from holdfast.registry import nearest
from holdfast.report import export
from holdfast.report.write import write_report
from holdfast.runs import records, run_folder, stages, store
from holdfast.runs.plan import Plan, place, read_plan
from holdfast.types import BASE, Point, Reading, Reply, Verdict

UNCHECKED = (
    "The files of this run are not checked: it was made by an older version, which kept no digests."
)


class At(TypedDict, total=False):
    """Which of an arm's models is meant.

    Attributes:
        seed: of the training; left out: the first.
        step: optimiser steps behind it; left out: the last that is measured.
        scale: share of the training's change; left out: as it was trained, or the last measured.
    """

    seed: int | None
    step: int | None
    scale: float | None


@dataclass(frozen=True)
class Run:
    """A finished or half-finished run.

    Attributes:
        folder: the run folder.
        plan: what is trained and measured where.
    """

    folder: Path
    plan: Plan

    @property
    def results(self) -> Results:
        """Every figure, interval and finding.

        Raises:
            FolderError: the run is not finished.
        """
        return read_results(self.folder)

    @property
    def points(self) -> list[Point]:
        """Everything that is measured, the untouched model first."""
        return self.plan.points()

    def replies(self, arm: str, task: str, **at: Unpack[At]) -> list[Reply]:
        """What a model said to every item of a task.

        Args:
            arm: whose; ``base`` is the untouched model.
            task: that it was asked.
            **at: ``seed``, ``step`` and ``scale`` (see `At`), where several models are measured.

        Raises:
            UsageError: no such arm, task or point.
            DataError: it was not asked yet.
        """
        return read_replies(self.folder / "replies" / self._place(arm, task, **at))

    def readings(self, arm: str, task: str, **at: Unpack[At]) -> list[Reading]:
        """The grade of every reply; arguments and errors as of `replies`."""
        return read_readings(self.folder / "readings" / self._place(arm, task, **at))

    def verdicts(self, arm: str, task: str, **at: Unpack[At]) -> list[Verdict]:
        """What the judge said of every reply; arguments and errors as of `replies`."""
        return read_verdicts(self.folder / "verdicts" / self._place(arm, task, **at))

    def curve(self, arm: str, task: str) -> list[CurvePoint]:
        """An arm's figure over training; see `Results.curve`."""
        return self.results.curve(arm, task)

    def frontier(self) -> list[FrontierPoint]:
        """What every model gained and lost; see `Results.frontier`."""
        return self.results.frontier()

    def watch(self) -> None:
        """Print how far the run is, with losses and readings so far; changes nothing."""
        from holdfast.report.watching import shown_until_it_ends

        shown_until_it_ends(self.folder, once=True)

    def write_report(self, replies: int = 0) -> Path:
        """Write the report again, by default without any model output; returns its page.

        Args:
            replies: show those to so many items of each task, what changed sides first; they are
            hidden until somebody asks for them.
        """
        return render(self.folder, replies)[1]

    def _repr_html_(self) -> str:
        """The results as a table, in a notebook."""
        return self.results._repr_html_()

    def _place(self, arm: str, task: str, **at: Unpack[At]) -> str:
        seed, step, scale = at.get("seed"), at.get("step"), at.get("scale")
        _known(arm, [BASE, *self.plan.arms], "arm")
        _known(task, list(self.plan.tasks), "task")
        seeds, places = self.plan.seeds(arm), self.plan.places(arm)
        last = places[-1][0] if step is None else step
        scales = [own for at, own in places if at == last]
        own = scale if scale is not None else 1.0 if 1.0 in scales or not scales else scales[-1]
        point = Point(arm, seeds[0] if seed is None else seed, last, own)
        if point.seed not in seeds or (point.step, point.scale) not in places:
            measured = ", ".join(dict.fromkeys(f"step {at}" for at, _ in places))
            raise UsageError(
                f"{arm} is not measured at {point}",
                where=str(self.folder),
                remedy=f"it is at {measured}; seeds {', '.join(map(str, seeds))}; scales "
                f"{', '.join(f'{one:g}' for one in dict.fromkeys(own for _, own in places))}",
            )
        return place(point, task)


def _known(name: str, names: Sequence[str], kind: str) -> None:
    if name not in names:
        raise UsageError(
            f"no {kind} is called {name!r}{nearest(name, names)}",
            remedy=f"there are: {', '.join(names)}",
        )


def open_run(folder: str | Path) -> Run:
    """Open a run folder.

    Args:
        folder: that `holdfast run`, `compare` or `demo` printed.

    Raises:
        FolderError: no run folder, one of another format, or one whose plan is missing or torn.
    """
    place = Path(folder).expanduser()
    return Run(place, read_plan(place))


def read_results(folder: Path) -> Results:
    """The results of a finished run; reads ``stats/results.json`` alone.

    Raises:
        FolderError: not a run folder, or a run that has no results yet.
    """
    run_folder.check_run(folder, must_exist=True)
    finished = folder / "stats" / "results.json"
    if not finished.is_file() and records.read(finished.parent) is None:
        raise FolderError(
            "has no results yet", where=str(folder), remedy="finish it with `holdfast run`"
        )
    records.finished(finished.parent)  # results without a record are nobody's
    try:
        return from_json(store.read_json(finished))
    except Damaged:
        raise
    except DataError as error:
        remedy = records.again(finished.parent)
        raise Damaged(error.message, where=str(finished), remedy=remedy) from error


def results_with_replies(folder: Path, replies: int = 0) -> Results:
    """The results of a finished run as its report shows them.

    Args:
        folder: the run folder.
        replies: show those to so many items of each task, what changed sides first; they are
            hidden until somebody asks for them.

    Raises:
        FolderError: see `read_results`; with `replies`, see `read_plan` too.
    """
    results = read_results(folder)
    if replies:
        results = replace(results, replies=tuple(replies_shown(read_plan(folder), replies)))
    if "files" not in (records.read(folder / "stats") or {}):
        results = replace(results, warnings=(*results.warnings, UNCHECKED))
    return results


def render(
    folder: Path, replies: int = 0, *, csv: bool = False, paper: bool = False
) -> tuple[Results, Path]:
    """Write the report of a finished run again; returns what it shows and its page.

    Args:
        folder: the run folder.
        replies: as of `results_with_replies`, and so are the errors.
        csv: write all figures as ``figures.csv`` too.
        paper: write tables and figures for a paper, in LaTeX, as ``paper/`` too.
    """
    results = results_with_replies(folder, replies)
    with stages.renewed(folder / "report"):
        page = write_report(results, folder / "report")
        if csv:
            export.write(page.parent, {"figures.csv": export.figures_csv(results)})
        if paper:
            export.write(page.parent, export.paper_files(results, export.draw(results)))
    return results, page
