"""A plan knows what methods and other adapters take, as the allocator and PEFT have it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest

from holdfast.config import TrainSpec
from holdfast.errors import StudyError, UsageError
from holdfast.memory.estimate import adapters
from holdfast.memory.estimate.activations import activations, asides
from holdfast.memory.estimate.method_overhead import (
    NOTHING,
    PER_COMPARED_LOGIT,
    MethodOverhead,
    combined,
)
from holdfast.memory.estimate.states import states
from holdfast.memory.estimate.workload import Variant, Workload, from_training, plain_training
from holdfast.memory.hardware.devices import parse
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.shape import from_config
from holdfast.memory.model.targets import lora_parameters, targeted
from holdfast.memory.planner import explanation, reasons
from holdfast.memory.planner.choice import Comparison, make_plan
from holdfast.memory.planner.schema import to_json
from holdfast.memory.planner.strategies import peak, whole

QWEN = read_shape("Qwen/Qwen2.5-7B-Instruct")
ROOMY = 512 * GIB
KL = MethodOverhead(names=("kl",), logits="policy+reference")
H, F, V, LAYERS, SEQ = 128, 384, 32768, 4, 64
TINY: dict[str, Any] = {
    "model_type": "llama", "hidden_size": H, "intermediate_size": F, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": V, "num_hidden_layers": LAYERS, "pad_token_id": 0,
    "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
SHAPE = from_config(TINY, "tiny", "test")


def _plan(gpus: str, only: str | None = None, **work: Any) -> Comparison:
    return make_plan(QWEN, replace(Workload(), **work), parse(gpus), ROOMY, only=only)


# Several methods together


def test_remedies_share_a_pass_and_keep_copies_of_their_own() -> None:
    l2, ewc = MethodOverhead(names=("l2_init",), copies=1), MethodOverhead(names=("ewc",), copies=2)
    found = combined([KL, NOTHING, l2, ewc, MethodOverhead(names=("token_mask",))])
    assert found == MethodOverhead(
        names=("kl", "l2_init", "ewc"), logits="policy+reference", copies=3
    )
    assert combined([]) == NOTHING
    assert not NOTHING.asks and not MethodOverhead(names=("eaft",)).asks and KL.asks
    harder = combined([KL, MethodOverhead(names=("gkd",), logits="divergence")])
    assert harder.logits == "divergence"


# Whole logits, against the allocator


def _highest(model: Any, step: Callable[[], None]) -> int:
    """The allocator's highest total while `step` runs, with what lay there before, bytes."""
    import torch

    resident = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in [*model.parameters(), *model.buffers()]
    }
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        step()
    total = highest = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda one: one.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return sum(resident.values()) + highest


