"""The rule of precision, asked for real folders and devices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast import models
from holdfast.config import Study
from holdfast.config.hardware import HardwareSpec
from holdfast.engines.pool import EnginePool
from holdfast.memory import precision as rule
from holdfast.memory.hardware import cpu
from holdfast.memory.hardware.devices import parse
from holdfast.models import precision
from holdfast.types import ModelRef


def _folder(path: Path, **config: object) -> ModelRef:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return ModelRef(str(path))


@pytest.fixture
def _has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "computes_bf16", lambda: True)


@pytest.mark.usefixtures("_has_bf16")
def test_all_models_under_test_are_computed_alike(tmp_path: Path) -> None:
    half = _folder(tmp_path / "half", model_type="qwen2", torch_dtype="bfloat16")
    whole = _folder(tmp_path / "whole", model_type="qwen2", torch_dtype="float32")
    far = ModelRef("http://127.0.0.1:9/v1#m")
    assert precision.decide("cpu", [half, far]).dtype == "bfloat16"
    assert precision.decide("cpu", [half, whole]).dtype == "float32"
    assert precision.decide("cuda", [half], gpus=parse("t4")).dtype == "float16"
    assert precision.decide("cuda", [half], gpus=parse("a100")).dtype == "bfloat16"


@pytest.mark.usefixtures("_has_bf16")
def test_the_built_in_model_stays_float32_on_every_cpu() -> None:
    ref = ModelRef(str(models.LAB_FOLDER))
    assert precision.stored(ref).dtype == "float32"
    assert precision.decide("cpu", [ref]).dtype == "float32"


def _study(**train: object) -> Study:
    return Study.model_validate({
        "name": "s", "model": "lab", "hardware": {"device": "cpu"}, "train": train,
        "tasks": {"lab_math": {"role": "target"}},
    })  # fmt: skip


@pytest.mark.usefixtures("_has_bf16")
def test_the_pool_decides_once_for_base_and_tuned(tmp_path: Path) -> None:
    half = _folder(tmp_path / "half", model_type="qwen2", torch_dtype="bfloat16")
    whole = _folder(tmp_path / "whole", model_type="qwen2", torch_dtype="float32")
    alone = EnginePool(_study(), (), [half]).precision()
    assert alone is not None and alone.dtype == "bfloat16"
    assert "this CPU has bfloat16 in hardware" in alone.notice
    together = EnginePool(_study(), (), [half, whole])
    assert together._dtype(half) == together._dtype(whole) == "float32"
    assert EnginePool(_study(bf16=False), (), [half])._dtype(half) == "float32"
    assert EnginePool(_study(), (), [ModelRef("http://127.0.0.1:9/v1#m")]).precision() is None


@pytest.mark.usefixtures("_has_bf16")
def test_a_16_bit_model_answers_in_bfloat16(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    from holdfast.engines.hf import HFEngine

    folder = shutil.copytree(tiny_model, tmp_path / "half")
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    with HFEngine(ModelRef(str(folder)), "cpu") as engine:
        assert engine.about == "CPU, bfloat16"
        assert engine._base.dtype == torch.bfloat16
    with HFEngine(ModelRef(str(tiny_model)), "cpu") as engine:
        assert engine.about == "CPU, float32"


def test_doctor_says_what_this_machine_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule, "detect", lambda: parse("t4"))
    assert rule.here() == "float16 with loss scaling: T4 only emulates bfloat16"
    monkeypatch.setattr(rule, "detect", lambda: ())
    monkeypatch.setattr(rule, "computes_bf16", lambda: True)
    assert rule.here().startswith("float32; bfloat16, which this CPU has in hardware")
    monkeypatch.setattr(rule, "computes_bf16", lambda: False)
    assert rule.here().startswith("float32: ")


def test_gpus_known_by_size_are_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.train import stage

    study = Study.model_validate(
        _study().model_dump(exclude_unset=True) | {"hardware": {"gpus": "1x16GiB"}}
    )
    there: list[object] = list(parse("t4"))
    monkeypatch.setattr(stage, "detect", lambda: there)
    [found] = stage.gpus_of(study)
    assert (found.name, found.bf16, found.total_bytes) == ("T4", False, 16 << 30)
    there.clear()
    [found] = stage.gpus_of(study)
    assert found.bf16


def test_a_named_gpu_is_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.train import stage

    study = _study().model_copy(update={"hardware": HardwareSpec(gpus="2xa100")})
    monkeypatch.setattr(stage, "detect", lambda: parse("t4"))
    assert [gpu.bf16 for gpu in stage.gpus_of(study)] == [False, True]


def test_what_torch_sees_decides_without_a_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = SimpleNamespace()
    monkeypatch.setattr(precision, "from_torch", lambda torch: parse("1xa100,1xt4"))
    monkeypatch.setattr(models, "require_torch", lambda: seen)
    ref = _folder(tmp_path / "m", model_type="llama", dtype="bfloat16")
    assert precision.decide("cuda", [ref]).dtype == "float16"
