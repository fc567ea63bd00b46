"""Is a model where the plan says, and is it noticed when it is not?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TrainingError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.models import ModelRef, placement
from holdfast.models.rank import Rank

SPLIT = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "lm_head": 1}
PARTS = {**SPLIT, "model.norm": 1, "model.rotary_emb": 0}


def test_a_rank_is_what_torchrun_says() -> None:
    assert Rank.current({}) == Rank(0, 0, 1)
    told = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    assert Rank.current(told) == Rank(5, 1, 8)


@pytest.mark.parametrize(
    ("plan", "device", "expected"),
    [
        (MemoryPlan("single", gpus=(3,)), "cuda", {"": 0}),
        (MemoryPlan("ddp", True, gpus=(0, 3)), "cuda", {"": 1}),
        (MemoryPlan("fsdp2", gpus=(0, 1)), "cuda", {"": "cpu"}),
        (MemoryPlan("fsdp2", True, gpus=(0, 1)), "cuda", {"": 1}),
        (MemoryPlan("offload", gpus=(0,)), "cuda", {"": "cpu"}),
        (MemoryPlan("cpu"), "cpu", {"": "cpu"}),
        (MemoryPlan("split", gpus=(0, 1), device_map=SPLIT), "cuda", SPLIT),
        (MemoryPlan("split", gpus=(0, 1), device_map=SPLIT), "cpu", dict.fromkeys(SPLIT, "cpu")),
    ],
)
def test_placement_is_always_spelled_out(
    plan: MemoryPlan, device: str, expected: dict[str, Any]
) -> None:
    rank = Rank(1, 1, 2) if plan.world_size > 1 else Rank()
    assert placement.device_map(plan, device, rank) == expected


def test_what_cannot_be_followed_is_refused(tiny_model: Path) -> None:
    import torch

    with pytest.raises(TrainingError, match="without a device_map"):
        placement.device_map(MemoryPlan("split", gpus=(0, 1)), "cuda", Rank())
    with pytest.raises(TrainingError, match="4-bit weights cannot be offloaded"):
        plan = MemoryPlan("offload", True, gpus=(0,))
        placement.load(ModelRef(str(tiny_model)), plan, torch.float32, "cpu", Rank())


def _adapted(folder: Path, plan: MemoryPlan) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    model = placement.load(ModelRef(str(folder)), plan, torch.float32, "cpu", Rank())
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def _backward(model: Any, checkpointing: bool) -> dict[str, Any]:
    import torch

    model.config.use_cache = False
    if checkpointing:
        model.get_base_model().activation_checkpointing_enable()
        model.enable_input_require_grads()
    ids = torch.arange(1, 40)[None]
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_offloaded_weights_give_the_same_gradients(tiny_model: Path, checkpointing: bool) -> None:
    import torch

    plan = MemoryPlan("offload", gpus=(0,), dtype="float32")
    there, away = _adapted(tiny_model, MemoryPlan("cpu")), _adapted(tiny_model, plan)
    placement.offload(away, "cpu")
    frozen = {n: p for n, p in away.named_parameters() if not p.requires_grad}
    stay = [name for name, one in frozen.items() if one.device.type != "meta"]
    assert all("lm_head" in name for name in stay), "everything frozen but the head is away"
    placement.check_start(away, plan, "lora", "cpu", Rank())
    one, two = _backward(there, checkpointing), _backward(away, checkpointing)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(p.device.type == "meta" for n, p in frozen.items() if n not in stay), "away again"


def test_a_split_gives_the_same_gradients(tiny_model: Path) -> None:
    """Two stages with accelerate's hooks between them, on the one device there is."""
    import torch
    from accelerate import dispatch_model

    plan = MemoryPlan("split", gpus=(0, 1), device_map=PARTS)
    one, two = _adapted(tiny_model, MemoryPlan("cpu")), _adapted(tiny_model, plan)
    where = placement.device_map(plan, "cpu", Rank())
    dispatch_model(two.get_base_model(), where, main_device="cpu", force_hooks=True)
    stages = [layer for layer in two.get_base_model().model.layers if hasattr(layer, "_hf_hook")]
    assert len(stages) == 2
    placement.check_start(two, plan, "lora", "cpu", Rank())
    a, b = _backward(one, False), _backward(two, False)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_outputs_of_the_last_stage_come_home(tiny_model: Path) -> None:
    """Also those of TRL's fused forward; `meta` stands for the other GPU."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    model = _adapted(tiny_model, MemoryPlan("cpu"))
    add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "is_top1"))
    placement.outputs_to_first_gpu(model, torch.device("meta"))
    ids = torch.arange(1, 9)[None]
    found = model(input_ids=ids, labels=ids, fused_lm_head=True)
    assert found.log_probs.shape == (1, 7)
    assert {str(one.device) for one in found.values()} == {"meta"}


def test_what_is_not_as_planned_is_named(tiny_model: Path) -> None:
    import torch

    plan = MemoryPlan("cpu")

    def says(model: Any, words: str, plan: MemoryPlan = plan, method: str = "lora") -> None:
        with pytest.raises(TrainingError, match=words):
            placement.check_start(model, plan, method, "cpu", Rank())

    model = _adapted(tiny_model, plan)
    placement.check_start(model, plan, "lora", "cpu", Rank())
    says(model, "1 train together instead of 2", MemoryPlan("ddp", gpus=(0, 1)))
    says(model, "is trained, under method full", method="full")
    says(model, "float32 instead of bfloat16", MemoryPlan("cpu", adapter_dtype="bfloat16"))
    placement.cast_adapters(model, MemoryPlan("cpu", adapter_dtype="bfloat16"))
    placement.check_start(model, MemoryPlan("cpu", adapter_dtype="bfloat16"), "lora", "cpu", Rank())

    model = _adapted(tiny_model, plan)
    norm = model.get_base_model().model.norm
    norm.weight = torch.nn.Parameter(norm.weight.to("meta"), requires_grad=False)
    says(model, "norm.weight is on meta instead of cpu")

    model = _adapted(tiny_model, plan)
    model.get_base_model().model.norm.weight.requires_grad_(True)
    says(model, "norm.weight is trained, under method lora")
    model.requires_grad_(False)
    says(model, "nothing is trained")


def test_gradients_have_to_arrive(tiny_model: Path) -> None:
    model = _adapted(tiny_model, MemoryPlan("cpu"))
    with pytest.raises(TrainingError, match="2 of 2 layers got no gradient"):
        placement.check_gradients(model)
    _backward(model, False)
    placement.check_gradients(model)
    for name, one in model.named_parameters():
        if ".1." in name and "lora_B" in name:
            one.grad = None if "q_proj" in name else one.grad * 0
    with pytest.raises(TrainingError, match=r"1 of 2 layers.*layers\.1\n"):
        placement.check_gradients(model)
