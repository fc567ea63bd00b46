"""Renders the published reports again, each from the results beside it: after the page has changed.

    python benchmarks/real/reports.py

No model is run and no figure computed. Of a report the page, its markdown and the results are
published; every chart of it as SVG and CSV is what `holdfast report RUN` writes beside it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from holdfast.analysis.results import Results, from_json
from holdfast.report.write import write_report
from holdfast.runs import store

RESULTS = Path(__file__).resolve().parent / "results"
PUBLISHED = ("results.json", "report.md", "index.html")


def publish(results: Results, into: Path) -> None:
    """Write what is published of a report."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        write_report(results, Path(name))
        for file in PUBLISHED:
            shutil.copyfile(Path(name) / file, into / file)


def main() -> None:
    """Every folder that has results."""
    for file in sorted(RESULTS.glob("*/results.json")):
        publish(from_json(store.read_json(file)), file.parent)
        print(file.parent)


if __name__ == "__main__":
    main()
