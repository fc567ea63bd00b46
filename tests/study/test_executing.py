"""A real study side by side: the same readings, and what each stage takes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.side_by_side import Lines, none_left, variables
from fixtures.study import readings_of, write_study

from holdfast import study
from holdfast.config import load
from holdfast.config.hardware import SlurmSpec
from holdfast.errors import UsageError
from holdfast.memory.hardware.devices import parse
from holdfast.progress import Silent
from holdfast.runs import records, stages
from holdfast.runs.executors import slurm
from holdfast.runs.executors.graph import Graph, makespan
from holdfast.runs.executors.seats import Seat
from holdfast.runs.stages import PlannedStage, Step
from holdfast.study import executing
from holdfast.study.executing import _Demands
from holdfast.study.workshop import stages_of


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


def test_machines_without_the_run_folder_read_what_one_process_reads(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings, answers and scores are made in folders of the workers' own, and fetched back."""
    monkeypatch.setitem(executing.ELSEWHERE, "ray", "fixtures.unseen:Unseen")
    short = {"optim": "adamw_torch", "max_steps": 2, "checkpoints": 1}
    file = write_study(tmp_path, tiny_model, seeds=[1], train=short)
    loaded, told = load.load(file), Lines()
    alone, two = tmp_path / "alone", tmp_path / "two"
    study.run(loaded, alone, Silent(), str(file), on="local")
    study.run(loaded, two, told, str(file), on="ray")
    assert readings_of(two) == readings_of(alone) and len(readings_of(two)) == 8
    assert _costs(two) == _costs(alone)
    assert sum("does not see the run folder" in line for line in told.lines) == 1
    assert all(step.done for step in study.schedule(study.plan(loaded, two)))
    assert (two / "report" / "index.html").is_file() and none_left(tmp_path)


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


def _with(session: Any, section: str, **changes: object) -> Any:
    """The same with other settings in a section of its study."""
    section_of = getattr(session.study, section).model_copy(update=changes)
    changed = session.study.model_copy(update={section: section_of})
    return replace(session, plan=replace(session.plan, study=changed))


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


def test_trainings_of_several_machines_come_one_by_one(tiny_model: Path, tmp_path: Path) -> None:
    hardware = {"nodes": 2, "meeting": "127.0.0.1:29400"}
    plain = _session(tiny_model, tmp_path, hardware=hardware)
    two = replace(plain, gpus=parse("2x24GiB"))
    assert executing.chosen(two, None) == "gpus" and executing.chosen(two, "local") == "local"
    for session, on in ((plain, None), (two, "slurm"), (two, "ray")):
        with pytest.raises(UsageError, match="2 machines together need GPUs"):
            executing.chosen(session, on)
    steps = study.schedule(two.plan)
    assert _Demands(two, steps, "gpus", 2).of("train/sft/seed1")[0] == 2, "nobody beside it"


def test_what_may_be_spent_is_not_spent_by_each_of_several(
    tiny_model: Path, tmp_path: Path
) -> None:
    server = "http://127.0.0.1:1/v1?max_requests=5#model"
    session = _with(_session(tiny_model, tmp_path, "2x24GiB"), "answer", server=server)
    assert executing.chosen(session, None) == "local"
    with pytest.raises(UsageError, match="max_requests of a server"):
        executing.chosen(session, "gpus")


def test_gpus_that_others_have_filled_are_left_to_them(tiny_model: Path, tmp_path: Path) -> None:
    first, busy, last = parse("3x24GiB")
    busy = replace(busy, free_bytes=busy.free_bytes // 4)
    assert executing.usable((first, busy, last)) == (first, last)
    assert executing.usable(()) == ()
    session = replace(_session(tiny_model, tmp_path), gpus=(first, busy))
    assert executing.chosen(session, None) == "local"


def test_named_gpus_are_of_this_machine(tiny_model: Path, tmp_path: Path) -> None:
    session = _with(_session(tiny_model, tmp_path), "hardware", gpus="2x24GiB")
    with pytest.raises(UsageError, match="names GPUs of this machine"):
        executing.chosen(session, "slurm")


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


def test_a_stage_fits_whichever_gpus_it_is_given(tiny_model: Path, tmp_path: Path) -> None:
    rich, poor = parse("24GiB")[0], replace(parse("24GiB")[0], index=1, free_bytes=1 << 20)
    session = replace(_session(tiny_model, tmp_path), gpus=(rich, poor))
    demands = _Demands(session, study.schedule(session.plan), "gpus", 2)
    assert demands.of("replies/base/lab_math") == (2, "base"), "the poorer does not hold it"


def test_how_long_all_of_it_takes() -> None:
    eight = [str(n) for n in range(8)]
    steps = [Step(PlannedStage(name, {}), "", False) for name in eight]
    steps.append(Step(PlannedStage("end", {}, tuple(eight)), "", False))
    seconds = {str(n): 3.0 for n in range(8)} | {"end": 1.0}
    assert makespan(Graph(steps), seconds, 1) == pytest.approx(25.0)
    assert makespan(Graph(steps), seconds, 4) == pytest.approx(7.0)
    assert makespan(Graph(steps, lambda name: (2, "")), seconds, 4) == pytest.approx(13.0)
    assert makespan(Graph(steps, lambda name: (8, "")), seconds, 4) == math.inf


def test_a_worker_that_does_not_have_its_gpus_is_no_worker(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Else it would do on its cores, without a word, what GPUs were asked for."""
    run = tmp_path / "r"
    file = write_study(tmp_path, tiny_model, seeds=[1], arms={"sft": {}})
    study.run(load.load(file), run, Silent(), str(file), only="data/*")
    with pytest.raises(UsageError, match="1 GPUs were asked for, and none") as caught:
        stages_of(run, {"gpus": None, "able": {}, "least": 1, "on": "ray"})
    assert "hardware.ray.gpus=0" in caught.value.remedy
    assert stages_of(run, {"gpus": None, "able": {}, "least": 0, "on": "ray"}).stages


@pytest.mark.parametrize(("device", "least"), [("auto", 2), ("cpu", 0)])
def test_a_worker_must_have_what_was_asked_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, least: int
) -> None:
    monkeypatch.setattr(slurm, "_execute", lambda command: "slurm 22.05.8")
    session = _session(tiny_model, tmp_path)
    asked = SlurmSpec(gpus=2, host="127.0.0.1")
    session, told = _with(session, "hardware", device=device, slurm=asked), Lines()
    room = executing._room(session, "slurm", told)
    room.starter.close()
    assert room.least == least
    assert ("hardware.device is cpu: hardware.slurm.gpus is ignored" in told.lines) == (not least)
    given = executing._given(session, "slurm", Seat(1, (0,)), room.least)
    assert given == {"gpus": None, "able": {}, "least": least, "on": "slurm"}
    assert executing._given(session, "slurm", Seat(2), room.least)["gpus"] == []
