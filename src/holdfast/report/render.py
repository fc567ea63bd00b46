"""How is the report of a finished run made again?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from holdfast.analysis.results import Results, from_json
from holdfast.errors import FolderError
from holdfast.report.write import write_report
from holdfast.runs import store


def render(folder: Path, replies: int = 0) -> tuple[Results, Path]:
    """Write the report of a run folder again, by default without any model output.

    Args:
        folder: the run folder.
        replies: show the first so many replies per arm and task, folded away and escaped.

    Raises:
        FolderError: not a run folder, or a run that has no results yet.
    """
    store.check_run(folder, must_exist=True)
    finished = folder / "stats" / "results.json"
    if not finished.is_file():
        raise FolderError(
            "has no results yet", where=str(folder), remedy="finish it with `holdfast run`"
        )
    results = from_json(store.read_json(finished))
    if replies:
        from holdfast import compare
        from holdfast import study as studies
        from holdfast.analysis.collect import replies_shown
        from holdfast.config import load

        source = folder / "study.yaml"
        if (folder / compare.REQUEST).is_file():
            plan = compare.reopen(folder).plan
        else:
            plan = studies.plan(load.load(source), folder, str(source))
        results = replace(results, replies=tuple(replies_shown(plan, replies)))
    return results, write_report(results, folder / "report")
