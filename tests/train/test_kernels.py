"""Are kernels and compilation that are not there refused by name, and else used?"""

from __future__ import annotations

import importlib.machinery
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import MissingDependency, StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import ModelRef
from holdfast.train import arguments, data, kernels
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

LIGER = TrainSpec(kernels="liger")


def _fit(ref: ModelRef, folder: Path, **more: Any) -> dict[str, Any]:
    spec = TrainSpec(
        optim="adamw_torch", learning_rate=1e-3, micro_batch_size=2, gradient_checkpointing=False,
        gradient_accumulation_steps=2, logging_steps=1, lora={"dropout": 0.0}, **more,
    )  # fmt: skip
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", 12, (1, 2)))
    ]
    rows, _, _ = data.encode_all(ref, examples, spec)
    budget = plain_budget([row.cost for row in rows], 3, 2, 2)
    job = TrainJob(ref, spec, budget, 1, (3,), folder, device="cpu")
    return dict(fit(job, TrainingData(rows)))


def test_liger_runs_on_gpus_only() -> None:
    with pytest.raises(StudyError, match="GPUs only") as caught:
        arguments.check_settings(LIGER, "cpu")
    assert caught.value.where == "train.kernels"


def test_liger_that_is_not_installed_is_named() -> None:
    with pytest.raises(MissingDependency, match="liger-kernel") as caught:
        kernels.check(LIGER, "cuda")
    assert "pip install liger-kernel" in caught.value.remedy


@pytest.fixture()
def liger(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A package of that name, which notes what it is asked for."""
    asked: list[dict[str, Any]] = []
    for name in ("liger_kernel", "liger_kernel.transformers",
                 "liger_kernel.transformers.monkey_patch"):  # fmt: skip
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules["liger_kernel.transformers.monkey_patch"].MODEL_TYPE_TO_APPLY_LIGER_FN = {  # type: ignore[attr-defined]
        "llama": None, "qwen2": None,
    }  # fmt: skip

    def patch(model: Any, **config: Any) -> None:
        asked.append({"kind": model.config.model_type, **config})

    sys.modules["liger_kernel.transformers"]._apply_liger_kernel_to_instance = patch  # type: ignore[attr-defined]
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    return asked


def test_ligers_layers_are_used_and_its_losses_are_not(
    liger: list[dict[str, Any]], tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    kernels.check(LIGER, "cuda")
    kernels.check_model(model, LIGER)
    kernels.apply(model, LIGER)
    assert liger == [{"kind": "llama", "fused_linear_cross_entropy": False, "cross_entropy": False}]
    assert kernels.used(LIGER) == {"kernels": "liger"}
    assert kernels.used(TrainSpec()) == {}


def test_a_model_that_liger_does_not_know_is_refused(
    liger: list[dict[str, Any]], tiny_model: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.model_type = "strange"
    with pytest.raises(StudyError, match="no kernels for strange") as caught:
        kernels.check_model(model, LIGER)
    assert "llama, qwen2" in caught.value.remedy


def test_a_liger_that_cannot_be_imported_is_told(
    liger: list[dict[str, Any]], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without triton, say, or of a version that knows another torch."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.monkey_patch", None)
    with pytest.raises(MissingDependency, match="cannot be used") as caught:
        kernels.check_model(AutoModelForCausalLM.from_pretrained(tiny_model), LIGER)
    assert caught.value.where == "train.kernels"


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(MissingDependency, match=r"C\+\+ compiler"):
        arguments.check_settings(TrainSpec(torch_compile=True, optim="adamw_torch"), "cpu")


def test_four_bits_and_moved_weights_are_not_compiled() -> None:
    with pytest.raises(StudyError, match="4-bit layers"):
        kernels.check(TrainSpec(torch_compile="max-autotune", method="qlora"), "cuda")
    with pytest.raises(TrainingError, match="fsdp2"):
        kernels.check_plan(TrainSpec(torch_compile=True), MemoryPlan("fsdp2"))
    kernels.check_plan(TrainSpec(torch_compile=True), MemoryPlan("ddp"))
    kernels.check_plan(TrainSpec(), MemoryPlan("fsdp2"))


def test_every_decoder_layer_is_compiled_once(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **more: asked.append((type(self).__name__, more))
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    kernels.apply(model, TrainSpec(torch_compile="reduce-overhead"))
    wanted = ("LlamaDecoderLayer", {"mode": "reduce-overhead", "dynamic": True})
    assert asked == [wanted] * model.config.num_hidden_layers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_layers_learn_the_same(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    ref = ModelRef(str(tiny_model))
    plain = _fit(ref, tmp_path / "plain")
    found = _fit(ref, tmp_path / "compiled", torch_compile=True, packing=True)
    assert found["torch_compile"] is True and "torch_compile" not in plain
    losses = [[loss for _, loss in one["loss"]] for one in (found, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    names = [
        set(load_file(tmp_path / way / "checkpoint-3" / "adapter_model.safetensors"))
        for way in ("plain", "compiled")
    ]
    assert names[0] == names[1], "compiling changes no name"


@pytest.mark.parametrize("optim", ["adamw_torch_fused"])
def test_fused_optimisers_are_tried_where_they_will_run(optim: str) -> None:
    arguments.check_settings(TrainSpec(optim=optim), "cpu")


def test_micro_batches_are_laid_out_by_others_in_the_same_order(
    tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    ref = ModelRef(str(tiny_model))
    ways = {"none": {}, "one": {"dataloader_num_workers": 1},
            "two": {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 3}}  # fmt: skip
    found = {name: _fit(ref, tmp_path / name, packing=True, **more) for name, more in ways.items()}
    assert found["none"]["loss"] == found["one"]["loss"] == found["two"]["loss"]
    files = [
        load_file(tmp_path / name / "checkpoint-3" / "adapter_model.safetensors") for name in ways
    ]
    for other in files[1:]:
        assert all(torch.equal(files[0][name], other[name]) for name in other)


def test_prefetching_needs_somebody_who_does_it() -> None:
    with pytest.raises(ValueError, match="needs dataloader_num_workers"):
        TrainSpec(dataloader_prefetch_factor=2)
