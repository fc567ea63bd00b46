"""Shared fixtures: a tiny random model with the lab's tokenizer, and the real data where it is."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
from fixtures.real import smollm2_file
from fixtures.study import SMALL, run_study, write_study
from fixtures.tiny_model import make_model
from hypothesis import HealthCheck, settings

from holdfast.memory.planner import pace

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: one thread for each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything is collected: the hub's client reads it once
os.environ["HOLDFAST_LANG"] = "en"  # whoever runs the tests, wherever
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="holdfast-state-")  # consent of tests alone

# `make test` tries a tenth of what `make test-all` does, always the same ones; no deadline, since
# a busy machine is no fault.
_SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile(
    "fast", max_examples=100, deadline=None, derandomize=True, suppress_health_check=_SLOW
)
settings.register_profile("thorough", max_examples=1000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("fast")

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: what is begun last keeps one core busy alone."""
    items.sort(key=lambda item: item.get_closest_marker("wheel") is None)


@pytest.fixture(scope="session", autouse=True)
def _offline_and_quiet() -> None:
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["TQDM_DISABLE"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job ignores it,
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and so would every child


@pytest.fixture(scope="session")
def _paces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paces") / "pace.jsonl"


@pytest.fixture(autouse=True)
def _no_training_was_recorded(_paces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan's speeds rest on no training of another test, nor of this machine."""
    _paces.unlink(missing_ok=True)
    monkeypatch.setattr(pace, "file", lambda: _paces)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a randomly initialised Llama of 2 layers and the lab's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-model")
    make_model(folder)
    return folder


@pytest.fixture(scope="session")
def small_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished study with two seeds; a test that changes it copies it."""
    folder = tmp_path_factory.mktemp("small-run")
    run_study(write_study(folder, tiny_model, **SMALL), folder / "runs")
    return folder / "runs" / "s"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A folder with SmolLM2-135M-Instruct, for tests marked `real`; they are skipped without it."""
    return smollm2_file("smollm2")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file that the folder `smollm2` was made of (Q4_1)."""
    return smollm2_file("smollm2.gguf")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with data nobody here wrote; the test is skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data in {SHARED.name} beside the checkout")
    return SHARED
