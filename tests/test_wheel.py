"""The built wheel works in an empty environment, demo and all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1500)]


def _do(*command: object, cwd: Path, timeout: int = 900) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(one) for one in command], cwd=cwd, timeout=timeout, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no leftovers of earlier builds get in."""
    folder = tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=unwanted)
    _do(sys.executable, "-m", "build", "--wheel", "--no-isolation", folder, cwd=folder)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `holdfast` command of a new environment that holds the wheel and its needs."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    pins = ROOT / "constraints.txt"
    _do(python, "-m", "pip", "install", "-q", "-c", pins, f"{wheel}[train]", cwd=folder)
    return folder / "env" / "bin" / "holdfast"


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    """Recipes, templates, weights and catalogues too: pyproject.toml must name their folders."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        size = sum(file.file_size for file in archive.infolist() if "lab/model/" in file.filename)
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file())
    wanted = {
        str(path.relative_to(ROOT / "src"))
        for path in files
        if path.suffix != ".pyc" and ".egg-info" not in str(path)
    }
    assert {"holdfast/lab/model/model.safetensors", "holdfast/py.typed"} <= wanted
    assert wanted <= names, wanted - names
    assert size <= 8 * 2**20


def _demo(command: Path, folder: Path, *options: str) -> tuple[float, dict[str, object]]:
    started = time.monotonic()
    done = _do(command, "demo", *options, "--json", cwd=folder, timeout=1200)
    seconds = time.monotonic() - started
    results = json.loads(done.stdout.strip().splitlines()[-1])
    assert (folder / results["report"]).is_file()
    return seconds, results


def test_the_quick_demo_runs_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    seconds, results = _demo(installed, tmp_path, "--quick")
    assert {arm["name"] for arm in results["arms"]} == {"base", "sft", "replay", "self"}  # type: ignore[index, union-attr, attr-defined]
    # one thread beside another worker: three minutes were seen; the goal on two idle cores is one
    assert seconds < 600, f"{seconds:.0f} s"
    again, _ = _demo(installed, tmp_path, "--quick")
    assert again < 10


@pytest.mark.slow
def test_the_whole_demo_runs_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    _, results = _demo(installed, tmp_path)
    assert "lab_math" in str(results["verdict"])
