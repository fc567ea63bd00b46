"""What other trainers and kernels keep, counted from their own code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.memory.estimate import litgpt
from holdfast.memory.estimate.activations import Moment, activations
from holdfast.memory.estimate.kept import gradients_per_token, kept_per_token
from holdfast.memory.estimate.states import nf4_bytes, states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.stated import Stated
from holdfast.memory.planner.strategies import Held, peak

LLAMA = read_shape("meta-llama/Llama-2-7b-hf")
SMALL = read_shape("meta-llama/Llama-3.2-1B")
LITGPT = Stated(script="litgpt").applied(Workload(target_modules=("q_proj", "v_proj")))
OLD = replace(LITGPT, keeps_inputs=True)
TOKENS = 1024


def test_litgpt_has_a_head_of_its_own_in_few_bits_with_the_others() -> None:
    assert SMALL.tied and LITGPT.weight_bytes("lora") == 2 and not LITGPT.autocast
    ends = SMALL.vocab * SMALL.hidden
    trl = replace(LITGPT, script="trl")
    assert states(SMALL, LITGPT, "lora").weights - states(SMALL, trl, "lora").weights == 2 * ends
    assert states(SMALL, OLD, "qlora").head == nf4_bytes(ends)


def test_litgpts_stable_embedding_is_there_three_times() -> None:
    new, old = (states(SMALL, one, "qlora").weights for one in (LITGPT, OLD))
    assert new - old == 2 * 2 * SMALL.vocab * SMALL.hidden
    assert litgpt.extra_embeddings(LITGPT, "lora") == 0


def test_litgpts_adapter_on_queries_keys_and_values_is_one() -> None:
    every = replace(LITGPT, target_modules=("q_proj", "k_proj", "v_proj"), dropout=0.05)
    one = replace(every, target_modules=("v_proj",))
    assert litgpt.kept_per_token(LLAMA, every) == litgpt.kept_per_token(LLAMA, one)
    # the float32 inputs of two norms, the adapter's input and mask, q and output, k and the whole
    # output behind v, three of the feed-forward part, the attention's sums
    h, f = LLAMA.hidden, LLAMA.intermediate
    assert litgpt.kept_per_token(LLAMA, every) == 8 * h + 3 * h + 4 * h + 8 * h + 6 * f + 4 * 32


def test_an_old_bitsandbytes_keeps_inputs_and_litgpt_those_of_the_step_before() -> None:
    inputs = 2 * (2 * LLAMA.hidden + LLAMA.intermediate)
    assert litgpt.earlier_per_token(LLAMA, OLD, "qlora") == inputs
    assert litgpt.earlier_per_token(LLAMA, OLD, "lora") == 0
    assert litgpt.earlier_per_token(LLAMA, LITGPT, "qlora") == 0
    work = replace(OLD, seq_len=TOKENS)
    found = activations(LLAMA, work, "qlora", 1, False)
    loss, after = found.moments(LLAMA.layers, True)[:2]
    assert loss.activations - after.activations == LLAMA.layers * found.earlier_layer
    again = activations(LLAMA, work, "qlora", 1, True)
    assert again.earlier_layer == 0, "what is computed again is not kept that long"
    plain = replace(Workload(target_modules=("v_proj",)), dropout=0.05)
    more = kept_per_token(LLAMA, replace(plain, keeps_inputs=True), "qlora", False)
    assert more - kept_per_token(LLAMA, plain, "qlora", False) == inputs


def test_litgpts_logits_are_handed_out_in_float32_and_its_head_is_written_out_twice() -> None:
    lora, four = (litgpt.loss_bytes(LLAMA, LITGPT, one, TOKENS) for one in ("lora", "qlora"))
    assert lora[0] == (4 + 2 + 4) * LLAMA.vocab * TOKENS
    assert four[0] - lora[0] == 2 * 2 * LLAMA.vocab * LLAMA.hidden - 4 * LLAMA.vocab * TOKENS
    capped = read_shape("google/gemma-2-2b")
    assert litgpt.loss_bytes(capped, LITGPT, "lora", 1)[0] == 12 * capped.vocab


def test_litgpt_is_planned_by_formula_and_the_plan_says_so() -> None:
    stated = Stated(script="litgpt", keeps_inputs=True)
    report = plan(PlanRequest("llama-2-7b", "a100-80gb", 512, method="qlora", stated=stated))
    text = " ".join(report.notes)
    assert report.source == "formula" and "LitGPT's trainer" in text and "0.43.2" in text


def test_a_compiled_layer_keeps_what_matrices_and_attention_made() -> None:
    work = Workload(compiled=True)
    shape = read_shape("meta-llama/Llama-3.1-8B")
    numbers = 2 * 4096 + 2 * 4096 + 2 * 1024 + 2 * 14336
    assert kept_per_token(shape, work, "lora", False) == 2 * numbers + 4 * 32
    assert kept_per_token(shape, Workload(), "lora", False) > 2 * 2 * numbers


def test_ligers_gradients_are_written_over_gate_and_up() -> None:
    attention = Workload(target_modules=("q_proj", "v_proj"))
    liger = gradients_per_token(LLAMA, Workload(kernels="liger"), "lora")
    assert liger == 2 * LLAMA.intermediate
    assert gradients_per_token(LLAMA, attention, "lora") == 6 * LLAMA.intermediate
    kept = gradients_per_token(LLAMA, Workload(), "lora")
    assert kept == 4 * LLAMA.intermediate, "the last matrix has let go of its input by then"
    full = Workload(method="full", narrow=True, autocasts=False)
    less = kept_per_token(LLAMA, full, "full", False) - kept_per_token(
        LLAMA, replace(full, kernels="liger"), "full", False
    )
    # norms' inputs in 16 bits, no normalised copies, no activation
    assert less == 2 * (4 - 2) * LLAMA.hidden + 2 * 2 * LLAMA.hidden + 2 * LLAMA.intermediate


@pytest.mark.parametrize("overlap", [1, 2])
def test_of_two_layers_at_once_the_second_has_no_gradients_yet(overlap: int) -> None:
    class Acts:
        def moments(self, layers: int, head: bool) -> list[Moment]:
            return [Moment(10, 0, 100, 1.0, True, 70)]

    held = Held(0, 0, 0, 0, 1, True, overlap=overlap)
    assert peak(held, Acts()).workspace == 100 + 70 * (overlap - 1)


def test_without_recomputation_none_is_tried() -> None:
    from holdfast.config import TrainSpec

    train = TrainSpec(gradient_checkpointing=False)
    report = plan(PlanRequest("qwen2.5-7b", "1x24GiB", trace=False, train=train))
    assert {one.plan.checkpointing for one in report.candidates
            if one.plan.placement != "offload"} == {False}  # fmt: skip
