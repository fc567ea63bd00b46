"""Makes the report of a finished run again, from its run folder alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from holdfast.analysis.collect import replies_shown
from holdfast.analysis.results import Results, from_json
from holdfast.errors import FolderError
from holdfast.report.write import write_report
from holdfast.runs import store
from holdfast.runs.plan import read_plan


def read_results(folder: Path) -> Results:
    """The results of a finished run.

    Raises:
        FolderError: not a run folder, or a run that has no results yet.
    """
    store.check_run(folder, must_exist=True)
    finished = folder / "stats" / "results.json"
    if not finished.is_file():
        raise FolderError(
            "has no results yet", where=str(folder), remedy="finish it with `holdfast run`"
        )
    return from_json(store.read_json(finished))


def render(folder: Path, replies: int = 0) -> tuple[Results, Path]:
    """Write the report of a run folder again, by default without any model output.

    Reads no data set and needs no model, no judge and no torch.

    Args:
        folder: the run folder.
        replies: show the first so many replies per arm and task, folded away and escaped.

    Raises:
        FolderError: not a run folder, or a run that has no results yet.
    """
    results = read_results(folder)
    if replies:
        results = replace(results, replies=tuple(replies_shown(read_plan(folder), replies)))
    return results, write_report(results, folder / "report")
