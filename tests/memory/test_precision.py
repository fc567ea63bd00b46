"""One rule says what is computed in; plans, figures and exported scripts follow it."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.config import TrainSpec
from holdfast.config.training import ANY_PRECISION
from holdfast.errors import UsageError
from holdfast.memory.estimate.workload import Workload, from_training
from holdfast.memory.hardware.cpu import computes_bf16
from holdfast.memory.hardware.devices import card, gpu, parse
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner.alternatives import next_plan
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.planner import plan_memory
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.precision import Stored, on_cpu, on_gpus, stored

QWEN, GEMMA = Stored("qwen2", "bfloat16"), Stored("gemma3_text", "bfloat16")
MODEL = "Qwen/Qwen2.5-3B-Instruct"


@pytest.mark.parametrize(
    ("gpus", "dtype", "why"),
    [
        ("a100", "bfloat16", ""),
        ("2x4090", "bfloat16", ""),
        ("mi300x", "bfloat16", ""),
        ("24GiB", "bfloat16", ""),
        ("t4", "float16", "T4 only emulates bfloat16"),
        ("v100", "float16", "V100-16GB only emulates bfloat16"),
        ("rtx2080ti", "float16", "RTX 2080 Ti only emulates bfloat16"),
        ("p100", "float16", "P100 only emulates bfloat16"),
        ("p40", "float32", "P40 only emulates bfloat16 and is slow in float16"),
        ("gtx1080ti", "float32", "GTX 1080 Ti only emulates bfloat16 and is slow in float16"),
    ],
)
def test_each_gpu_has_its_precision(gpus: str, dtype: str, why: str) -> None:
    found = on_gpus(parse(gpus), [QWEN])
    assert (found.dtype, found.why()) == (dtype, why)
    assert bool(found.notice) == bool(why)


def test_the_least_able_gpu_decides_and_the_plan_says_so() -> None:
    found = on_gpus(parse("1xa100,1xt4"), [QWEN])
    assert found.dtype == "float16"
    assert found.why().startswith("T4 only emulates bfloat16; it decides for all GPUs")
    assert on_gpus(parse("1xt4,1xp40"), [QWEN]).dtype == "float32"


@pytest.mark.parametrize("capability", [5.2, 6.0, 6.1, 7.0, 7.5, 8.0, 8.9, 12.0])
def test_capabilities(capability: float) -> None:
    model = card("t4")
    assert model is not None
    found = gpu(model, 0, capability=capability)
    assert found.bf16 == (capability >= 8)
    assert found.fp16 == (capability >= 7 or capability == 6.0)


@pytest.mark.parametrize(
    "family", ["gemma2", "gemma3", "gemma3_text", "gemma3n", "gpt_oss", "qwen3_5_moe", "qwen3_moe"]
)
def test_families_that_overflow_in_float16_are_computed_in_float32(family: str) -> None:
    found = on_gpus(parse("t4"), [QWEN, Stored(family, "bfloat16")])
    assert (found.dtype, family in found.why()) == ("float32", True)
    assert on_gpus(parse("a100"), [Stored(family)]).dtype == "bfloat16"


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "phi3", "gemma", ""])
def test_other_families_are_not(family: str) -> None:
    assert on_gpus(parse("t4"), [Stored(family)]).dtype == "float16"


@pytest.mark.parametrize(
    ("asked", "gpus", "dtype", "said"),
    [
        ({}, "t4", "float16", "emulates"),
        ({"bf16": True}, "t4", "bfloat16", "which is slow"),
        ({"bf16": True}, "a100", "bfloat16", ""),
        ({"bf16": False}, "t4", "float32", ""),
        ({"bf16": False}, "a100", "float32", "would take half"),
        ({"fp16": True}, "a100", "float16", ""),
        ({"fp16": True}, "p40", "float16", "slower than in float32"),
        ({"fp16": False}, "t4", "float32", "train.fp16 is false"),
        ({"fp16": False}, "a100", "bfloat16", ""),
        ({"bf16": False, "fp16": True}, "t4", "float16", ""),
    ],
)
def test_what_the_study_says_wins(asked: dict[str, bool], gpus: str, dtype: str, said: str) -> None:
    found = on_gpus(parse(gpus), [QWEN], TrainSpec(**asked).precisions)
    assert found.dtype == dtype
    assert said in found.why() and bool(said) == bool(found.why())


def test_asking_for_float16_where_the_model_overflows_is_said() -> None:
    found = on_gpus(parse("t4"), [GEMMA], ("float16",))
    assert (found.dtype, "gemma3_text is known to overflow" in found.why()) == ("float16", True)


def test_both_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="bf16 or fp16, not both"):
        TrainSpec(bf16=True, fp16=True)


@pytest.mark.parametrize(
    ("models", "has_bf16", "asked", "dtype"),
    [
        ([QWEN], True, {}, "bfloat16"),
        ([Stored("llama", "float16")], True, {}, "bfloat16"),
        ([QWEN], False, {}, "float32"),
        ([Stored("llama", "float32")], True, {}, "float32"),
        ([Stored("llama")], True, {}, "float32"),
        ([QWEN, Stored("qwen2", "float32")], True, {}, "float32"),
        ([], True, {}, "float32"),
        ([QWEN], True, {"bf16": False}, "float32"),
        ([Stored("llama", "float32")], False, {"bf16": True}, "bfloat16"),
    ],
)
def test_a_cpu_takes_bfloat16_where_it_has_it_and_the_model_is_stored_in_16_bits(
    models: list[Stored], has_bf16: bool, asked: dict[str, bool], dtype: str
) -> None:
    found = on_cpu(models, TrainSpec(**asked).precisions, has_bf16=has_bf16)
    assert found.dtype == dtype
    assert bool(found.notice) == (dtype == "bfloat16")


def test_float16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a GPU") as raised:
        on_cpu([QWEN], ("float16",), has_bf16=True)
    assert raised.value.where == "train.fp16"


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx512_bf16 amx_bf16\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni\nbugs\t\t: bf16\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("Features\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_what_the_cpu_can_do_is_read_from_linux(tmp_path: Path, text: str, has: bool) -> None:
    assert not computes_bf16(tmp_path), "nothing is there"
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(text)
    assert computes_bf16(tmp_path) is has


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"model_type": "llama", "torch_dtype": "bfloat16"}, Stored("llama", "bfloat16")),
        ({"model_type": "llama", "dtype": "float16"}, Stored("llama", "float16")),
        ({"model_type": "gpt2"}, Stored("gpt2", "")),
        (
            {"model_type": "gemma3", "text_config": {"dtype": "bfloat16"}},
            Stored("gemma3", "bfloat16"),
        ),
        ({"model_type": "x", "torch_dtype": None}, Stored("x", "")),
    ],
)
def test_configs_say_it_in_several_ways(config: dict[str, object], found: Stored) -> None:
    assert stored(config) == found


def _report(gpus: str, **asked: object) -> MemoryReport:
    train = TrainSpec.model_validate({"method": "lora"} | asked)
    return plan_memory(PlanRequest(MODEL, gpus, trace=False, train=train, micro_batch=1))


def test_a_plan_counts_what_will_be_computed_in() -> None:
    """A 3B model under LoRA on a T4: 13.6 GiB in float32, 7.4 in 16 bits, by formula."""
    sixteen, whole = _report("t4"), _report("t4", fp16=False)
    assert sixteen.plan is not None and sixteen.plan.dtype == "float16"
    assert sixteen.plan.adapter_dtype == "float32"
    ampere = _report("a100")
    assert ampere.plan is not None and ampere.plan.dtype == "bfloat16"
    assert ampere.plan.fullest.weights == sixteen.plan.fullest.weights
    one = next(c.plan for c in whole.candidates if c.plan.strategy == "single")
    assert one.dtype == "float32"
    assert one.fullest.weights == 2 * sixteen.plan.fullest.weights
    assert one.fullest.total / GIB == pytest.approx(13.6, abs=0.2)


def test_float32_is_modelled_slower() -> None:
    speeds = [
        next(c.plan.tokens_per_s for c in _report("t4", **asked).candidates)
        for asked in ({}, {"fp16": False})
    ]
    assert speeds[0] > 2 * speeds[1]


def test_the_report_says_it_in_both_languages_and_as_json() -> None:
    report = _report("t4")
    assert "Precision: float16 with loss scaling: T4 only emulates bfloat16." in report.text()
    assert "精度：float16（带损失缩放）：T4 只能模拟 bfloat16。" in report.text(language="zh")
    assert report.to_json()["precision"] == {
        "dtype": "float16", "why": "T4 only emulates bfloat16",
    }  # fmt: skip
    assert "Precision: bfloat16. " in _report("a100").text()


def test_qlora_adapters_are_float32_under_float16() -> None:
    half = Workload(dtype="float16")
    assert Workload().adapters(True) == "bfloat16"
    assert half.adapters(True) == half.adapters(False) == "float32"
    assert replace(half, adapter_dtype="bfloat16").adapters(True) == "float32"
    failed = MemoryPlan("single", dtype="float16")
    assert next_plan([], failed, ["bf16_adapters"]) is None
    assert next_plan([], replace(failed, dtype="bfloat16"), ["bf16_adapters"]) is not None


def test_the_workload_of_a_study_leaves_open_what_the_gpus_decide() -> None:
    assert from_training(TrainSpec(), 8).dtype == "bfloat16"
    assert from_training(TrainSpec(fp16=True), 8).dtype == "float16"
    assert from_training(TrainSpec(bf16=False), 8).dtype == "float32"
    assert TrainSpec().precisions == ANY_PRECISION


@pytest.mark.parametrize(
    ("model", "gpus", "asked", "wanted", "dtypes"),
    [
        (MODEL, "t4", {"method": "lora"}, ("fp16=GPU", "bf16=False"), ["float16"]),
        (MODEL, "a100", {"method": "lora"}, ("fp16=False", "bf16=True"), ["bfloat16"]),
        (MODEL, "t4", {"method": "qlora"}, ("fp16=GPU", "bf16=False"), ["float16", "float16"]),
        (MODEL, "a100", {"method": "qlora"}, ("fp16=False", "bf16=True"), ["bfloat16"] * 2),
        ("google/gemma-3-1b-it", "t4", {"method": "lora"}, ("fp16=False", "bf16=False"),
         ["float32"]),
        ("Qwen/Qwen2.5-0.5B", "v100", {"method": "full"}, ("fp16=GPU", "bf16=False"),
         ["float32"]),
        ("Qwen/Qwen2.5-0.5B", "a100", {"method": "full"}, ("fp16=False", "bf16=True"),
         ["float32"]),
    ],
)  # fmt: skip
def test_the_script_says_what_the_plan_says(
    tmp_path: Path,
    model: str,
    gpus: str,
    asked: dict[str, str],
    wanted: tuple[str, str],
    dtypes: list[str],
) -> None:
    report = plan_memory(model, gpus, trace=False, **asked).write_script(tmp_path / "t.py")
    text = (tmp_path / "t.py").read_text("utf-8")
    ast.parse(text)
    for line in wanted:
        assert f"        {line}," in text
    named = [part.partition(",")[0] for part in text.split("dtype=torch.")[1:]]
    assert named == dtypes
    mended = asked["method"] == "qlora" and wanted[0] == "fp16=GPU"
    assert ("weight.data = weight.data.float()" in text) == mended
    assert json.dumps(report.to_json())


@pytest.mark.parametrize(
    ("gpus", "batch", "said"),
    [
        ("8xa100", 4, "4 of 8 GPUs stay idle: a global batch of 4 cannot be shared out evenly"),
        ("4xa100", 4, ""),
        ("1xa100", 3, ""),
        ("3xa100", 4, "1 of 3 GPUs stay idle: a global batch of 4"),
    ],
)
def test_idle_gpus_are_named(gpus: str, batch: int, said: str) -> None:
    report = plan_memory(
        MODEL, gpus, trace=False, method="lora", strategy="ddp" if batch == 4 else None,
        batch_size=batch,
    )  # fmt: skip
    assert ("stay idle" in report.text()) == bool(said)
    assert said in report.text()
    assert str(report.to_json()["idle"]).startswith(said)
