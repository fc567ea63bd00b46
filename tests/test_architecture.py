"""The house keeps its shape: layers, no circles, light imports, limits of size and number."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.imports import LAYERS, Module, Source

import holdfast
from benchmarks.structure import PASSED, Figure, Way, figures, followed
from holdfast.config import load, sweeps

SOURCE = Source()
MODULES = list(SOURCE.modules.values())
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "scipy",
         "httpx2", "tenacity", "lm_eval", "gguf", "pandas", "pyarrow", "tensorboard", "wandb",
         "mlflow", "trackio", "ray"}  # fmt: skip
"""What no module may import when it is imported itself."""
LATE = {
    f"holdfast.{name}"
    for name in (
        "engines.cohorts", "engines.generate", "engines.next_token", "engines.refilled",
        "memory.trace.allocation_tracker", "memory.trace.class_counter", "memory.trace.fake_model",
        "memory.trace.tracer",
        "train.objective", "train.trainer",
    )
}  # fmt: skip
"""Modules that need torch to be read; nothing else may import them at module level."""
PLUGINS = ("tasks", "judges", "methods", "engines")
"""Packages of plug-ins; a file of one that begins with `_` is shared by them."""
LIGHT = (
    "numpy",
    "pydantic",
    "yaml",
    "rich.console",
    "rich.progress",
    "typer",
    "jinja2",
    "filelock",
)
"""Other people's packages that the parent of the fresh interpreters has read already: they know
nothing of Holdfast, so a fork that finds them there is as fresh for Holdfast as any."""


def _name(module: Module) -> str:
    return module.name


def test_every_entry_has_a_layer() -> None:
    known = set.union(*LAYERS.values())
    assert {(*module.name.split("."), "")[1] for module in MODULES} <= known


def _package(folder: Path, files: dict[str, str]) -> Source:
    for name, text in files.items():
        path = folder / "holdfast" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for place in {folder / "holdfast", *(path.parent for path in folder.rglob("*.py"))}:
        (place / "__init__.py").touch()
    return Source(folder / "holdfast")


def test_a_circle_through_a_parent_package_is_seen(tmp_path: Path) -> None:
    found = _package(
        tmp_path,
        {
            "memory/shape.py": "from holdfast.models.files import read\n",
            "models/__init__.py": "from holdfast.memory import shape\n",
            "models/files.py": "read = open\n",
        },
    )
    assert found.circles() == [("holdfast.memory.shape", "holdfast.models")]
    assert found.upward() == [("holdfast.memory.shape", "holdfast.models.files")]


def test_imports_in_functions_and_for_types_are_seen(tmp_path: Path) -> None:
    found = _package(
        tmp_path,
        {
            "runs/store.py": "def late():\n    from holdfast import study\n",
            "runs/one.py": "from holdfast.runs.other import name\n",
            "runs/other.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from holdfast.runs.one import Kind\n",
            "study/__init__.py": "import holdfast.runs.store\n",
        },
    )
    assert found.circles() == []
    assert found.mutual() == [("holdfast.runs.one", "holdfast.runs.other")]
    assert found.upward() == [("holdfast.runs.store", "holdfast.study")]
    assert found.importers()["holdfast.runs.store"] == {"holdfast.study"}


SPEAKS_FOR = {
    f"holdfast.judges.{name}" for name in ("llamaguard", "qwen3guard", "strongreject", "yes_no")
}
"""Judges whose prompts and parsers `judges.remote` puts to a server: all that it is for."""


@pytest.mark.parametrize("family", PLUGINS)
def test_plugins_do_not_know_each_other(family: str) -> None:
    """What several of them use stands in a file that begins with `_`."""
    base = f"holdfast.{family}"
    plugins = {
        module.name
        for module in MODULES
        if module.package == base and not module.name.rpartition(".")[2].startswith("_")
        and not module.is_package and (family != "engines" or module.name in _registered(base))
    }  # fmt: skip
    assert plugins
    for name in plugins:
        others = plugins & SOURCE.named(SOURCE.modules[name], typing=True)
        others -= SPEAKS_FOR if name == "holdfast.judges.remote" else set()
        assert not others, f"{name} imports the plug-in {others}"


def _registered(package: str) -> set[str]:
    """The modules of the strings ``module:attribute`` in a package's registry."""
    values = (
        node.value
        for node in ast.walk(SOURCE.modules[package].tree)
        if isinstance(node, ast.Constant)
    )
    return {value.partition(":")[0] for value in values if isinstance(value, str) and ":" in value}


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_nothing_heavy_is_imported_at_module_level(module: Module) -> None:
    taken = {one.name.split(".")[0] for one in module.imports if not (one.late or one.typing)}
    late = LATE & SOURCE.named(module, late=False)
    assert module.name in LATE or not taken & HEAVY, f"{module.name} imports {taken & HEAVY}"
    assert module.name in LATE or not late, f"{module.name} imports {late}"


