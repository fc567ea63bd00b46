"""Does the house keep its shape: layers, no circles, no torch at the front door, small modules?"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

ROOT = Path(holdfast.__file__).parent
LAYERS = {
    0: {"types", "errors"},
    1: {"config", "endpoint", "environment", "memory", "progress", "registry", "runs"},
    2: {"data", "engines", "models"},
    3: {"grading", "judges", "lab", "methods", "tasks"},
    4: {"analysis", "report", "train"},
    5: {"compare", "ship", "study"},
    6: {"cli", "__main__", "__init__"},
}
LATE = {
    "engines.generate", "memory.trace.allocation_tracker", "memory.trace.fake_model",
    "memory.trace.tracer", "train.objective", "train.trainer",
}  # fmt: skip
"""Modules that need torch to be read; nothing may import them at module level."""
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "scipy",
         "httpx2", "tenacity", "lm_eval"}  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _layer(module: str) -> int:
    top = module.split(".")[0]
    return next(level for level, names in LAYERS.items() if top in names)


def _imports(path: Path, everywhere: bool) -> set[str]:
    """Modules imported at module level, or anywhere in the file; type-checking blocks left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if everywhere or not inner:
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(tree)
    return found


def _own(names: set[str]) -> set[str]:
    known = {_name(path) for path in MODULES}
    return {
        name.removeprefix("holdfast.")
        for name in names
        if name.startswith("holdfast.") and name.removeprefix("holdfast.") in known
    }


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_down(path: Path) -> None:
    mine = _layer(_name(path))
    higher = {one for one in _own(_imports(path, everywhere=True)) if _layer(one) > mine}
    assert not higher, f"{_name(path)} (layer {mine}) imports upward: {higher}"


def test_no_circles() -> None:
    graph = {_name(path): _own(_imports(path, everywhere=False)) for path in MODULES}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for one in graph[module] - {module}:
                walk(one, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_plugins_do_not_know_each_other() -> None:
    for family in ("tasks", "methods", "judges"):
        names = {f"{family}.{path.stem}" for path in (ROOT / family).glob("*.py")}
        shared = {name for name in names if name.partition(".")[2].startswith("_")}
        rubrics = {
            f"judges.{one}" for one in ("strongreject", "qwen3guard", "llamaguard", "yes_no")
        }
        for path in (ROOT / family).glob("*.py"):
            others = (names - shared - rubrics - {f"{family}.__init__", _name(path)}) & _own(
                _imports(path, everywhere=True)
            )
            assert not others, f"{_name(path)} imports the plug-in {others}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    found = _imports(path, everywhere=False)
    early = set() if _name(path) in LATE else _own(found) & LATE
    assert not early, f"{_name(path)} imports {early} at module level"
    tops = {name.split(".")[0] for name in found}
    assert _name(path) in LATE or not tops & HEAVY, f"{_name(path)} imports {tops & HEAVY}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_one_trainer_subclass_at_most() -> None:
    classes = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any(
                "Trainer" in ast.unparse(base) and "Callback" not in ast.unparse(base)
                for base in node.bases
            ):
                classes.append(node)
    assert len(classes) <= 1


def test_public_names_are_what_is_importable() -> None:
    assert sorted(holdfast.__all__) == holdfast.__all__
    assert len(holdfast.__all__) <= 15
    for name in holdfast.__all__:
        assert getattr(holdfast, name) is not None
    with pytest.raises(AttributeError):
        holdfast.nothing  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["schema"], ["init", "{}/s.yaml"]])
def test_the_front_door_needs_no_torch(arguments: list[str], tmp_path: Path) -> None:
    arguments = [one.format(tmp_path) for one in arguments]
    code = (
        "import sys\nfrom holdfast.cli import call\n"
        f"code = call({arguments!r})\n"
        "assert code == 0, code\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
