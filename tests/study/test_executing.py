"""A real study side by side: the same readings, and what each stage takes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.side_by_side import none_left, variables
from fixtures.study import readings_of, write_study

from holdfast import study
from holdfast.config import load
from holdfast.errors import UsageError
from holdfast.memory.hardware.devices import parse
from holdfast.progress import Silent
from holdfast.runs import records, stages
from holdfast.runs.executors.graph import Graph
from holdfast.runs.stages import PlannedStage, Step
from holdfast.study import executing
from holdfast.study.executing import _Demands, makespan


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", variables(())["PYTHONPATH"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def _costs(folder: Path) -> list[dict[str, Any]]:
    results = json.loads((folder / "stats" / "results.json").read_text("utf-8"))
    names = ("examples", "steps", "supervised_tokens", "examples_seen", "flops", "tokens",
             "generated_tokens", "loss")  # fmt: skip
    return [{name: arm[name] for name in names} for arm in results["arms"]]


def test_two_workers_read_what_one_process_reads(tiny_model: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, tiny_model, hardware={"workers": 2})
    loaded, told = load.load(file), Lines()
    alone, two = tmp_path / "alone", tmp_path / "two"
    study.run(loaded, alone, Silent(), str(file), on="local")
    study.run(loaded, two, told, str(file), on="workers")
    assert readings_of(two) == readings_of(alone) and len(readings_of(two)) > 4
    assert _costs(two) == _costs(alone)
    assert any("2 stages at a time on this machine's CPU" in line for line in told.lines)
    assert none_left(two)
    for stage in study.plan(loaded, two).stages:
        one, other = stages.read_record(two / stage.name), stages.read_record(alone / stage.name)
        assert one is not None and other is not None and one["fingerprint"] == other["fingerprint"]
    told.lines.clear()
    study.run(loaded, two, told, str(file), on="workers")
    assert not any("at a time" in line for line in told.lines), "nothing was left to do"


def test_a_run_goes_on_elsewhere(tiny_model: Path, tmp_path: Path) -> None:
    """Begun in one process, finished by workers."""
    file = write_study(tmp_path, tiny_model, seeds=[1], arms={"sft": {}}, hardware={"workers": 2})
    loaded, run = load.load(file), tmp_path / "r"
    study.run(loaded, run, Silent(), str(file), only="train/*")
    made = records.finished(run / "train/sft/seed1")["made"]
    study.run(loaded, run, Silent(), str(file), on="workers")
    assert records.finished(run / "train/sft/seed1")["made"] == made
    assert (run / "report" / "index.html").is_file()


def _session(tiny_model: Path, tmp_path: Path, gpus: str = "", **changes: Any) -> Any:
    file = write_study(tmp_path, tiny_model, **changes)
    session = study.prepare(load.load(file), tmp_path / "r", str(file))
    return replace(session, gpus=parse(gpus) if gpus else ())


def test_where_a_study_runs_if_nobody_says(tiny_model: Path, tmp_path: Path) -> None:
    plain = _session(tiny_model, tmp_path)
    assert executing.chosen(plain, None) == "local"
    assert executing.chosen(replace(plain, gpus=parse("24GiB")), None) == "local"
    several = replace(plain, gpus=parse("2x24GiB"))
    assert executing.chosen(several, None) == "gpus"
    with pytest.raises(UsageError, match="no GPU can be used here") as caught:
        executing.chosen(plain, "gpus")
    assert "--on workers" in caught.value.remedy
    with pytest.raises(UsageError, match="2 GPUs would be shared"):
        executing.chosen(several, "workers")


def test_nothing_is_written_where_the_place_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, tiny_model)
    with pytest.raises(UsageError, match="no GPU"):
        study.run(load.load(file), tmp_path / "r", Silent(), str(file), on="gpus")
    assert not (tmp_path / "r").exists()


def test_what_each_stage_takes(tiny_model: Path, tmp_path: Path) -> None:
    session = _session(tiny_model, tmp_path, "4x24GiB", seeds=[1, 2, 3, 4])
    steps = study.schedule(session.plan)
    demands = _Demands(session, steps, "gpus", 4)
    for arm in ("sft", "gold"):
        folder = tmp_path / "r" / "data" / arm
        folder.mkdir(parents=True)
        summary = {"longest_tokens": 64, "answer_tokens": 16}
        (folder / "record.json").write_text(json.dumps({"summary": summary, "fingerprint": "x",
            "identity": {}, "needs": {}, "started": "", "seconds": 1.0}))  # fmt: skip
    found = {step.stage.name: demands.of(step.stage.name) for step in steps}
    assert found["train/sft/seed1"] == (1, "train/sft/seed1")
    assert found["replies/base/lab_math"] == (1, "base")
    assert found["data/gold"][0] == 1 and found["data/sft"] == (0, "")
    assert {found[name] for name in ("budget", "stats", "report")} == {(0, "")}
    assert all(size == 0 for name, (size, _) in found.items() if name.startswith("readings/"))
    only = [one for one in steps if one.stage.name == "train/sft/seed1"]
    alone = _Demands(session, only, "gpus", 4)
    assert 1 <= alone.of("train/sft/seed1")[0] <= 4
    cpu = _Demands(session, steps, "workers", 3)
    assert {cpu.of(step.stage.name)[0] for step in steps} == {1}


def test_how_long_all_of_it_takes() -> None:
    eight = [str(n) for n in range(8)]
    steps = [Step(PlannedStage(name, {}), "", False) for name in eight]
    steps.append(Step(PlannedStage("end", {}, tuple(eight)), "", False))
    seconds = {str(n): 3.0 for n in range(8)} | {"end": 1.0}
    assert makespan(Graph(steps), seconds, 1) == pytest.approx(25.0)
    assert makespan(Graph(steps), seconds, 4) == pytest.approx(7.0)
    assert makespan(Graph(steps, lambda name: (2, "")), seconds, 4) == pytest.approx(13.0)
    assert makespan(Graph(steps, lambda name: (8, "")), seconds, 4) == math.inf
