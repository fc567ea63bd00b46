"""Does a train stage plan, launch, record and refuse as it should?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Study
from holdfast.data import batching
from holdfast.errors import DoesNotFit, OutOfMemory, UsageError
from holdfast.lab.problems import problems
from holdfast.memory.hardware.cpu import cpu
from holdfast.memory.hardware.devices import parse
from holdfast.models import LAB_FOLDER, ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.train import data, stage
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

REF = ModelRef(str(LAB_FOLDER))


def _study(**more: Any) -> Study:
    train = {
        "optim": "adamw_torch", "learning_rate": 1e-2, "micro_batch_size": 2, "bf16": False,
        "gradient_accumulation_steps": 2, "lora": {"r": 4, "dropout": 0.0},
    }  # fmt: skip
    return Study(
        name="x", model="lab", tasks={"lab_math": {"role": "target"}},
        train=train | more.pop("train", {}), **more,
    )  # fmt: skip


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def _job(study: Study, folder: Path) -> tuple[Any, int]:
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.native)
        for i, one in enumerate(problems("train", 8, (1, 2, 3)))
    ]
    store.write_jsonl(folder / "examples.jsonl", examples)
    encoded, _, _ = data.encode_all(REF, examples, study.train)
    spent = batching.plain_budget([row.cost for row in encoded], 3, 2, 2)
    job = TrainJob(
        REF, study.train, spent, 5, (3,), folder / "run", folder / "examples.jsonl", device="cpu"
    )
    return job, max(len(row.ids) for row in encoded)


def test_without_a_gpu_it_trains_here(tmp_path: Path) -> None:
    study = _study()
    job, longest = _job(study, tmp_path)
    summary = stage.run(study, job, longest, (), Silent())
    assert summary["steps"] == 3
    assert summary["memory"] is None
    assert not (tmp_path / "run" / "launch").exists()


def test_a_planned_training_is_launched_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    study = _study(hardware={"strategy": "ddp", "gpus": "2x2GiB"})
    job, longest = _job(study, tmp_path)
    heard = Heard()
    summary = stage.run(study, job, longest, parse("2x2GiB"), heard)
    alone, _ = _job(study, tmp_path / "alone")
    here = stage.run(_study(), alone, longest, (), Silent())
    for (step, loss), (_, wanted) in zip(summary["loss"], here["loss"], strict=True):
        assert loss == pytest.approx(wanted, abs=1e-4), step
    assert summary["events"] == []
    assert "data parallel" in summary["plan"]
    assert any("torch.distributed.run" in line for line in heard.lines)
    assert any("--nproc_per_node=2" in line for line in heard.lines)
    record = json.loads((tmp_path / "run" / stage.RECORD).read_text())
    assert record["source"] in {"traced", "formula"}
    assert len(record["plan"]["predicted"]) == 2
    assert not (tmp_path / "cache" / "holdfast" / "memory.jsonl").exists()  # no GPU, no lesson


def test_what_does_not_fit_is_refused_with_what_would(tmp_path: Path) -> None:
    study = Study(
        name="x", model="Qwen/Qwen2.5-7B-Instruct", tasks={"lab_math": {"role": "target"}},
        train={"max_length": 2048}, hardware={"gpus": "1x6GiB", "strategy": "single"},
    )  # fmt: skip
    with pytest.raises(DoesNotFit, match="does not fit on") as caught:
        stage.check_fits(study, parse("1x6GiB"))
    assert "smallest change that would help" in caught.value.remedy
    assert caught.value.exit_code == 2
    stage.check_fits(study.model_copy(update={"hardware": _study().hardware}), parse("h200"))


@pytest.mark.parametrize(
    ("gpus", "method"), [("", "lora"), ("1x8.5GiB", "qlora"), ("2x24GiB", "lora")]
)
def test_auto_is_decided_by_the_gpus(gpus: str, method: str) -> None:
    study = Study(
        name="x", model="Qwen/Qwen2.5-7B-Instruct", tasks={"lab_math": {"role": "target"}},
        train={"method": "auto", "max_length": 1024},
    )  # fmt: skip
    found = stage.resolved(study, parse(gpus) if gpus else ())
    assert found.train.method == method


def test_named_gpus_must_be_there() -> None:
    named = _study(hardware={"gpus": "2x24GiB"})
    with pytest.raises(UsageError, match="names 2, and none can be found"):
        stage.check_present(named, lambda: ())
    stage.check_present(named, lambda: parse("2x24GiB"))
    stage.check_present(_study(), lambda: ())


def _lacking(phase: Any) -> Any:
    def train(job: TrainJob, progress: Any) -> Any:
        raise OutOfMemory("full", phase=phase, remedy="r")

    return train


@pytest.mark.parametrize(
    ("phase", "plans"),
    [("load", ["as asked", (1, False)]), ("backward", [(1, False), (1, True)])],
)
def test_a_training_on_the_cpu_goes_on_with_smaller_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, plans: list[Any]
) -> None:
    """In fresh processes: loading once more as asked, then half the micro-batch, recomputation."""
    study = _study(train={"gradient_checkpointing": False})
    job, longest = _job(study, tmp_path)
    launched: list[Any] = []

    def launch(job: TrainJob, plan: Any, progress: Any, *_: Any) -> dict[str, Any]:
        made = job.plan
        launched.append((made.micro_batch, made.checkpointing) if made else "as asked")
        if len(launched) < 2:
            raise OutOfMemory("full", phase="backward", remedy="r")
        return {"steps": 3}

    monkeypatch.setattr(stage, "launch", launch)
    monkeypatch.setattr(stage.worker, "train", _lacking(phase))
    heard = Heard()
    summary = stage.run(study, job, longest, (), heard)
    assert summary["steps"] == 3
    assert launched == plans
    assert [one["phase"] for one in summary["events"]] == [phase, "backward"]
    assert all("going on from the last checkpoint" in line for line in heard.lines)


def test_a_tight_training_on_the_cpu_has_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[Any] = []
    scarce = replace(cpu(), total_bytes=1 << 30, free_bytes=1 << 29)
    monkeypatch.setattr("holdfast.memory.planner.request.cpu", lambda: scarce)
    monkeypatch.setattr(stage, "launch", lambda job, *_: launched.append(job) or {"steps": 3})
    study, heard = _study(), Heard()
    job, longest = _job(study, tmp_path)
    assert stage.run(study, job, longest, (), heard)["steps"] == 3
    assert launched == [job]  # as budgeted, without a plan of its own
    assert "process of its own" in heard.lines[0]
