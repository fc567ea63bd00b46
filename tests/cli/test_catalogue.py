"""Every plug-in and recipe has a line and a page that says what it is, where from, and its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import cli, judges, methods, tasks
from holdfast.cli import catalogue
from holdfast.config.recipes import recipes
from holdfast.registry import Registry

REGISTRIES: list[Registry[Any]] = [tasks.REGISTRY, methods.REGISTRY, judges.REGISTRY]
EVERY = [(registry, name) for registry in REGISTRIES for name in registry.names()]
OURS = {
    "sample",
    "jsonl",
    "text",
    "lab_math",
    "lab_refuse",
    "lab_help",
    "lab_start",
    "refusal",
    "remote",
    "ensemble",
}
"""What comes from no paper."""


def _call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.call(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.mark.parametrize(("registry", "name"), EVERY, ids=lambda value: str(value)[:12])
def test_each_says_what_it_is_and_where_it_is_from(registry: Registry[Any], name: str) -> None:
    found = catalogue.entry(registry, name)
    assert found.purpose.endswith(".") and len(found.purpose) < 130
    assert (found.source == "Holdfast's own") == (name in OURS)
    assert name in OURS or "arXiv:" in found.source or "doi:" in found.source
    options = registry.find(name).make.Options
    assert set(found.settings) == set(options.model_fields)
    for key, setting in found.settings.items():
        assert setting.meaning, key
        assert (setting.default == "") == options.model_fields[key].is_required()


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("kind", ["tasks", "methods", "judges", "recipes"])
def test_lists_fit_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = _call(capsys, kind)
    assert code == 0
    assert max(map(len, out.splitlines())) <= min(columns, catalogue.WIDEST)
    registries = {registry.kind: registry.names() for registry in REGISTRIES}
    for name in registries.get(kind) or recipes():
        assert f"  {name} " in out


def test_a_page_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "methods", "kl")
    assert code == 0 and out.startswith("kl: KL to the base")
    assert "arms: {mine: {loss: [{kl: {...}}]}}" in out and "docs/methods/kl.md" in out
    assert "  weight [1.0]\n" in out
    code, out, _ = _call(capsys, "tasks", "jsonl")
    assert (
        "  path (required)\n" in out and "Every task takes:" in out and "  limit [left out]" in out
    )
    code, out, _ = _call(capsys, "judges", "qwen3guard")
    assert code == 0 and "arXiv:2510.14276" in out
    code, out, _ = _call(capsys, "recipes", "lab")
    assert out.rstrip() == recipes()["lab"].read_text("utf-8").rstrip()
    for kind in ("methods", "tasks", "judges", "recipes"):
        code, out, err = _call(capsys, kind, "nothing-such")
        assert (code, out) == (3, "") and "\u2192" in err


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = _call(capsys, "methods", "--json")
    found = json.loads(out)
    assert found["kl"]["settings"]["weight"]["default"] == "1.0"
    assert found["replay"]["group"] == "data"
    _, out, _ = _call(capsys, "tasks", "jsonl", "--json")
    assert json.loads(out)["jsonl"]["settings"]["path"]["default"] == ""


def test_a_file_of_ones_own_has_a_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.call(["new-method", "mine_so", "--list", "weights"]) == 0
    capsys.readouterr()
    code, out, _ = _call(capsys, "methods", "mine_so.py:MineSo")
    assert code == 0 and "a file of your own" in out and "share [0.5]" in out


def test_pages_that_are_named_are_there() -> None:
    root = Path(__file__).parents[2]
    for kind, registry in (("methods", methods.REGISTRY), ("tasks", tasks.REGISTRY)):
        for name in registry.known:
            there = (root / "docs" / kind / f"{name}.md").exists()
            assert there == (not name.startswith("lab_")), name
