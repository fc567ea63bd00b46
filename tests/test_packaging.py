"""pyproject.toml and its pins agree, and no text offers a package that is not on the index."""

from __future__ import annotations

import re
import tomllib

import pytest
from fixtures.paths import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIME = [
    Requirement(line)
    for line in (
        *PROJECT["dependencies"],
        *(line for name, lines in EXTRAS.items() if name != "dev" for line in lines),
    )
    if not line.startswith("holdfast")
]
TEXTS = [
    path
    for folder in ("src", "docs", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".j2", ".yaml", ".ipynb")
]


def _pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(package): Version(version) for package, version in pairs}


@pytest.mark.parametrize("requirement", RUNTIME, ids=lambda requirement: requirement.name)
def test_floors_and_caps_are_those_that_are_tested(requirement: Requirement) -> None:
    bounds = {one.operator: Version(one.version) for one in requirement.specifier}
    name = canonicalize_name(requirement.name)
    assert set(bounds) == {">=", "<"}, "a floor that was tested and a cap"
    oldest, pinned = _pins("constraints-oldest.txt")[name], _pins("constraints.txt")[name]
    assert oldest == bounds[">="]
    assert oldest <= pinned
    assert bounds["<"] == Version(str(pinned.major + 1)), "the next major version"


def test_nothing_else_is_pinned_as_oldest() -> None:
    names = {canonicalize_name(requirement.name) for requirement in RUNTIME}
    assert set(_pins("constraints-oldest.txt")) == names


def test_all_is_every_extra_that_is_for_users() -> None:
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras == set(EXTRAS) - {"all", "dev"}


def test_what_says_which_python_is_true() -> None:
    floor = PROJECT["requires-python"].removeprefix(">=")
    named = [one for one in PROJECT["classifiers"] if "Python :: 3." in one]
    assert f"Programming Language :: Python :: {floor}" in named
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (ROOT / "src" / "holdfast" / "py.typed").is_file()


def test_no_text_installs_holdfast_from_the_index() -> None:
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *TEXTS]
    offer = re.compile(r"pip install[^`\n]*\bholdfast\b")
    assert [path.name for path in texts if offer.search(path.read_text("utf-8"))] == []


def test_whatever_is_carried_from_others_is_named_with_its_licence() -> None:
    """Every judge that quotes a prompt or a format, by its file; and no file that is gone."""
    assert "NOTICE" in PROJECT["license-files"]
    notice = (ROOT / "NOTICE").read_text("utf-8")
    package = ROOT / "src" / "holdfast"
    published = {
        f"judges/{path.name}"
        for path in (package / "judges").glob("*.py")
        if re.search(r"arXiv:|^PROMPTS?\b|model card", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(published) >= 7
    assert {name for name in published if name not in notice} == set()
    named = set(re.findall(r"(?<![\w/])(?:judges|tasks|methods|memory)/[\w/]+\.\w+", notice))
    assert {name for name in named if not (package / name).is_file()} == set()
    tests = set(re.findall(r"\btests/[\w/]+\.\w+", notice))
    assert {name for name in tests if not (ROOT / name).is_file()} == set()


def test_every_source_has_its_licence_and_says_whether_it_was_read() -> None:
    """A part without a word on where the licence was read would pass for one that was."""
    notice = (ROOT / "NOTICE").read_text("utf-8")
    parts = [part for part in notice.split("\n\n") if "\n  Used in:" in part]
    assert len(parts) >= 11
    for part in parts:
        assert "\n  Source: " in part and "\n  Licence:" in part, part
        assert "\n  Read: " in part or "not read" in part, part
    assert "MIT" not in notice or "Permission is hereby granted" in notice
