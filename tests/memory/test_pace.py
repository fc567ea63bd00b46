"""How fast this machine's own trainings were corrects the speed of the next plan, and is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.memory.hardware.devices import parse
from holdfast.memory.planner import pace, planner
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.request import PlanRequest
from holdfast.runs import store
from holdfast.train.job import HISTORY, TrainJob
from holdfast.train.planning import record_pace

ASKED = PlanRequest("qwen2.5-0.5b", "2xrtx4090", trace=False)
SEEN = pace.Pace("RTX 4090", False, 494_032_768, 4096, 1000.0, 500.0)


def planned() -> MemoryReport:
    return planner.plan(ASKED)


def speeds(report: MemoryReport) -> dict[tuple[str, int, bool], float]:
    return {(one.plan.strategy, one.plan.micro_batch, one.plan.checkpointing):
            one.plan.tokens_per_s for one in report.candidates}  # fmt: skip


def test_a_recorded_training_corrects_the_speed_and_is_said() -> None:
    before = planned()
    assert before.to_json()["speed"] == []
    pace.record(SEEN)
    pace.record(pace.Pace("RTX 4090", False, 494_032_768, 4096, 1000.0, 700.0))
    after = planned()
    for key, speed in speeds(after).items():
        several = key[0].endswith(("ddp", "fsdp2"))
        assert speed == pytest.approx(speeds(before)[key] * (1.0 if several else 0.6)), key
    assert after.to_json()["speed"] == [{"several": False, "factor": 0.6, "runs": 2}]
    assert "Speed measured: 0.6 times the model's" in after.text()
    assert "速度有实测：为模型估计的 0.6 倍" in after.text(language="zh")
    assert "Speed measured" not in before.text()


@pytest.mark.parametrize(
    "other",
    [
        pace.Pace("RTX 3090", False, 494_032_768, 4096, 1000.0, 500.0),
        pace.Pace("RTX 4090", False, 7_600_000_000, 4096, 1000.0, 500.0),
        pace.Pace("RTX 4090", False, 494_032_768, 64, 1000.0, 500.0),
    ],
)
def test_what_was_unlike_tells_nothing(other: pace.Pace) -> None:
    pace.record(other)
    assert planned().to_json()["speed"] == []


def test_unequal_gpus_and_spoilt_lines_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pace.jsonl"
    pace.record(SEEN, path)
    path.write_text(path.read_text() + "no json\n{}\n" + '{"device": 1}\n', encoding="utf-8")
    assert pace.recorded(path) == [SEEN]
    assert pace.corrections(parse("4090,3090"), 494_032_768, 1024, path) == ()
    assert pace.corrections(parse("4090"), 494_032_768, 1024, path)[0].factor == 0.5


def test_a_log_is_read_by_its_median_without_its_first_row() -> None:
    rows = [
        {"tokens_per_s": 1.0},
        {"loss": 2.0},
        *({"tokens_per_s": x} for x in (90.0, 100.0, 400.0)),
    ]
    assert pace.logged(rows) == 100.0
    assert pace.logged(rows[:2]) == 0.0


def test_a_training_is_recorded_beside_what_the_model_of_speed_says(tmp_path: Path) -> None:
    report = planned()
    plan = next(one.plan for one in report.candidates if one.plan.strategy == "single")
    job = cast(TrainJob, SimpleNamespace(folder=tmp_path))
    rows: list[dict[str, Any]] = [{"tokens_per_s": x} for x in (1.0, 300.0, 300.0)]
    store.write_jsonl(tmp_path / HISTORY, rows)
    record_pace(report, plan, job, disturbed=True)
    assert pace.recorded() == []
    record_pace(report, plan, job, disturbed=False)
    (one,) = pace.recorded()
    assert (one.device, one.several, one.tokens_per_s) == ("RTX 4090", False, 300.0)
    assert one.modelled == pytest.approx(plan.tokens_per_s)
    record_pace(planned(), plan, job, disturbed=False)  # corrected by the first
    assert pace.recorded()[1].modelled == pytest.approx(one.modelled)