SHARED = "holdfast.endpoint"
"""Imported by the parent once each module that it runs was found to be importable first: the rest
cannot tell, and much of their time was spent on its study sections."""
FRESH = """
import importlib, os, sys, warnings
warnings.simplefilter("ignore")  # a fork beside torch's threads; the children only import
ahead, blocked, clean, shared, others = (line.split() for line in sys.stdin.read().split("\\n"))
failed = []

def ours():
    return {name for name in sys.modules if name.split(".")[0] == "holdfast"}

def each_in_a_process(names):
    running = 0
    for name in names:
        if running == os.cpu_count():
            failed.append(os.wait()[1])
            running -= 1
        running += 1
        if not os.fork():
            try:
                importlib.import_module(name)
            except BaseException as error:
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                os._exit(1)
            os._exit(0)
    failed.extend(os.wait()[1] for _ in range(running))

for name in ahead:
    importlib.import_module(name)
for name in blocked:
    assert name not in sys.modules, name
    sys.modules[name] = None
assert not ours()
each_in_a_process(clean)
for name in shared:
    importlib.import_module(name)
assert ours() <= set(clean), ours() - set(clean)
each_in_a_process(others)
assert len(failed) == len(clean) + len(others)
sys.exit(any(failed))
"""


@pytest.mark.parametrize("heavy", [False, True], ids=["light", "with torch"])
def test_every_module_can_be_imported_first(heavy: bool) -> None:
    """Each in a process of its own that has read nothing of Holdfast which could hide a circle.

    The light ones run where the heavy packages cannot be imported at all.
    """
    names = [
        module.name
        for module in MODULES
        if (module.name in LATE) == heavy and module.path.stem != "__main__"
    ]
    clean = names if heavy else sorted(SOURCE.closure(SHARED))
    given = (
        (*LIGHT, "torch", "transformers", "trl") if heavy else LIGHT,
        () if heavy else sorted(HEAVY),
        clean,
        () if heavy else (SHARED,),
        [name for name in names if name not in clean],
    )
    done = subprocess.run(
        [sys.executable, "-c", FRESH], input="\n".join(map(" ".join, given)),
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("figure", figures(SOURCE), ids=lambda figure: figure.name)
def test_limits_hold(figure: Figure) -> None:
    cases = "\n  ".join(figure.cases)
    assert figure.kept, f"{figure.value:g} > {figure.limit:g}: {figure.meaning}\n  {cases}"


def test_the_way_of_a_study_is_seen() -> None:
    with Way(SOURCE) as way:
        study = load.load({"name": "s", "model": "lab", "tasks": {"lab_math": {"role": "target"}}})
        assert sweeps.settings_of({"lr": 1}) == ["learning_rate"], "holds no study"
        assert way.modules == ["holdfast.config.study", "holdfast.config.load"]
        sweeps.expand(study)
    sweeps.expand(study)
    assert way.modules == [
        "holdfast.config.study", "holdfast.config.load", "holdfast.config.sweeps",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_study_passes_few_modules() -> None:
    passed = followed(SOURCE)
    assert len(passed) <= PASSED, passed


def test_one_trainer_subclass_at_most() -> None:
    """Terms of a loss compose; only a method of its own file may bring another trainer."""
    found = [
        module.name
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        and any("Trainer" in ast.unparse(base) and "Callback" not in ast.unparse(base)
                for base in node.bases)
    ]  # fmt: skip
    methods = [name for name in found if name.startswith("holdfast.methods.")]
    assert len(found) - len(methods) <= 1, found
    assert len(set(methods)) == len(methods), methods


def test_public_names_are_what_is_importable() -> None:
    assert sorted(holdfast.__all__) == holdfast.__all__
    for name in holdfast.__all__:
        assert getattr(holdfast, name) is not None
    with pytest.raises(AttributeError):
        holdfast.nothing  # noqa: B018


@pytest.mark.parametrize("arguments", [["--help"], ["schema"], ["init", "{}/s.yaml"]])
def test_the_front_door_needs_no_torch(arguments: list[str], tmp_path: Path) -> None:
    arguments = [word.format(tmp_path) for word in arguments]
    code = (
        "import sys\nfrom holdfast.cli import call\n"
        f"code = call({arguments!r})\n"
        "assert code == 0, code\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
