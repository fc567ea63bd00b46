"""Writes a report: one page, one markdown file and the data behind both."""

from __future__ import annotations

import json
from pathlib import Path

from holdfast.analysis.results import Results, to_json
from holdfast.report import markdown
from holdfast.report.html import page
from holdfast.runs.store import write_text


def write_report(results: Results, folder: Path) -> Path:
    """Write `results.json`, `report.md` and `index.html` into `folder`, each atomically.

    Args:
        results: what the study found.
        folder: made if it does not exist; older files of these names are replaced.

    Returns:
        The path of `index.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    index = folder / "index.html"
    data = json.dumps(to_json(results), indent=1, ensure_ascii=False) + "\n"
    for path, text in (
        (folder / "results.json", data),
        (folder / "report.md", markdown.write(results)),
        (index, page.render(results)),  # last: where there is a page, there is all of it
    ):
        # A model may write half of a surrogate pair, which UTF-8 cannot hold; spell it out.
        write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return index
