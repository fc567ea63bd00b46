"""The pages say what is true: commands and files exist, studies load, links lead on."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml
from fixtures.imports import Source

import holdfast
from holdfast import methods
from holdfast.cli import app, language_of
from holdfast.config import ArmSpec, Study
from holdfast.config.load import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCE = Source()
TODAY = [page for page in PAGES if page.name != "log.md" and page.parent.name != "adr"]
"""Without history, which keeps the names of its day."""
FENCE = re.compile(r"(?:^([^\n`][^\n]*)\n\n?)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KINDS = {"", "bash", "json", "python", "text", "toml", "yaml"}
ELSEWHERE = {
    "docs/plugins.md": "tests/test_plugins.py",
    "docs/tasks/your-own.md": "tests/tasks/test_your_own.py",
}
"""Pages whose blocks are files that belong together, and the test that writes and runs them."""
NOT_RUN: list[str] = []
"""Python blocks that cannot run here, as ``page: why``; in the page: ``<!-- not run: why -->``."""
LISTS = ("data", "loss", "weights", "ask")


class Block(NamedTuple):
    """A block of a page."""

    before: str  # the line of text that it follows, or ""
    kind: str
    body: str

    @property
    def skipped(self) -> str:
        """Why it cannot run here; "" where it can."""
        found = re.fullmatch(r"<!-- not run: (.+) -->", self.before)
        return found[1] if found else ""

    @property
    def file(self) -> str:
        """The file that the reader is told to put it in, or ""."""
        found = re.search(r"`([\w.-]+\.\w+)`:$", self.before)
        return found[1] if found else ""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _blocks(page: Path, kind: str) -> list[Block]:
    found = [Block(*groups) for groups in FENCE.findall(page.read_text("utf-8"))]
    return [block for block in found if block.kind == kind]


RUN_HERE = [page for page in PAGES if _blocks(page, "python") and _name(page) not in ELSEWHERE]


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
        name: {"--help", "--lang", *(option for one in command.params for option in one.opts)}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    if page.name == "cli.md":
        assert set(re.findall(r"^## `holdfast ([\w-]+)`", page.read_text("utf-8"), re.M)) == set(
            options
        )
        return
    for line in re.findall(r"`(holdfast [^`]+)`", page.read_text("utf-8")):
        words = shlex.split(line.split("#")[0])[1:]
        if not words or words[0].isupper() or words[0] == "--help":
            continue
        assert words[0] in options, line
        for word in words[1:]:
            if word.startswith("--"):
                assert word.partition("=")[0] in options[words[0]], line


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_in_blocks_are_understood(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for block in _blocks(page, "bash"):
        for line in re.findall(r"^holdfast .*$", block.body, re.M):
            _, (_, command, *words) = language_of(shlex.split(line, comments=True))
            assert command in commands, line
            commands[command].make_context(command, words)  # an error where it is not understood


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_studies_load(page: Path) -> None:
    for block in _blocks(page, "yaml"):
        for part in _parts(block.body):
            study = _study(part, _name(page))
            if study is None:
                assert {"task", "dataset_path"} <= set(part) or set(part) == {"judge"}, part
                continue
            for arm in study.arms.values():
                for entry, step in [(key, step) for key in LISTS for step in getattr(arm, key)]:
                    for name, options in step.items():
                        if ":" not in name:  # a file of the reader's own
                            assert methods.build(name, options, _name(page), entry).recipe()


def _parts(body: str) -> Iterator[dict[str, object]]:
    """A block's mapping; where each line is another way to write one list, each line's."""
    lines = body.strip().splitlines()
    apart = all(line.startswith(tuple(f"{key}: " for key in LISTS)) for line in lines)
    for text in lines if apart else [body]:
        part = yaml.safe_load(text)
        assert isinstance(part, dict), text
        yield part


def _study(part: Mapping[str, object], page: str) -> Study | None:
    """A whole study as it is, a part of one with the rest put in its place; None: no study."""
    if set(part) <= set(LISTS):
        assert parse(ArmSpec, dict(part), page)
        part = {"arms": {"mine": part}}
    if not set(part) <= set(Study.model_fields):
        return None
    if {"model", "tasks"} <= set(part):
        return parse(Study, dict(part), page)
    tasks = part.get("tasks", {})
    assert isinstance(tasks, dict)
    if not any(task.get("role") == "target" for task in tasks.values()):
        tasks = {"standing_in": {"role": "target"}, **tasks}
    return parse(Study, {"name": "part", "model": "lab", **part, "tasks": tasks}, page)


@pytest.mark.parametrize("page", RUN_HERE, ids=_name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(_blocks(page, "python"), 1):
        if block.file:
            (tmp_path / block.file).write_text(block.body, encoding="utf-8")
        elif not block.skipped:
            exec(compile(block.body, f"{_name(page)}, python block {number}", "exec"), names)


def test_blocks_that_do_not_run_are_known() -> None:
    marked = [
        f"{_name(page)}: {block.skipped}"
        for page in PAGES
        for block in _blocks(page, "python")
        if block.skipped
    ]
    marks = [page for page in PAGES for _ in re.findall("<!-- not run", page.read_text("utf-8"))]
    assert marked == NOT_RUN and len(marks) == len(NOT_RUN)
    for page, test in ELSEWHERE.items():
        assert f"docs/{page.removeprefix('docs/')}" in (ROOT / test).read_text("utf-8"), test


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_are_of_a_known_kind(page: Path) -> None:
    text = page.read_text("utf-8")
    found = [Block(*groups) for groups in FENCE.findall(text)]
    assert 2 * len(found) == len(re.findall("^ *```", text, re.M)), "every fence is read"
    assert {block.kind for block in found} <= KINDS
    for block in found:
        if block.kind == "json":
            assert [json.loads(line) for line in block.body.splitlines()]
        if block.kind == "toml":
            assert tomllib.loads(block.body)


def test_every_public_name_is_at_work() -> None:
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    missing = [name for name in holdfast.__all__ if not re.search(rf"\bhf\.{name}\b", text)]
    assert not missing


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
