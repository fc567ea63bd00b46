"""Is everything that is wrong with a model or an adapter told before it is loaded, and where?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fixtures.broken_models import ADAPTERS, MODELS, Break
from fixtures.tiny_model import make_adapter

from holdfast import comparison, study
from holdfast.comparison.request import Request
from holdfast.errors import MissingDependency, UsageError
from holdfast.progress import Silent

TASKS = {"lab_math": {"role": "target", "items": 2, "train_items": 4}}
TRAIN = {"max_steps": 1, "checkpoints": 1, "optim": "adamw_torch"}


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def never(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("holdfast.models.load_model", never)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", never)


@pytest.fixture(scope="module")
def lora(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with random weights on the tiny model."""
    folder = tmp_path_factory.mktemp("adapter") / "lora"
    make_adapter(tiny_model, folder)
    return folder


def run_study(model: Path, folder: Path, **train: object) -> None:
    asked: dict[str, Any] = {
        "name": "s", "model": str(model), "tasks": TASKS, "train": {**TRAIN, **train},
        "arms": {"sft": {}}, "hardware": {"device": "cpu"},
    }  # fmt: skip
    study.run(asked, folder, Silent())


def check(error: BaseException, message: str, folder: Path, file: str) -> None:
    assert isinstance(error, UsageError | MissingDependency), repr(error)
    assert error.exit_code == 3
    assert message in error.message, str(error)
    assert str(folder / file).rstrip("/") in str(error), str(error)
    assert error.remedy, str(error)


@pytest.mark.parametrize(
    ("change", "message", "file"), [pytest.param(*one[1:], id=one[0]) for one in MODELS]
)
def test_a_broken_model_is_refused_before_anything(
    change: Break, message: str, file: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    change(folder)
    with pytest.raises((UsageError, MissingDependency)) as caught:
        run_study(folder, tmp_path / "run")
    check(caught.value, message, folder, file)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message", "file"), [pytest.param(*one[1:], id=one[0]) for one in ADAPTERS]
)
def test_a_broken_adapter_is_refused_before_anything(
    change: Break, message: str, file: str, lora: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(lora, tmp_path / "lora"))
    change(folder)
    asked = Request((str(tiny_model), str(folder)), ("lab_math",), limit=2)
    with pytest.raises((UsageError, MissingDependency)) as caught:
        comparison.run(asked, tmp_path / "runs", Silent())
    check(caught.value, message, folder, file)
    assert not (tmp_path / "runs").exists()
