"""The notebook runs from top to bottom, and its last cells show themselves as tables."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from fixtures.paths import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
SHOWN = ("results", "frame", "compared", "memory")
"""Ids of the cells whose value a notebook shows as HTML."""


def _cells() -> list[dict[str, object]]:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert isinstance(cells, list)
    return cells


def _source(cell: dict[str, object]) -> str:
    lines = cell["source"]
    assert isinstance(lines, list)
    return "".join(lines)


def _value(cell: dict[str, object], names: dict[str, object]) -> object:
    """Run a cell; what its last line is worth, as a notebook shows it."""
    name = f"cell {cell['id']}"
    tree = ast.parse(_source(cell), name)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), name, "eval"), names)


def test_it_is_a_notebook_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = _cells()
    assert len({str(cell["id"]) for cell in cells}) == len(cells), "ids are unique"
    for cell in cells:
        code = cell["cell_type"] == "code"
        keys = {"cell_type", "id", "metadata", "source"}
        assert set(cell) == (keys | {"execution_count", "outputs"} if code else keys)
        assert cell["cell_type"] in ("code", "markdown")
        assert cell.get("execution_count") is None and not cell.get("outputs"), cell["id"]


def test_its_links_lead_somewhere() -> None:
    text = "\n".join(_source(cell) for cell in _cells() if cell["cell_type"] == "markdown")
    assert "](../docs/python.md)" in text
    assert (NOTEBOOK.parent / "../docs/python.md").is_file()


def test_it_runs_and_shows_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    values = {str(c["id"]): _value(c, names) for c in _cells() if c["cell_type"] == "code"}
    shown = {name: value for name, value in values.items() if hasattr(value, "_repr_html_")}
    assert tuple(shown) == SHOWN
    assert list(values)[-2:] == list(SHOWN[-2:]), "the last cells"
    for name, value in shown.items():
        html = getattr(value, "_repr_html_")()  # noqa: B009
        assert html.lstrip().startswith(("<div", "<pre")), name
    assert (tmp_path / "runs/quickstart/report/index.html").is_file()
