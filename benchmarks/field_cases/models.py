"""Folders of models and adapters that are broken: refused before anything is loaded or written."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from fixtures.broken_models import ADAPTERS, MODELS, Break
from fixtures.tiny_model import make_adapter, make_model

from benchmarks.field_cases import Case
from holdfast import comparison, study
from holdfast.comparison.request import Request
from holdfast.progress import Silent

LOADED = "holdfast.models.load_model"
STUDY: dict[str, Any] = {
    "name": "s", "tasks": {"lab_math": {"role": "target", "items": 2, "train_items": 4}},
    "train": {"max_steps": 1, "checkpoints": 1, "optim": "adamw_torch"},
    "arms": {"sft": {}}, "hardware": {"device": "cpu"},
}  # fmt: skip


def own() -> Iterator[Case]:
    """Folders that the project's own tests break."""
    for name, change, *_ in MODELS:
        yield Case("broken models", name, _model(change), must_be_refused=True)
    for name, change, *_ in ADAPTERS:
        yield Case("broken adapters", name, adapter(change), must_be_refused=True)


@cache
def _sound() -> Path:
    """A folder with a sound model and a sound adapter."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-cases-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    make_model(folder / "model")
    make_adapter(folder / "model", folder / "lora")
    return folder


def unloaded(ask: Callable[[], object], run_folder: Path) -> str | None:
    """Whether something was written although nothing can come of it; weights are never loaded."""
    with mock.patch(LOADED, side_effect=AssertionError("weights were loaded")):
        try:
            ask()
        finally:
            left = run_folder.exists()
        return "wrote a run folder" if left else None


def _model(change: Break) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        folder = Path(shutil.copytree(_sound() / "model", scratch / "model"))
        change(folder)
        asked = {**STUDY, "model": str(folder)}
        return unloaded(lambda: study.run(asked, scratch / "run", Silent()), scratch / "run")

    return run


def adapter(change: Break) -> Callable[[Path], str | None]:
    """A case: an adapter changed like this is refused."""

    def run(scratch: Path) -> str | None:
        folder = Path(shutil.copytree(_sound() / "lora", scratch / "lora"))
        change(folder)
        asked = Request((str(_sound() / "model"), str(folder)), ("lab_math",), limit=2)
        runs = scratch / "runs"
        return unloaded(lambda: comparison.run(asked, runs, Silent()), runs)

    return run


def given(folder: Path) -> Iterator[Case]:
    """The folder has none of its own."""
    return iter(())
