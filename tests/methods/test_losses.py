"""Do the loss methods compute what their formulas say, and does a step with them still add up?"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import methods
from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.methods._divergence import divergence
from holdfast.methods.ewc import diagonal, factored
from holdfast.models import ModelRef, language_head, weight_delta
from holdfast.train import arguments, data, objective
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, lora={"dropout": 0.0},
)  # fmt: skip


def _term(name: str, **options: Any) -> methods.Term:
    term = methods.build(name, options, "s", "arms.a.loss").term()
    assert term is not None
    return term


def test_dft_weighs_by_probability() -> None:
    log_probs = torch.log(torch.tensor([[0.5, 0.1, 1.0]]))
    mask = torch.tensor([[True, True, False]])
    weigh = _term("loss_weight", by="dft").weights
    assert weigh is not None
    assert weigh(log_probs, None, mask)[0].tolist() == pytest.approx([0.5, 0.1, 1.0])


def test_eaft_weighs_by_entropy_up_to_one() -> None:
    entropy, mask = torch.tensor([[0.0, 1.5, 3.0, 9.0]]), torch.ones(1, 4, dtype=torch.bool)
    weigh = _term("loss_weight", by="eaft", top_k="all").weights
    assert weigh is not None
    found = weigh(torch.zeros(1, 4), entropy, mask)
    assert found[0].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.0])
    squared = _term("loss_weight", by="eaft", top_k="all", power=2, floor=0.1).weights
    assert squared is not None
    found = squared(torch.zeros(1, 4), entropy, mask)
    assert found[0].tolist() == pytest.approx([0.1, 0.25, 1.0, 1.0])
    for words, top, expected in ((2, 4, 0.5), (4, 4, 1.0), (20, 20, math.log(20) / 3.0)):
        some = _term("loss_weight", by="eaft", top_k=top).weights
        assert some is not None
        equal = torch.full((1, 1, top), -math.inf)
        equal[..., :words] = 0.3  # so many equally likely words
        equal = equal.clamp(min=-100)
        found = some(torch.zeros(1, 1), equal, mask[:, :1])
        assert found.item() == pytest.approx(expected), "of ln 4, or of the published 3.0"


def test_eaft_is_the_published_form_and_the_exact_one_an_option() -> None:
    """One word of probability .7 and a flat tail over 32,000: .001 among 20 words, 1 among all."""
    logits = torch.log(torch.cat([torch.tensor([0.7]), torch.full((32_000,), 0.3 / 32_000)]))[None]
    whole = language_head.entropy_among(logits)
    mask = torch.ones(1, 1, dtype=torch.bool)
    weights = {}
    for top in (20, "all"):
        term = _term("loss_weight", by="eaft", top_k=top)
        assert term.weights is not None
        seen = language_head.largest(logits, term.top_k) if term.top_k else whole
        weights[top] = term.weights(torch.zeros(1, 1), seen[None], mask).item()
    assert whole.item() == pytest.approx(0.61 + 0.3 * math.log(32_000), abs=1e-2)
    assert weights == {20: pytest.approx(0.001036, abs=1e-6), "all": 1.0}


def test_settings_and_identity_of_eaft() -> None:
    """What EAFT was before keeps its name, under the setting that asks for it."""
    old = {"by": "eaft", "power": 1.0, "floor": 0.0}
    every = methods.build("loss_weight", {"by": "eaft", "top_k": "all"}, "s", "arms.a.loss")
    assert every.identity() == old and every.term().top_k is None
    usual = methods.build("loss_weight", None, "s", "arms.a.loss")
    assert usual.identity() == old | {"top_k": 20} and usual.term().top_k == 20
    assert "the 20 likeliest words" in usual.recipe() and "all words" in every.recipe()
    for by in ("dft", "talr"):
        other = methods.build("loss_weight", {"by": by}, "s", "arms.a.loss")
        assert other.identity() == old | {"by": by}
    for wrong in ({"top_k": 1}, {"top_k": "most"}, {"by": "dft", "top_k": 5}):
        with pytest.raises(StudyError, match="top_k"):
            methods.build("loss_weight", wrong, "s", "arms.a.loss")


@pytest.mark.parametrize("count", [3, 20])
def test_the_likeliest_words_of_the_tiled_head_are_those_of_the_logits(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Tiles smaller than rows and vocabulary, and logits that are capped and scaled."""
    from transformers import AutoModelForCausalLM
    from trl.trainer import utils

    monkeypatch.setattr(language_head, "POSITIONS", 3)
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 50)
    head = utils._ChunkedLogProbFunction
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    inputs = torch.arange(3, 19).view(2, 8)
    labels = inputs.clone()
    labels[0, :5] = -100
    with torch.no_grad():
        logits = 0.5 * model(inputs).logits[:, :-1]
    logits = 2.0 * torch.tanh(logits / 2.0)
    model.config.final_logit_softcapping, model.config.logit_scale = 2.0, 0.5
    utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    seen: list[torch.Tensor] = []

    def weights(log_probs: torch.Tensor, given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return torch.ones_like(log_probs)

    terms = [methods.Term(weights=weights, top_k=count), methods.Term(weights=weights)]
    given = {"input_ids": inputs, "labels": labels}
    outputs = objective.Objective(terms).forward(model, model, given, None)
    assert utils._ChunkedLogProbFunction is head
    assert outputs.extra.item() == 0
    mask = labels[:, 1:] != -100
    expected = logits.topk(count, dim=-1).values * mask[..., None]
    torch.testing.assert_close(seen[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen[1], outputs.entropy)  # the one beside it still sees all words
    assert bool((seen[1] - language_head.entropy_among(seen[0]))[mask].min() > 0.01)


def test_the_likeliest_words_are_seen_beside_a_divergence(tiny_model: Path) -> None:
    """Whole logits are there then, of the columns that anybody needs."""
    from contextlib import nullcontext

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    model.disable_adapter = nullcontext
    inputs = torch.arange(3, 19).view(2, 8)
    labels = inputs.clone()
    labels[:, :5] = labels[1, :7] = -100
    compared = torch.zeros(2, 8)
    compared[1, 3] = 1.0
    seen: list[torch.Tensor] = []

    def weights(log_probs: torch.Tensor, given: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(given[mask])
        return torch.ones_like(log_probs)

    terms = [methods.Term(weights=weights, top_k=3), methods.Term(divergence=divergence)]
    given = {"input_ids": inputs, "labels": labels}
    found = objective.Objective(terms).forward(model, model, given, compared)
    logits = model(inputs).logits[:, :-1][labels[:, 1:] != -100]
    torch.testing.assert_close(seen[0], logits.topk(3, dim=1).values, rtol=0, atol=1e-5)
    assert found.extra.item() == pytest.approx(0, abs=1e-6), "the base is the model itself"


def test_where_weights_are_gathered_together_every_process_makes_as_many_passes(
    tiny_model: Path,
) -> None:
    """One that compares nothing would be a pass ahead of one that does, with weights of another
    layer."""
    from contextlib import nullcontext

    from transformers import AutoModelForCausalLM
    from trl.trainer import utils

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    model.disable_adapter = nullcontext
    utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    passes: list[bool] = []
    model.get_decoder().register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    inputs = torch.arange(3, 19).view(2, 8)
    given = {"input_ids": inputs, "labels": inputs}
    none, some = torch.zeros(2, 8), torch.zeros(2, 8)
    some[1, 3] = 1.0
    terms = [methods.Term(divergence=divergence)]
    made = {}
    for gathered in (False, True):
        for name, compared in (("none", none), ("some", some), ("no data", None)):
            passes.clear()
            found = objective.Objective(terms, gathered).forward(model, model, given, compared)
            made[gathered, name] = list(passes)
            assert name == "some" or found.extra.item() == 0
    assert made[True, "none"] == made[True, "some"] == made[False, "some"] == [False, True]
    assert made[False, "none"] == made[True, "no data"] == [True]


def test_the_likeliest_words_are_spread_over_the_marked_positions() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    marked = language_head.spread(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), mask)
    assert marked.tolist() == [[[1, 2], [0, 0], [3, 4]], [[0, 0], [0, 0], [5, 6]]]
    assert torch.equal(
        language_head.spread(torch.arange(1, 7), mask), torch.arange(1, 7).view(2, 3) * mask
    )
    assert language_head.spread(torch.zeros(0, 4), torch.zeros(2, 3, dtype=torch.bool)).shape == (
        2,
        3,
        4,
    )


def test_likeliest_words_that_were_not_seen_are_a_typed_fault() -> None:
    """Another TRL may name its head otherwise: no other entropy is taken in its place."""
    with pytest.raises(TrainingError, match="words cannot be seen"), language_head.watched(20):
        pass
    with language_head.watched(0) as kept:
        assert kept == []


def test_talr_weighs_by_loss_against_the_mean_of_the_answer() -> None:
    log_probs = torch.tensor([[-1.0, -3.0, -50.0], [-4.0, -4.0, -4.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])  # the padding has no say
    weigh = _term("loss_weight", by="talr").weights
    assert weigh is not None
    found = weigh(log_probs, None, mask).tolist()
    assert found[0][:2] == pytest.approx([math.exp(-0.5), math.exp(-1.5)])
    assert found[1] == pytest.approx([math.exp(-1)] * 3), "whatever else is in the batch"


def test_kl_on_hand_made_numbers() -> None:
    base = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    now = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    found = divergence(now, base)
    assert found.tolist() == pytest.approx(
        [0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.0], abs=1e-6
    )
    reverse = _term("kl", at="task", direction="reverse").divergence
    assert reverse is not None
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert reverse(now, base)[0].item() == pytest.approx(expected, abs=1e-6)


def test_the_norm_of_the_product_needs_no_product() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 5), torch.randn(4, 2)
    inputs, outputs = torch.rand(5), torch.rand(4)
    whole = 3.0 * b @ a
    assert weight_delta.product_square(a, b, 3.0).item() == pytest.approx(
        whole.square().sum().item(), rel=1e-5
    )
    weighed = (outputs[:, None] * inputs[None, :] * whole.square()).sum().item()
    found = weight_delta.product_square(a, b, 3.0, (inputs, outputs)).item()
    assert found == pytest.approx(weighed, rel=1e-5)


# --- in a real training step


def _examples(count: int = 16) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _fit(
    model: Path, folder: Path, terms: list[methods.Term], examples: list[Example] | None = None,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    ref = ModelRef(str(model))
    spec = more.pop("spec", SPEC)
    encoded, _, _ = data.encode_all(ref, examples or _examples(), spec)
    plain, _, _ = data.encode_all(ref, _examples(), spec)
    budget = plain_budget([row.cost for row in plain], 4, spec.accumulation, 2)
    kinds = [str(one.meta.get("kind", "task")) for one in examples or _examples()]
    job = TrainJob(ref, spec, budget, 1, (4,), folder, device="cpu", plan=more.get("plan"))
    rows = TrainingData(encoded, kinds, more.get("probes", ()))
    return dict(fit(job, rows, terms=terms))


def _logged(folder: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "checkpoint-4" / "adapter_model.safetensors")


def _gap(one: Path, other: Path) -> float:
    a, b = _weights(one), _weights(other)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_terms_that_do_nothing_change_nothing(tiny_model: Path, tmp_path: Path) -> None:
    _fit(tiny_model, tmp_path / "plain", [])
    ones = methods.Term(weights=lambda log_probs, entropy, mask: torch.ones_like(log_probs))
    _fit(tiny_model, tmp_path / "ones", [ones])
    assert _gap(tmp_path / "plain", tmp_path / "ones") < 1e-6
    nothing = methods.Term(divergence=lambda now, base: torch.zeros(len(now)))
    held = [replace(one, meta={"kl": 1.0}) for one in _examples()]
    _fit(tiny_model, tmp_path / "whole", [nothing], held)
    assert _gap(tmp_path / "plain", tmp_path / "whole") < 1e-5, "whole logits, the same loss"


def test_dft_is_that_of_trl(tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """TRL has the same loss built in: two independent implementations."""
    _fit(tiny_model, tmp_path / "ours", [_term("loss_weight", by="dft")])
    own = arguments.trainer_arguments

    def theirs(*args: Any, **kwargs: Any) -> Any:
        found = own(*args, **kwargs)
        found.loss_type = "dft"
        return found

    monkeypatch.setattr("holdfast.train.fit.trainer_arguments", theirs)
    _fit(tiny_model, tmp_path / "trl", [])
    assert _gap(tmp_path / "ours", tmp_path / "trl") < 1e-4, "Adam enlarges rounding"


def test_the_divergence_is_held_down_and_logged(tiny_model: Path, tmp_path: Path) -> None:
    held = [replace(one, meta={"kl": 20.0}) for one in _examples()]
    _fit(tiny_model, tmp_path / "free", [_term("kl", at="task")],
         [replace(one, meta={"kl": 1e-9}) for one in _examples()])  # fmt: skip
    spent = _fit(tiny_model, tmp_path / "held", [_term("kl", at="task")], held)
    free, tight = (_logged(tmp_path / name) for name in ("free", "held"))
    assert free[0]["drift"] == pytest.approx(0.0, abs=1e-6), "at first the model is the base"
    assert tight[-2]["drift"] < free[-2]["drift"] / 2
    assert spent["reference_tokens"] > spent["supervised_tokens"]


def test_anchors_bear_no_cross_entropy_but_are_compared(tiny_model: Path, tmp_path: Path) -> None:
    anchor = [
        Example(f"a{i}", (Message("user", f"What is {i}?"),), "A number.",
                meta={"kind": methods.ANCHOR, "kl": 5.0})
        for i in range(4)
    ]  # fmt: skip
    spent = _fit(tiny_model, tmp_path / "kl", [_term("kl")], _examples() + anchor)
    plain = _fit(tiny_model, tmp_path / "plain", [])
    assert spent["supervised_tokens"] == pytest.approx(plain["supervised_tokens"], rel=0.1)
    assert spent["examples_seen"] > plain["examples_seen"]
    assert any(one.get("drift", 0) > 0 for one in _logged(tmp_path / "kl"))


def test_anchors_count_as_a_mean_of_their_own(tiny_model: Path) -> None:
    ref = ModelRef(str(tiny_model))
    held = Example("a", (Message("user", "Hi?"),), "Yes.", meta={"kind": "anchor", "kl": 2.0})
    encoded, _, _ = data.encode_all(ref, [*_examples(3), held], SPEC)
    table = data.dataset(encoded, [[0, 3], [1, 2], [0], [1, 3]])
    tokens = sum(encoded[i].cost.supervised for i in (0, 1, 2, 0, 1))
    total = sum(sum(row) for slot in table[:]["kl_weights"] for row in slot)
    assert total == pytest.approx(2.0 * tokens), "weight x mean, times the tokens of the run"
    assert sum(sum(row) for row in table[2]["kl_weights"]) == 0


def test_the_first_tokens_have_a_weight_of_their_own(tiny_model: Path) -> None:
    (one,) = _examples(1)
    marked = replace(one, meta={"kl": 0.5, "first": 3, "first_kl": 4.0})
    (row,), _, _ = data.encode_all(ModelRef(str(tiny_model)), [marked], SPEC)
    assert set(row.kl[: row.start]) == {0.0}
    assert row.kl[row.start : row.start + 4] == (4.0, 4.0, 4.0, 0.5)


def test_dropped_tokens_bear_no_loss(tiny_model: Path) -> None:
    (one,) = _examples(1)
    (whole,), _, _ = data.encode_all(ModelRef(str(tiny_model)), [one], SPEC)
    (row,), _, _ = data.encode_all(
        ModelRef(str(tiny_model)), [replace(one, meta={"dropped": [0, 2]})], SPEC
    )
    assert row.cost.supervised == whole.cost.supervised - 2
    assert row.labels[row.start] == row.labels[row.start + 2] == -100
    assert row.labels[row.start + 1] == row.ids[row.start + 1]


def test_l2_holds_the_product_near_zero(tiny_model: Path, tmp_path: Path) -> None:
    _fit(tiny_model, tmp_path / "plain", [])
    _fit(tiny_model, tmp_path / "l2", [_term("l2_init", weight=100.0)])

    def norm(folder: Path) -> float:
        kept = _weights(folder)
        names = [name for name in kept if "lora_A" in name]
        return sum(
            float(weight_delta.product_square(kept[n], kept[n.replace("lora_A", "lora_B")], 1.0))
            for n in names
        )

    assert norm(tmp_path / "l2") < norm(tmp_path / "plain") / 4
    assert any(one.get("penalty", 0) > 0 for one in _logged(tmp_path / "l2"))


def test_a_penalty_counts_once_per_step_however_it_is_cut(tiny_model: Path, tmp_path: Path) -> None:
    _fit(tiny_model, tmp_path / "two", [_term("l2_init", weight=10.0)])
    ref = ModelRef(str(tiny_model))
    encoded, _, _ = data.encode_all(ref, _examples(), SPEC)
    budget = plain_budget([row.cost for row in encoded], 4, 2, 2)
    plan = MemoryPlan("cpu", micro_batch=4, accumulation=1, dtype="float32", checkpointing=False)
    job = TrainJob(ref, SPEC, budget, 1, (4,), tmp_path / "one", device="cpu", plan=plan)
    fit(job, TrainingData(encoded), terms=[_term("l2_init", weight=10.0)])
    assert _gap(tmp_path / "two", tmp_path / "one") < 1e-5


def _adapted(model: Path) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return get_peft_model(base, LoraConfig(r=4, target_modules="all-linear")).eval()


def _batches(model: Path, count: int = 3) -> list[dict[str, Any]]:
    encoded, _, _ = data.encode_all(ModelRef(str(model)), _examples(count), SPEC)
    return [data.collate([one], 0) for one in data.dataset(encoded, [[i] for i in range(count)])]


def test_the_factored_fisher_is_the_mean_of_squares(tiny_model: Path) -> None:
    """Against the inputs and the gradients of one matrix, taken by hand."""
    model, batches = _adapted(tiny_model), _batches(tiny_model)
    found = factored(model, batches)
    assert all(one.grad is None for one in model.parameters()), "nothing stays"
    name = next(one for one in found if "down_proj" in one)
    module = model.get_submodule(name)
    seen: list[Any] = []
    hook = module.register_forward_hook(
        lambda _, given, out: (seen.append((given[0].detach(), out)), out.retain_grad())[1]
    )
    tokens = 0
    squares_in = squares_out = 0.0
    for batch in batches:
        model(**batch, num_items_in_batch=1).loss.backward()  # a sum over tokens
        given, out = seen.pop()
        squares_in = squares_in + given.square().sum((0, 1))
        squares_out = squares_out + out.grad.square().sum((0, 1))
        tokens += given.shape[1]
    hook.remove()
    ratio_in = found[name][0] / (squares_in / tokens)
    ratio_out = found[name][1] / (squares_out / tokens)
    assert torch.allclose(ratio_in, ratio_in.mean(), rtol=1e-3), "one factor for all"
    assert torch.allclose(ratio_out, ratio_in.mean(), rtol=1e-3)
    every = [torch.outer(g, a).mean() * g.numel() * a.numel() for a, g in found.values()]
    count = sum(g.numel() * a.numel() for a, g in found.values())
    assert float(sum(every)) / count == pytest.approx(1.0, rel=1e-3)


def test_the_plain_fisher_has_mean_one_and_the_shape_of_the_weights(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    found = diagonal(model, _batches(tiny_model))
    sizes = {name: one.shape for name, one in model.named_parameters()}
    assert {name: one.shape for name, (one, _) in found.items()} == sizes
    total = sum(float(one.sum()) for one, _ in found.values())
    assert total / sum(one.numel() for one, _ in found.values()) == pytest.approx(1.0, rel=1e-4)


def test_ewc_in_training(tiny_model: Path, tmp_path: Path) -> None:
    probes, _, _ = data.encode_all(ModelRef(str(tiny_model)), _examples(3), SPEC)
    _fit(tiny_model, tmp_path / "plain", [])
    _fit(tiny_model, tmp_path / "ewc", [_term("ewc", weight=100.0)], probes=probes)
    assert _gap(tmp_path / "plain", tmp_path / "ewc") > 1e-4
    assert any(one.get("penalty", 0) > 0 for one in _logged(tmp_path / "ewc"))
    full = TrainSpec(**{**SPEC.model_dump(exclude_unset=True), "method": "full"})
    _fit(tiny_model, tmp_path / "full", [_term("ewc", weight=1.0)], probes=probes, spec=full)
    assert any(one.get("penalty", 0) > 0 for one in _logged(tmp_path / "full"))


def test_a_split_step_learns_the_same(tiny_model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Out of memory in the middle of a step: the pieces add up, anchors and penalties included."""
    terms = [_term("kl", at="task"), _term("l2_init", weight=1.0)]
    held = [replace(one, meta={"kl": 1.0}) for one in _examples()]
    _fit(tiny_model, tmp_path / "whole", terms, held)
    monkeypatch.setenv("HOLDFAST_FAULTS", "forward:2")
    _fit(tiny_model, tmp_path / "split", [_term("kl", at="task"), _term("l2_init", weight=1.0)],
         held)  # fmt: skip
    assert _gap(tmp_path / "whole", tmp_path / "split") < 1e-4
