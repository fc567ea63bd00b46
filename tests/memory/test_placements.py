"""What each process holds under each placement, and what lies outside the tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.errors import UsageError
from holdfast.memory.estimate.activations import Moment, activations
from holdfast.memory.estimate.states import states, step_bytes
from holdfast.memory.estimate.workload import Workload, as_sharded
from holdfast.memory.hardware.devices import parse
from holdfast.memory.memory_plan import GIB, Breakdown
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner import machine
from holdfast.memory.planner.choice import make_plan
from holdfast.memory.planner.host_memory import PROCESS_BYTES, host_need, host_size
from holdfast.memory.planner.strategies import (
    RIGID,
    RuntimeOverheads,
    peak,
    sharded,
    stages,
    whole,
    with_overheads,
)

QWEN = read_shape("Qwen/Qwen2.5-7B-Instruct")
GEMMA = read_shape("google/gemma-2-2b")
FULL = Workload(method="full", optim="adamw_torch_fused", seq_len=1024)


@pytest.mark.parametrize("shape", [QWEN, GEMMA], ids=lambda one: one.name)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stage_trains_what_it_holds(shape: object, method: str) -> None:
    model = QWEN if shape is QWEN else GEMMA
    held = states(model, replace(FULL, method=method), method)  # type: ignore[arg-type]
    parts = stages(held, model, [0, 7, 13, 20, model.layers])
    for name in ("weights", "adapters", "gradients", "optimiser"):
        total = sum(getattr(part, name) for part in parts)
        assert total == pytest.approx(getattr(held, name), abs=len(parts))
    if method == "lora":
        return
    for part in parts:  # float32 weights, their gradients, and two moments
        assert part.gradients == pytest.approx(part.weights, rel=1e-6)
        assert part.optimiser == pytest.approx(2 * part.weights, rel=1e-6)


def test_the_last_stage_of_a_small_model_is_mostly_its_embedding() -> None:
    """Gemma-2-2B under full fine-tuning on four GPUs: 256,000 words, which the head shares."""
    held = states(GEMMA, FULL, "full")
    last = stages(held, GEMMA, [0, 8, 16, 24, 26])[-1]
    embedding = 4 * GEMMA.vocab * GEMMA.hidden
    layers = 2 * 4 * GEMMA.layer_parameters
    assert last.weights + last.gradients + last.optimiser == pytest.approx(
        4 * (embedding + layers), rel=1e-3
    )


def test_modules_that_are_trained_whole_lie_where_they_are() -> None:
    work = Workload(whole=("lm_head",), optim="adamw_torch_fused")
    held = states(QWEN, work, "lora")
    first, last = stages(held, QWEN, [0, 14, 28])
    assert last.gradients - first.gradients == pytest.approx(4 * QWEN.vocab * QWEN.hidden, rel=1e-6)


def test_the_step_of_plain_adamw_takes_the_roots_of_all_moments() -> None:
    assert step_bytes("adamw_torch", 10 * GIB, GIB, on_cpu=False) == 10 * GIB
    assert step_bytes("adamw_torch", 10 * GIB, GIB, on_cpu=True) == 2 * GIB
    for optim in ("adamw_torch_fused", "paged_adamw_32bit", "adamw_bnb_8bit", "sgd"):
        assert step_bytes(optim, 10 * GIB, GIB, on_cpu=False) == 0


def test_16_bit_weights_that_are_trained_take_ten_bytes_each() -> None:
    """Weight, gradient, two moments, and the roots while it steps: the peak of short examples."""
    work = replace(FULL, narrow=True, autocasts=False, optim="adamw_torch", seq_len=64)
    held = states(QWEN, work, "full")
    assert held.weights + held.gradients + held.optimiser == 8 * QWEN.parameters
    found = peak(whole(held, QWEN), activations(QWEN, work, "full", 1, True), accumulated=False)
    assert found.allocated == 10 * QWEN.parameters


class _Moments:
    def moments(self, layers: int, head: bool) -> list[Moment]:
        return [Moment(0, 10 * GIB, 0), Moment(GIB, 0, 0, gradients=1.0)]


def test_gradients_are_there_before_the_loss_only_if_a_step_has_several_micro_batches() -> None:
    held = whole(states(QWEN, FULL, "full"), QWEN)
    alone, several = (peak(held, _Moments(), accumulated=one) for one in (False, True))
    assert several.gradients == held.gradients and several.logits == 10 * GIB
    assert alone.gradients == held.gradients and not alone.logits  # the backward pass is fuller


def test_sharded_full_fine_tuning_copies_and_widens_nothing() -> None:
    kept, computed = as_sharded(FULL, "full")
    assert kept == FULL, "masters in float32"
    alone = activations(QWEN, FULL, "full", 1, True)
    shard = activations(QWEN, computed, "full", 1, True)
    assert alone.copies_layer == 2 * QWEN.layer_parameters and not shard.copies_layer
    assert alone.kept_layer == 2 * shard.kept_layer, "a residual stream of 16 bits"
    pure = replace(FULL, narrow=True, autocasts=False)
    assert as_sharded(pure, "full") == (pure, pure)
    lora = Workload()
    assert as_sharded(lora, "lora") == (lora, lora)


def test_llama_3_8b_is_fully_fine_tuned_on_four_80_gib_gpus() -> None:
    work = replace(FULL, seq_len=4096, global_batch=16, micro_batch=4, checkpointing=True)
    shape = read_shape("meta-llama/Meta-Llama-3-8B")
    found = make_plan(shape, work, parse("4xa100-80gb"), None, only="fsdp2")
    assert found.chosen is not None
    share = 16 * shape.parameters / 4 / GIB
    four = next(one.plan for one in found.candidates if len(one.plan.gpus) == 4)
    assert len(four.gpus) == 4
    assert share < four.fullest.allocated / GIB < 1.8 * share


def test_a_shards_units_are_gathered_as_wide_as_the_computation() -> None:
    held = states(QWEN, FULL, "full")
    one = sharded(held, QWEN, 4, FULL)
    head, layer = 2 * QWEN.vocab * QWEN.hidden, 2 * QWEN.layer_parameters
    assert one.gathered == pytest.approx(max(head + layer, 2 * layer))
    assert one.in_flight == pytest.approx(layer)
    assert one.weights == -(-held.weights // 4)


def test_fsdp1_keeps_its_root_and_overlaps_frozen_layers() -> None:
    lora = states(QWEN, Workload(), "lora")
    first, second = (sharded(lora, QWEN, 2, Workload(fsdp=one)) for one in (1, 2))  # type: ignore[arg-type]
    ends = lora.embedding + lora.head
    assert first.gathered >= ends > second.gathered - 2 * lora.layer_weights
    assert (first.overlap, second.overlap) == (2, 1)
    assert sharded(states(QWEN, FULL, "full"), QWEN, 2, replace(FULL, fsdp=1)).overlap == 1


def test_overheads_follow_what_is_allocated() -> None:
    states_only = Breakdown(weights=100 * GIB)
    moving = Breakdown(activations=100 * GIB)
    logits = Breakdown(logits=100 * GIB)
    for overheads in (RuntimeOverheads(), RIGID):
        kept, kinds, whole_logits = (
            with_overheads(one, overheads, False).fragmentation
            for one in (states_only, moving, logits)
        )
        assert kept < kinds <= whole_logits
    grows, rigid = (
        with_overheads(moving, one, False).fragmentation for one in (RuntimeOverheads(), RIGID)
    )
    assert grows < rigid
    tiled = replace(moving, weights=40 * GIB)
    share = with_overheads(tiled, RIGID, False)
    assert 0.06 < (share.total - share.allocated) / share.allocated < 0.11


def test_host_memory_is_that_of_the_machine_that_is_meant() -> None:
    work = replace(FULL, global_batch=4)
    gpus = parse("4xh100")
    unknown = make_plan(QWEN, work, gpus, None, only="fsdp2")
    assert unknown.chosen is not None and "--host-ram" in machine.host(unknown, "en")
    need = machine.host_need_of(unknown)
    assert need is not None
    assert need.loading == 4 * QWEN.parameters, "rank 0 reads all of it in float32"
    assert need.saving == 12 * QWEN.parameters
    with pytest.raises(UsageError, match="GiB of host memory"):
        make_plan(QWEN, work, gpus, 64 * GIB, only="fsdp2")
    known = make_plan(QWEN, work, gpus, 256 * GIB, only="fsdp2")
    assert known.chosen is not None and "--host-ram" not in machine.host(known, "en")


def test_what_goes_straight_to_the_gpu_takes_no_host_memory() -> None:
    held = states(QWEN, Workload(), "lora")
    for placement in ("single", "ddp", "split"):
        need = host_need(placement, False, 2, held)  # type: ignore[arg-type]
        assert need.peak == need.processes == 2 * PROCESS_BYTES
    assert host_need("offload", False, 1, held).loading == held.weights
    assert host_need("fsdp2", True, 2, held).loading == 0, "4-bit weights are read by every rank"


@pytest.mark.parametrize(
    ("text", "size"),
    [("64GiB", 64 * GIB), ("64", 64 * GIB), ("0.5 TB", 5 * 10**11), ("512gb", 512 * 10**9)],
)
def test_sizes_of_host_memory(text: str, size: int) -> None:
    assert host_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3GiB", "0", "64 elephants", "1e9TiB", "nanGiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="no size") as caught:
        host_size(text)
    assert "--host-ram 64GiB" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("gpus", "batch", "micro", "said"),
    [
        ("8xa100-80gb", 4, None, "Raise it to 8"),
        ("8xa100-80gb", 4, None, "or plan for 4"),
        ("3xa100-80gb", 4, None, "Raise it to 6"),
        ("4xa100-80gb", 8, 4, "Make it 2, or the global batch 16"),
    ],
)
def test_idle_gpus_come_with_what_would_use_them(
    gpus: str, batch: int, micro: int | None, said: str
) -> None:
    work = Workload(method="lora", quantize=False, global_batch=batch, micro_batch=micro)
    found = make_plan(QWEN, work, parse(gpus), None)
    assert found.chosen is not None
    assert said in machine.idle(found, "en")
    assert "闲置" in machine.idle(found, "zh")
