"""Charts and figures as files: pictures that stand alone, data that opens anywhere."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fixtures.report import build

from holdfast.report import export
from holdfast.report.write import write_report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(build(), tmp_path_factory.mktemp("report")).parent


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_chart_of_the_page_is_a_picture_with_its_data(folder: Path) -> None:
    page = (folder / "index.html").read_text()
    pictures = sorted((folder / "charts").glob("*.svg"))
    shown = page.count('<svg class="chart') - page.count('<svg class="chart narrow')
    assert len(pictures) == shown > 30
    for picture in pictures:
        root = ElementTree.fromstring(picture.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in picture.read_text(), "not every reader knows variables"
        data = rows(picture.with_suffix(".csv").read_text())
        assert data and "arm" in data[0]


def test_the_data_are_those_of_the_results(folder: Path) -> None:
    cell = build().cell("sft", 96, "hazards")
    found = rows((folder / "charts" / "course-hazards-sft.csv").read_text())
    at = next(row for row in found if row["step"] == "96")
    assert float(at["value"]) == pytest.approx(1 - (cell.score.mean or 0))
    assert float(at["low"]) == pytest.approx(1 - (cell.score.high or 0))
    groups = rows((folder / "charts" / "groups-hazards-sft.csv").read_text())
    losses = [float(row["value"]) - float(row["base"]) for row in groups]
    assert len(groups) == 6 and max(losses) > 0.4


def test_all_figures_are_one_table() -> None:
    found = rows(export.figures_csv(build()))
    assert len(found) == len(build().cells)
    assert list(found[0]) == list(build().rows()[0])
    assert export.figures_csv(replace(build(), cells=())) == "\n"


def test_no_spreadsheet_takes_a_name_for_a_formula() -> None:
    arms = tuple(replace(arm, name="=cmd()" if arm.name == "sft" else arm.name)
                 for arm in build().arms)  # fmt: skip
    cells = tuple(replace(cell, arm="=cmd()" if cell.arm == "sft" else cell.arm)
                  for cell in build().cells)  # fmt: skip
    results = replace(build(), arms=arms, cells=cells)
    assert not re.search(r"(^|,)=", export.figures_csv(results), re.MULTILINE)
    files = export.chart_files(export.draw(results), "")
    assert "charts/course-hazards-cmd.csv" in files, "and a name is no path"
    assert all("'=cmd()" in text for name, text in files.items() if name.endswith("cmd.csv"))


def test_names_that_differ_by_what_no_file_may_have_keep_files_of_their_own() -> None:
    names = {"sft": "a/b", "replay": "a:b"}
    arms = tuple(replace(arm, name=names.get(arm.name, arm.name)) for arm in build().arms)
    cells = tuple(replace(cell, arm=names.get(cell.arm, cell.arm)) for cell in build().cells)
    drawn = export.draw(replace(build(), arms=arms, cells=cells))
    files = export.chart_files(drawn, "")
    assert len(files) == 2 * len(drawn.charts)
    assert {"charts/course-hazards-a-b.svg", "charts/course-hazards-a-b-2.svg"} <= set(files)


def test_tables_for_a_paper_are_escaped_and_whole() -> None:
    bad = r"50% & a_b #1 \x {$}"
    tasks = (replace(build().tasks[0], name=bad), *build().tasks[1:])
    cells = tuple(
        replace(cell, task=bad) if cell.task == build().tasks[0].name else cell
        for cell in build().cells
    )
    results = replace(build(), tasks=tasks, cells=cells)
    files = export.paper_files(results, export.draw(results))
    assert {"paper/final.tex", "paper/flips.tex", "paper/trade-off.tex"} <= set(files)
    for text in files.values():
        body = re.sub(r"(?m)^%.*$", "", text)
        bare = re.sub(r"\\(?:[a-zA-Z]+|.)", "", body)
        assert bare.count("{") == bare.count("}")
        assert body.count("\\begin{") == body.count("\\end{")
    table = files["paper/final.tex"]
    assert r"50\% \& a\_b \#1 \textbackslash{}x \{\$\}" in table
    widths = {line.count(" & ") for line in table.splitlines() if line.endswith(r"\\")}
    assert widths == {2 * len(results.tasks)}
    assert "\\textit{hazards}" in files["paper/flips.tex"]
    course = files["paper/course-hazards.tex"]
    assert "ylabel={hazards}" in course and "% hazards: unsafe rate by judge" in course


def test_a_table_for_a_paper_is_no_wider_than_three_tasks() -> None:
    base = build()
    names = [f"task{number}" for number in range(4)]
    results = replace(
        base, tasks=tuple(replace(base.tasks[1], name=name) for name in names), noise=(),
        cells=tuple(replace(one, task=name) for one in base.cells if one.task == "hazards"
                    for name in names),
    )  # fmt: skip
    table = export.paper_files(results, export.draw(results))["paper/final.tex"]
    widths = [line.count(" & ") for line in table.splitlines() if line.endswith(r"\\")]
    assert set(widths) == {6, 2} and table.count("\\begin{tabular}") == 2
    assert table.count("replay & ") == 2, "every arm in both"


def test_a_paper_takes_the_files_in(tmp_path: Path) -> None:
    latex = shutil.which("pdflatex")
    if latex is None:
        pytest.skip("pdflatex is not installed")
    files = export.paper_files(build(), export.draw(build()))
    export.write(tmp_path, files)
    inputs = "\n\n".join(f"\\resizebox{{10cm}}{{!}}{{\\input{{{name}}}}}" for name in files)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage{booktabs,graphicx,xcolor}"
        f"\\usepackage{{pgfplots}}\\pgfplotsset{{compat=1.16}}\\begin{{document}}{inputs}"
        "\\end{document}"
    )
    done = subprocess.run(
        [latex, "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
