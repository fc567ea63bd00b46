"""Prints how the source is cut: sizes, importers, parameters, `Any`, circles, and a study's way.

The figures of the source are read without running it. The way of a study is followed: the lab's
model is trained for two steps and measured on a few items while every call of a function of
Holdfast is watched.

    python benchmarks/structure.py [--no-run] [--cases]
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import statistics
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fixtures.imports import Module, Source

MANY_PARAMETERS = 8
PASSED = 47
"""The most modules that a study may pass: as many as it does, so that they do not become more.
25 were the aim; the report alone gives its results to 20, one for each thing that it shows."""
OVERRIDES = (
    "name=structure", "tasks.lab_math.items=8", "tasks.lab_math.train_items=16",
    "tasks.lab_refuse.items=8", "tasks.lab_help.items=8", "train.max_steps=2",
    "train.checkpoints=1",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        name: short, unique.
        value: what was counted.
        limit: the most that is wanted; None where nothing is asked.
        meaning: what exactly was counted.
        cases: what makes the figure up, to be looked at.
    """

    name: str
    value: float
    limit: float | None
    meaning: str
    cases: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether the limit holds."""
        return self.limit is None or self.value <= self.limit


def figures(source: Source) -> list[Figure]:
    """Everything that can be read from the source without running it."""
    modules = list(source.modules.values())
    lines = sorted(module.lines for module in modules)
    entries = _entries(source)
    alone = sorted(
        f"{name} <- {next(iter(importers))}"
        for name, importers in source.importers().items()
        if len(importers) == 1
    )
    wide = [
        f"{module.name}.{function} ({count})"
        for module in modules
        for function, count in _parameters(module)
        if count >= MANY_PARAMETERS
    ]
    untyped = {module.name: _uses_of_any(module) for module in modules}
    by_use = sorted(untyped.items(), key=lambda pair: -pair[1])
    return [
        Figure("entries", len(entries), 24,
               "directly under src/holdfast: packages, and modules without __init__ and __main__",
               tuple(entries)),
        Figure("modules", len(modules), None, "Python files"),
        Figure("lines, median", statistics.median(lines), 150, "of all files"),
        Figure("lines, p90", lines[int(0.9 * (len(lines) - 1))], 300, "of all files"),
        Figure("lines, max", lines[-1], 400, "of all files"),
        Figure("one importer", len(alone), 40,
               "modules and packages that import statements of exactly one other module name, "
               "wherever they stand; names in registries and in strings are no imports",
               tuple(alone)),
        Figure("many parameters", len(wide), 3,
               f"functions with {MANY_PARAMETERS} or more, without self, cls, *args and **kwargs",
               tuple(wide)),
        Figure("Any", sum(untyped.values()), 350,
               "uses of the name, the import apart",
               tuple(f"{name} ({count})" for name, count in by_use if count)),
        Figure("circles", len(source.circles()), 0,
               "groups of modules that run each other when imported, through packages too",
               tuple(" <-> ".join(group) for group in source.circles())),
        Figure("mutual imports", len(source.mutual()), 0,
               "pairs of one package that name each other, in functions and for types too",
               tuple(f"{one} <-> {other}" for one, other in source.mutual())),
        Figure("upward imports", len(source.upward()), 0,
               "of a higher layer, in functions and for types too",
               tuple(f"{one} -> {other}" for one, other in source.upward())),
    ]  # fmt: skip


def _entries(source: Source) -> list[str]:
    return sorted(
        path.name
        for path in source.root.iterdir()
        if (path / "__init__.py").is_file()
        or (path.suffix == ".py" and path.stem not in ("__init__", "__main__"))
    )


def _parameters(module: Module) -> Iterator[tuple[str, int]]:
    """Each function of a module and how many parameters it has."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield node.name, sum(one.arg not in ("self", "cls") for one in given)


def _uses_of_any(module: Module) -> int:
    return sum(
        (isinstance(node, ast.Name) and node.id == "Any")
        or (isinstance(node, ast.Attribute) and node.attr == "Any")
        for node in ast.walk(module.tree)
    )


class Way:
    """The modules that a study passes, in the order of their first call.

    A module counts when one of its functions takes or returns the study: the `Study` itself, a
    dataclass one of whose fields is the study or such a dataclass (a plan, a session), or the
    `Results` made of it. Methods count by their `self` too.
    """

    def __init__(self, source: Source) -> None:
        """Watch nothing yet."""
        self.modules: list[str] = []
        self._names = {str(module.path): module.name for module in source.modules.values()}

    def __enter__(self) -> Way:
        """Begin to watch, in threads started from now on too."""
        from holdfast.analysis.results import Results
        from holdfast.config import Study

        self._kinds = (Study, Results)
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        sys.setprofile(None)
        threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, value: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or code.co_filename not in self._names:
            return
        name = self._names[code.co_filename]
        if name in self.modules or code.co_name.startswith("<"):
            return
        count = code.co_argcount + code.co_kwonlyargcount
        taken = [frame.f_locals.get(one) for one in code.co_varnames[:count]]
        if any(self._holds(each) for each in (taken if event == "call" else [value])):
            self.modules.append(name)

    def _holds(self, value: object, depth: int = 3) -> bool:
        if isinstance(value, self._kinds):
            return True
        if not depth or isinstance(value, type) or not dataclasses.is_dataclass(value):
            return False
        return any(
            self._holds(getattr(value, field.name, None), depth - 1)
            for field in dataclasses.fields(value)
        )


def followed(source: Source) -> list[str]:
    """The modules that the lab's study passes from `holdfast.load` to the written report."""
    import holdfast
    from holdfast.config.recipes import DEMO, recipe_file

    with tempfile.TemporaryDirectory() as runs, Way(source) as way:
        study = holdfast.load(recipe_file(DEMO), list(OVERRIDES))
        holdfast.run(study, Path(runs) / study.name, holdfast.Silent())
        assert (Path(runs) / study.name / "report" / "index.html").is_file()
    return way.modules


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-run", action="store_true", help="leave out a study's way")
    parser.add_argument("--cases", action="store_true", help="name what makes each figure up")
    chosen = parser.parse_args()
    source = Source()
    found = figures(source)
    if not chosen.no_run:
        warnings.simplefilter("ignore")
        way = followed(source)
        meaning = "with a function that takes or returns the study, a plan of it or its results"
        found.append(Figure("modules passed", len(way), PASSED, meaning, tuple(way)))
    for one in found:
        limit = "" if one.limit is None else f"<= {one.limit:g}"
        mark = "" if one.kept else "  TOO MANY"
        print(f"{one.name:<16} {one.value:>6g}  {limit:<7} {one.meaning}{mark}")
        if chosen.cases:
            for case in one.cases:
                print(f"    {case}")


if __name__ == "__main__":
    main()
