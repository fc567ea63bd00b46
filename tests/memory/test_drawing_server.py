"""Where does the vLLM lie that draws answers in training, and does the plan leave room for it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.config import TrainSpec
from holdfast.memory.estimate.activations import cache_bytes
from holdfast.memory.estimate.method_overhead import MethodOverhead, combined
from holdfast.memory.hardware.devices import parse
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.drawing_server import ROWS, Place, placed
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.planner import plan_memory
from holdfast.memory.planner.request import PlanRequest

SMALL, LARGE = "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
DRAWN = MethodOverhead(("grpo",), generated_tokens=256, answers=8, served=True)
HERE = replace(DRAWN, served=False)


def _plan(model: str, gpus: str, overhead: MethodOverhead = DRAWN, **more: Any) -> MemoryReport:
    train = TrainSpec(method=more.pop("method", "lora"), global_batch_size=8)
    asked = PlanRequest(
        model, gpus, seq_len=512, train=train, overhead=overhead, trace=False, **more
    )
    return plan_memory(asked)


def _server(report: MemoryReport) -> Place:
    assert report.comparison.server is not None
    return report.comparison.server


def test_on_one_gpu_it_lies_beside_the_training() -> None:
    report, alone = _plan(SMALL, "1x24GiB"), _plan(SMALL, "1x24GiB", HERE)
    place = _server(report)
    shape, work = report.comparison.shape, report.comparison.work
    least = 2 * shape.parameters + cache_bytes(shape, work, ROWS, 512 + 256)
    assert (place.gpu, place.apart, place.tokens) == (0, False, 768)
    assert least < place.takes < least + 3 * GIB
    assert place.share == pytest.approx(place.takes / (24 * GIB), abs=1e-3)
    assert report.plan is not None and report.plan.gpus == (0,)
    assert report.plan.fullest.total + place.takes <= 24 * GIB
    assert alone.comparison.server is None
    keys = ("strategy", "checkpointing", "micro_batch")
    before = {tuple(getattr(one.plan, key) for key in keys): one for one in alone.candidates}
    for one in report.candidates:
        same = before[tuple(getattr(one.plan, key) for key in keys)]
        extra = one.short_bytes - same.short_bytes
        assert place.takes - GIB < extra <= place.takes, "less its own answering"
    assert "beside it on GPU 0" in report.text() and "同在 GPU 0" in report.text(language="zh")


def test_of_several_gpus_it_gets_the_smallest_other_one_that_holds_it() -> None:
    report = _plan(SMALL, "1x12GiB,1x48GiB,1x24GiB")
    place = _server(report)
    assert (place.gpu, place.apart) == (0, True)
    assert 0.9 < place.share <= 0.92
    assert report.plan is not None and report.plan.gpus == (1,)
    told = report.to_json()
    assert told["idle_gpus"] == [2]
    assert told["server"]["gpu"] == 0  # type: ignore[index]
    seven = _server(_plan(LARGE, "1x12GiB,1x48GiB,1x24GiB"))
    assert (seven.gpu, seven.apart) == (2, True), "12 GiB do not hold it"
    beside = _server(_plan(LARGE, "1x12GiB,1x80GiB"))
    assert (beside.gpu, beside.apart) == (1, False)


def test_what_does_not_fit_together_says_what_would() -> None:
    assert _plan(LARGE, "1x24GiB", HERE).fits
    report = _plan(LARGE, "1x24GiB")
    assert not report.fits
    found = {one.kind: one.value for one in report.comparison.changes}
    assert found["gpus"] == 2 and _plan(LARGE, "2x24GiB").fits
    size = found["gpu_bytes"] // GIB
    assert _plan(LARGE, f"1x{size}GiB").fits
    assert "quantize" not in found, "vLLM has no adapters on bitsandbytes' weights here"


def test_four_bits_are_not_chosen_for_it() -> None:
    assert _plan(LARGE, "1x12GiB", HERE, method="auto").plan
    report = _plan(LARGE, "1x12GiB", method="auto")
    assert report.plan is None
    refused = [one.refused for one in report.candidates if one.plan.strategy == "qlora"]
    assert refused and all(one is not None and one.key == "r_served" for one in refused)


def test_on_a_cpu_its_cache_is_whole_gib() -> None:
    report = _plan(SMALL, "cpu")
    place, shape = _server(report), report.comparison.shape
    cache = cache_bytes(shape, report.comparison.work, ROWS, 768)
    assert place.gpu is None and place.share == 0
    assert place.cache_gib == -(-cache // GIB)
    held = report.comparison.work.wide * shape.parameters
    assert held < place.takes - place.cache_gib * GIB < held + 3 * GIB
    assert "GiB of memory" in report.text()


def test_no_server_without_a_method_that_wants_one() -> None:
    report = _plan(SMALL, "1x24GiB", HERE)
    one = report.comparison
    assert placed(one.shape, one.work, one.gpus) is None and "server" not in report.to_json()
    assert combined([HERE, DRAWN]).served and not combined([HERE]).served
    assert placed(one.shape, replace(one.work, method_overhead=DRAWN), parse("24GiB")) is not None
