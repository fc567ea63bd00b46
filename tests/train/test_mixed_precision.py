"""Training in 16 bits: what is frozen is stored in them, what is trained is float32."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.config import TrainSpec
from holdfast.data.batching import Budget, plain_budget
from holdfast.errors import TrainingError, UsageError
from holdfast.lab.problems import problems
from holdfast.memory.hardware import cpu
from holdfast.memory.hardware.devices import parse
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import ModelRef, placement
from holdfast.models.rank import Rank
from holdfast.study import preflight
from holdfast.train import data
from holdfast.train.arguments import check_settings, trainer_arguments
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.train.mixed_precision import cast_adapters, computed_in, skipped_steps
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=1,
    gradient_checkpointing=False,
)  # fmt: skip


@pytest.fixture
def half(tiny_model: Path, tmp_path: Path) -> ModelRef:
    """The tiny model, stored in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(tiny_model, tmp_path / "half")
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    return ModelRef(str(folder))


def _fit(ref: ModelRef, folder: Path, spec: TrainSpec = SPEC) -> tuple[dict[str, Any], set[str]]:
    """What was spent, and the dtypes of what was saved."""
    from safetensors.torch import load_file

    asked = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", 8, (1, 2)))
    ]
    rows, _, _ = data.encode_all(ref, asked, spec)
    budget = plain_budget([row.cost for row in rows], 4, 1, 2)
    spent = fit(TrainJob(ref, spec, budget, 1, (4,), folder, device="cpu"), TrainingData(rows))
    [file] = (folder / "checkpoint-4").glob("*model*.safetensors")
    return dict(spent), {str(one.dtype) for one in load_file(file).values()}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_cpu_with_bfloat16_trains_in_it(
    half: ModelRef, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast; adapters, and under full fine-tuning all weights, stay float32."""
    monkeypatch.setattr(cpu, "computes_bf16", lambda: True)
    spec = SPEC.model_copy(update={"method": method})
    if method == "full":
        spec = spec.model_copy(update={"learning_rate": 1e-3})
    spent, saved = _fit(half, tmp_path / "run", spec)
    assert spent["device"] == "CPU, bfloat16"
    assert saved == {"torch.float32"}
    losses = [loss for _, loss in spent["loss"]]
    assert losses[-1] < losses[0]
    assert "skipped_steps" not in spent


def test_without_it_the_same_model_trains_in_float32(
    half: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "computes_bf16", lambda: False)
    assert _fit(half, tmp_path / "run")[0]["device"] == "CPU, float32"


def _job(ref: ModelRef, plan: MemoryPlan | None = None, **train: object) -> TrainJob:
    spec = TrainSpec.model_validate(train)
    return TrainJob(ref, spec, Budget(1, 1, 1, 1), 1, (1,), Path("nowhere"), plan=plan)


def test_training_follows_the_plan(half: ModelRef) -> None:
    for dtype in ("float16", "bfloat16", "float32"):
        plan = MemoryPlan("single", dtype=dtype)
        assert computed_in(_job(half, plan), "cuda") == dtype
        assert computed_in(_job(half, plan, method="full"), "cuda") == dtype
    with pytest.raises(UsageError, match="needs a GPU"):
        computed_in(_job(half, fp16=True), "cpu")
    with pytest.raises(UsageError, match="needs a GPU"):
        check_settings(TrainSpec(fp16=True), "cpu")


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [("float16", (True, False)), ("bfloat16", (False, True)), ("float32", (False, False))],
)
def test_the_trainers_arguments(tmp_path: Path, dtype: Any, wanted: tuple[bool, bool]) -> None:
    made = trainer_arguments(SPEC, Budget(1, 1, 1, 1), 0, tmp_path, "cpu", dtype)
    assert (made.fp16, made.bf16) == wanted


@pytest.mark.parametrize("adapters", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("planned", [True, False])
def test_a_loss_scaler_takes_the_adapters(half: ModelRef, adapters: str, planned: bool) -> None:
    """torch's scaler refuses gradients of 16 bits; whatever PEFT and TRL made is cast."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(half.base, dtype=torch.float16)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    trained = [one for one in model.parameters() if one.requires_grad]
    for one in trained:
        one.data = one.data.to(getattr(torch, adapters))
    plan = MemoryPlan("single", dtype="float16", adapter_dtype="bfloat16") if planned else None
    cast_adapters(model, _job(half, plan), "float16")
    assert {one.dtype for one in trained} == {torch.float32}
    assert base.get_input_embeddings().weight.dtype == torch.float16
    if planned and plan is not None:
        placement.check_start(model, plan, "lora", "cpu", Rank())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    optimiser = torch.optim.SGD(trained, lr=0.1)
    before = [one.detach().clone() for one in trained]
    ids = torch.arange(3, 9)[None]
    with torch.autocast("cpu", torch.float16):
        loss = model(input_ids=ids, labels=ids).loss
    scaler.scale(loss.float()).backward()
    scaler.unscale_(optimiser)
    scaler.step(optimiser)
    assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))


def _trainer(steps: int, taken: int, scaler: object = True, wrapped: bool = False) -> Any:
    scheduler: Any = SimpleNamespace(last_epoch=taken)
    scheduler = SimpleNamespace(scheduler=scheduler) if wrapped else scheduler
    return SimpleNamespace(
        lr_scheduler=scheduler, state=SimpleNamespace(global_step=steps),
        accelerator=SimpleNamespace(scaler=scaler),
    )  # fmt: skip


def test_skipped_steps_are_counted() -> None:
    assert skipped_steps(_trainer(40, 37)) == {"skipped_steps": 3}
    assert skipped_steps(_trainer(40, 40, wrapped=True)) == {"skipped_steps": 0}
    assert skipped_steps(_trainer(40, 37, scaler=None)) == {}
    for steps, taken in ((3, 0), (40, 10), (1000, 600)):
        with pytest.raises(TrainingError, match=f"overflowed in {steps - taken} of {steps} steps"):
            skipped_steps(_trainer(steps, taken))


def _session(gpus: str, found: Any = None, **train: object) -> Any:
    spec = TrainSpec.model_validate(train)
    arm = SimpleNamespace(variant=SimpleNamespace(trains=True), train=spec)
    asked = SimpleNamespace(variant=SimpleNamespace(trains=False), train=TrainSpec())
    pool = SimpleNamespace(precision=lambda train=None: found)
    return SimpleNamespace(
        arms={"sft": arm, "told": asked}, gpus=parse(gpus) if gpus else (), pool=pool
    )


@pytest.mark.parametrize(
    ("gpus", "batch", "used"),
    [("8xa100", 4, 4), ("8xa100", 16, 0), ("3xa100", 16, 2), ("4xa100", 7, 1), ("a100", 4, 0),
     ("", 4, 0)],
)  # fmt: skip
def test_gpus_that_a_step_cannot_fill_are_a_notice(gpus: str, batch: int, used: int) -> None:
    found = preflight._idle_gpus(_session(gpus, global_batch_size=batch))
    assert len(found) == bool(used)
    assert all(f"no more than {used} of them can share a step" in one for one in found)


def test_an_unusual_precision_is_a_notice() -> None:
    from holdfast.memory.precision import Stored, on_gpus

    qwen = [Stored("qwen2", "bfloat16")]
    [said, *_] = preflight._precision(_session("t4", on_gpus(parse("t4"), qwen)))
    assert said == "Precision: float16 with loss scaling: T4 only emulates bfloat16."
    assert preflight._precision(_session("a100", on_gpus(parse("a100"), qwen))) == []
    assert preflight._precision(_session("", None)) == []
