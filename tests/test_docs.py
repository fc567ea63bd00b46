"""The pages say what is true: commands and files exist, studies load, links lead on."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml
from fixtures.imports import Source

from holdfast.cli import app
from holdfast.config import Study
from holdfast.config.load import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCE = Source()
TODAY = [page for page in PAGES if page.name != "log.md" and page.parent.name != "adr"]
"""Without history, which keeps the names of its day."""
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", TODAY, ids=_name)
def test_files_and_modules_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for path in re.findall(r"`(?:python )?((?:src|tests|benchmarks|examples)/[\w/.-]+)", text):
        assert (ROOT / path).exists(), path
    for name in set(re.findall(r"\bholdfast(?:\.[a-z_]\w*)+", text)):
        assert _is_there(name), name
    for module, names in re.findall(r"^from (holdfast[\w.]*) import ([\w, ]+)$", text, re.M):
        for name in names.split(","):
            assert _is_there(f"{module}.{name.strip()}"), f"from {module} import {name}"


def _is_there(name: str) -> bool:
    """Whether a dotted name is a module, or what a module holds."""
    module, rest = name, []
    while not (found := SOURCE.modules.get(module)):
        module, _, last = module.rpartition(".")
        rest.insert(0, last)
    return not rest or hasattr(import_module(found.name), rest[0])


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    options = {
        name: {"--help", *(option for one in command.params for option in one.opts)}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    if page.name == "cli.md":
        assert set(re.findall(r"^## `holdfast (\w+)`", page.read_text("utf-8"), re.M)) == set(
            options
        )
        return
    text = page.read_text("utf-8")
    blocks = "\n".join(body for kind, body in FENCE.findall(text) if kind in ("bash", "sh"))
    for line in re.findall(r"^holdfast .*$", blocks, re.M) + re.findall(
        r"`(holdfast [^`]+)`", text
    ):
        words = shlex.split(line.split("#")[0])[1:]
        if not words or words[0].isupper() or words[0] == "--help":
            continue
        assert words[0] in options, line
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options[words[0]], line


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_studies_load(page: Path) -> None:
    for kind, body in FENCE.findall(page.read_text("utf-8")):
        if kind == "yaml" and "\nmodel:" in body and "\narms:" in body:
            assert parse(Study, yaml.safe_load(body), _name(page)).arms


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        asked = re.findall(r"^make ([\w-]+)", page.read_text("utf-8"), re.M)
        assert asked
        assert set(asked) <= targets


def test_benchmarks_are_described() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    for script in (ROOT / "benchmarks").glob("*.py"):
        assert f"benchmarks/{script.name}" in page, script.name


@pytest.mark.parametrize(
    "name", ["gsm8k", "ailuminate", "xstest", "overrefusal", "gsm_danger", "jsonl"]
)
def test_the_pages_of_tasks_say_what_the_ids_are(name: str) -> None:
    page = (ROOT / "docs" / "tasks" / f"{name}.md").read_text("utf-8")
    assert len(re.findall(r"^Ids are .*\.$", page, re.M)) == 1
