"""Are tasks learned one after the other, measured after each, and gone on with when interrupted?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.continual import write_stages
from fixtures.study import run_study


@pytest.fixture(scope="session")
def learned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished study with two stages."""
    folder = tmp_path_factory.mktemp("stages")
    run_study(write_stages(folder, tiny_model), folder / "runs")
    return folder / "runs" / "s"


def test_every_task_is_measured_after_every_stage(learned: Path) -> None:
    results = json.loads((learned / "stats" / "results.json").read_text())
    cells = {(one["arm"], one["step"], one["task"]) for one in results["cells"]}
    tasks = {"lab_math", "words", "lab_refuse"}
    assert {(arm, step, task) for arm in ("sft", "replayed", "apart", "averaged")
            for step in (4, 8) for task in tasks} <= cells  # fmt: skip
    for stage in ("budget/1-lab_math", "data/sft/2-words", "train/apart/seed1/2-words"):
        assert (learned / stage / "record.json").is_file(), stage