def _allocated(terms: list[Any], rows: int, answer: int) -> int:
    """Two real steps of two micro-batches of a tiny Llama with LoRA under `Objective`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from holdfast.train.objective import Objective

    values = {key: value for key, value in TINY.items() if key != "model_type"}
    config = AutoConfig.for_model("llama", **values)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    add_fused_lm_head(base, outputs=("log_probs", "entropy", "is_top1"))
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, lora)
    model.train()
    base.activation_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    objective = Objective(terms)
    ids = torch.randint(3, 200, (rows, SEQ))
    labels = ids.clone()
    labels[:, :-answer] = -100
    weights = (labels != -100).float()

    def micro_batch(weights: Any) -> None:
        inputs = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}
        found = objective.forward(model, model, inputs, weights)
        loss = ((-found.log_probs).sum() + found.extra) / labels.numel()
        del found
        loss.backward()

    def step() -> None:
        for _ in range(2):
            micro_batch(weights)
            micro_batch(None)
            optimizer.step()
            optimizer.zero_grad()

    return _highest(model, step)


def _predicted(overhead: MethodOverhead, rows: int, answer: int) -> tuple[int, int]:
    """The same by trace and by formula."""
    from holdfast.memory.trace import tracer
    from holdfast.memory.trace.trace_job import TraceJob

    work = Workload(
        method="lora", dropout=0.0, optim="adamw_torch_fused", seq_len=SEQ, dtype="float32",
        supervised_tokens=answer, method_overhead=overhead,
    )  # fmt: skip
    job = TraceJob(
        TINY, SEQ, device="cpu", dropout=0.0, dtype="float32", autocast=False,
        logits=overhead.logits, positions=answer if overhead.reference else 0,
    )  # fmt: skip
    phases = tracer.trace_stack(job, ["layer"] * LAYERS, rows).values()
    by_formula = peak(
        whole(states(SHAPE, work, "lora"), SHAPE), activations(SHAPE, work, "lora", rows, True)
    )
    return max(sum(parts.values()) for parts in phases), by_formula.total


def test_kl_takes_what_trace_and_formula_say() -> None:
    from holdfast.methods import Term
    from holdfast.methods._divergence import divergence

    found = _allocated([Term(divergence=divergence)], 2, SEQ - 1)
    traced, formula = _predicted(KL, 2, SEQ - 1)
    assert traced == pytest.approx(found, rel=0.02)
    assert formula == pytest.approx(found, rel=0.05)
    # On the CPU the plain loss unfolds its tiles, so that it takes nearly as much.
    assert found > 1.05 * _allocated([], 2, SEQ - 1)


def test_token_weights_take_nothing() -> None:
    from holdfast.methods import Term

    weighed = Term(weights=lambda log_probs, entropy, mask: entropy / 3)
    plain = _allocated([], 1, 40)
    assert _allocated([weighed], 1, 40) == pytest.approx(plain, rel=0.01)


def test_a_divergence_is_traced_with_trls_own_function() -> None:
    from holdfast.memory.trace import tracer
    from holdfast.memory.trace.trace_job import TraceJob

    for logits in set(PER_COMPARED_LOGIT) - {"none"}:
        job = TraceJob(TINY | {"vocab_size": 32768}, SEQ, logits=logits, positions=32)
        loss = tracer.trace_stack(job, ["layer"] * 2, 2)["loss"]
        each = loss["logits"] / (2 * 32 * 32768)
        assert each == pytest.approx(PER_COMPARED_LOGIT[logits], rel=0.05), logits


def test_whole_logits_count_where_they_are_compared() -> None:
    plain = Workload(seq_len=1024, supervised_tokens=200)
    each = PER_COMPARED_LOGIT["policy+reference"] * QWEN.vocab

    def loss(work: Workload) -> int:
        return activations(QWEN, work, "lora", 2, True).loss

    assert loss(replace(plain, method_overhead=KL)) == 2 * 200 * each
    assert loss(replace(plain, method_overhead=replace(KL, everywhere=True))) == 2 * 1024 * each
    assert loss(replace(plain, method_overhead=KL, supervised_tokens=None)) == 2 * 1024 * each


# Copies, answers, meters, teachers


def test_copies_count_where_no_small_product_tells_the_change() -> None:
    ewc = MethodOverhead(names=("ewc",), copies=2)

    def more(method: str, variant: Variant = "lora") -> int:
        work = Workload(optim="adamw_torch", variant=variant, dtype="float32")
        found = states(QWEN, replace(work, method_overhead=ewc), method)
        return found.optimiser - states(QWEN, work, method).optimiser

    assert more("lora") == more("lora", "corda") == 0
    assert more("full") == 2 * 4 * QWEN.parameters
    dora = adapters.trained(QWEN, Workload(variant="dora"))
    assert more("lora", "dora") == 2 * 4 * dora


def test_kept_weights_count_in_float32_under_plain_lora_too() -> None:
    lisa = MethodOverhead(names=("lisa",), kept=2)
    for method, dtype in (("lora", "bfloat16"), ("full", "float32")):
        work = Workload(optim="adamw_torch", dtype=dtype)
        more = states(QWEN, replace(work, method_overhead=lisa), method).optimiser
        plain = states(QWEN, work, method)
        assert more - plain.optimiser == 2 * 4 * plain.trained
    assert combined([lisa, MethodOverhead(names=("ema",), kept=1)]).kept == 3


def test_answering_in_the_loop_needs_its_cache_and_one_gpu() -> None:
    drawing = MethodOverhead(names=("sdft",), logits="policy+reference", generated_tokens=256)
    work = from_training(TrainSpec(), 700, overhead=drawing)
    assert (work.seq_len, work.positions) == (956, 256)
    (aside,) = asides(QWEN, work, 4)
    moment = aside.moment(28, True)
    cache = 28 * 2 * 4 * 128 * 2 * 4 * 956  # layers, keys and values, heads, width, bf16, tokens
    assert moment.workspace > cache and moment.logits == 4 * 8 * QWEN.vocab
    assert aside.moment(14, False).logits == 0
    assert plain_training(work).seq_len == 700
    found = _plan("2x24GiB", method_overhead=drawing)
    for one in found.candidates:
        assert bool(one.refused) == (one.plan.placement != "single")
    with pytest.raises(UsageError, match="runs on one GPU"):
        _plan("2x24GiB", only="ddp", method_overhead=drawing)


def test_pairs_are_two_rows_on_one_gpu() -> None:
    pairs = Workload(method_overhead=MethodOverhead(names=("dpo",), rows=2))
    one = activations(QWEN, pairs, "lora", 3, True)
    assert one == activations(QWEN, Workload(), "lora", 6, True)
    found = _plan("2x24GiB", method_overhead=pairs.method_overhead)
    assert all(bool(c.refused) == (c.plan.placement != "single") for c in found.candidates)
    both = combined([pairs.method_overhead, MethodOverhead(names=("grpo",), answers=8)])
    assert (both.rows, both.answers, both.drawn) == (2, 8, None)
    assert combined([both, MethodOverhead(names=("raft",), drawn=4)]).drawn == 4


def test_meters_are_read_between_steps() -> None:
    work = Workload(method_overhead=MethodOverhead(names=("meters",), probed_tokens=300))
    acts = activations(QWEN, work, "lora", 8, True)
    *learning, meters = acts.moments(28, True)
    assert meters.activations == 0 and meters.logits == 20 * 300 * QWEN.vocab
    assert learning == list(activations(QWEN, Workload(), "lora", 8, True).moments(28, True))


def test_a_teacher_lies_beside_the_student() -> None:
    small = read_shape("Qwen/Qwen2.5-0.5B-Instruct").parameters
    taught = Workload(method_overhead=MethodOverhead(names=("gkd",), teacher_parameters=small))
    more = states(QWEN, taught, "qlora").weights - states(QWEN, Workload(), "qlora").weights
    assert more == 2 * small


# Other adapters


def _peft(variant: str, rank: int, targets: Any, layers: tuple[int, ...] | None) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from holdfast.config import LoraSpec
    from holdfast.train.adapters import adapt

    values = {key: value for key, value in TINY.items() if key != "model_type"}
    values["vocab_size"] = 64
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **values), dtype=torch.bfloat16
    )
    lora = LoraSpec(r=rank, variant=variant, target_modules=targets, layers=layers)  # type: ignore[arg-type]
    before = sum(one.numel() * one.element_size() for one in model.parameters())
    from holdfast.data.chat import Encoded

    rows = [Encoded((5, 6, 7, 8), (5, 6, 7, 8))]
    return before, adapt(model, TrainSpec(lora=lora), rows, ["task"])


@pytest.mark.parametrize(
    "variant", [one for one in get_args(Variant) if one not in ("corda", "guardspace")]
)
@pytest.mark.parametrize(
    ("targets", "layers"), [("all-linear", None), ("attention", None), ("mlp", (1, 3))]
)
def test_adapters_are_as_large_as_peft_makes_them(
    variant: Variant, targets: str, layers: tuple[int, ...] | None
) -> None:
    before, model = _peft(variant, 16, targets, layers)
    work = Workload(rank=16, variant=variant, target_modules=targets, layers=layers)
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert adapters.trained(SHAPE, work) == trained
    kept = sum(one.numel() for name, one in model.named_buffers() if "._osf_" in name)
    assert adapters.frozen(SHAPE, work) == kept
    found = states(SHAPE, work, "lora")
    every = [*model.parameters(), *(one for name, one in model.named_buffers() if "_osf_" in name)]
    taken = sum(one.numel() * one.element_size() for one in every)
    assert found.adapters == taken - before


def test_corda_is_a_lora_of_twice_the_rank() -> None:
    lora, corda = (Workload(rank=16, variant=one) for one in ("rslora", "corda"))
    assert adapters.trained(QWEN, corda) == 2 * adapters.trained(QWEN, lora)
    assert adapters.projector_bytes(QWEN, corda) == 0


def test_guardspace_keeps_a_square_for_all_matrices_that_read_the_same() -> None:
    """Queries, keys and values share one of 3,584 inputs, gate and up one; output and down not."""
    lora, guarded = (Workload(rank=16, variant=one) for one in ("lora", "guardspace"))
    assert adapters.trained(QWEN, guarded) == 2 * adapters.trained(QWEN, lora)
    expected = 28 * 4 * (3 * 3584**2 + 18944**2)
    assert adapters.projector_bytes(QWEN, guarded) == expected
    corda = states(QWEN, replace(guarded, variant="corda"), "lora")
    assert states(QWEN, guarded, "lora").adapters == corda.adapters + expected
    attention = replace(guarded, target_modules=("q_proj", "o_proj"))
    assert adapters.projector_bytes(QWEN, attention) == 28 * 4 * 2 * 3584**2
    assert adapters.trained(QWEN, lora) == lora_parameters(QWEN, 16)


@pytest.mark.parametrize("variant", ["dora", "oft", "osf"])
@pytest.mark.parametrize("checkpointing", [True, False], ids=["recomputed", "kept"])
def test_what_other_adapters_keep_by_formula_and_by_trace(
    variant: Variant, checkpointing: bool
) -> None:
    from holdfast.memory.trace import tracer
    from holdfast.memory.trace.trace_job import TraceJob

    config = TINY | {"hidden_size": 256, "intermediate_size": 704, "vocab_size": 1024}
    shape = from_config(config, "small", "test")
    job = TraceJob(config, 256, variant=variant, checkpointing=checkpointing, fused_loss=False)
    work = Workload(seq_len=256, variant=variant, optim="adamw_torch_fused", loss="whole")
    peaks = tracer.trace_stack(job, ["layer"] * LAYERS, 2).values()
    traced = max(sum(parts.values()) for parts in peaks)
    acts = activations(shape, work, "lora", 2, checkpointing)
    formula = peak(whole(states(shape, work, "lora"), shape), acts).total
    assert 0.99 <= formula / traced <= 1.15


def test_kinds_that_were_not_tried_everywhere_are_not_planned_there() -> None:
    found = _plan("2x80GiB", variant="osf", rank=64)
    assert found.chosen is not None and found.chosen.plan.strategy == "single"
    for one in found.candidates:
        assert bool(one.refused) == (one.plan.strategy != "single")
    dora = _plan("2x24GiB", variant="dora")
    assert {one.plan.placement for one in dora.candidates if not one.refused} <= {"single", "ddp"}
    with pytest.raises(UsageError, match="takes the weights apart"):
        _plan("1x24GiB", variant="corda", method="qlora")


def test_layers_and_short_words() -> None:
    half = tuple(range(14))
    assert lora_parameters(QWEN, 16, layers=half) * 2 == lora_parameters(QWEN, 16)
    both = lora_parameters(QWEN, 16, "attention") + lora_parameters(QWEN, 16, "mlp")
    assert both == lora_parameters(QWEN, 16)
    names = {one.name for one, _ in targeted(read_shape("microsoft/phi-4"), "attention")}
    assert names == {"qkv_proj", "o_proj"}
    with pytest.raises(StudyError, match="has no layer 28") as caught:
        lora_parameters(QWEN, 16, layers=(3, 28))
    assert "0 to 27" in caught.value.remedy


# Plans


def test_a_plan_says_what_remedies_add() -> None:
    found = _plan("1x80GiB", method_overhead=KL, micro_batch=1, checkpointing=True, quantize=False)
    plain = _plan("1x80GiB", micro_batch=1, checkpointing=True, quantize=False)
    assert found.chosen is not None and plain.chosen is not None
    more = found.chosen.plan.fullest.total - plain.chosen.plan.fullest.total
    assert found.method_bytes == more > 4 * GIB
    english, chinese = (
        explanation.method_overhead(found, "en"),
        explanation.method_overhead(found, "zh"),
    )
    kept = "Remedies: kl: whole logits of model and reference are kept"
    assert english == f"{kept}: + {reasons.gib(more)} GiB."
    assert "完整 logits" in chinese and reasons.gib(more) in chinese
    value = json.loads(json.dumps(to_json(found, "formula")))
    assert value["extra_bytes"] == more
    assert value["workload"]["extra"]["names"] == ["kl"]
    assert found.chosen.plan.tokens_per_s < plain.chosen.plan.tokens_per_s


def test_a_plan_without_methods_says_nothing_of_them() -> None:
    found = _plan("1x80GiB")
    assert explanation.method_overhead(found, "en") == ""
    value = to_json(found, "formula")
    assert not {"extra", "variant", "layers"} & set(value["workload"])
    assert "extra_bytes" not in value


def test_a_plan_that_does_not_fit_says_it_too() -> None:
    found = _plan("1x16GiB", only="single", method_overhead=KL, method="lora", quantize=False)
    assert found.chosen is None
    assert "kl" in explanation.method_overhead(found, "en")
