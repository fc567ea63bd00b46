"""One finished study, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.study import run_study, write_study


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran without interruption; a test that changes it puts it back."""
    folder = tmp_path_factory.mktemp("whole")
    run_study(write_study(folder, tiny_model), folder / "runs")
    return folder
