"""Do the safety-aware losses compute what was published, held against numpy of our own?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.methods import apply, setting

from holdfast import methods
from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import DataError, StudyError
from holdfast.lab.problems import problems
from holdfast.memory.estimate.method_overhead import NOTHING
from holdfast.methods._term import ABSENT
from holdfast.models import ModelRef
from holdfast.train import data
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, lora={"dropout": 0.0},
)  # fmt: skip


def _build(name: str, **options: Any) -> Any:
    return methods.build(name, options, "s", "arms.a.loss")


def _examples(count: int = 16) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _refusals(count: int = 6) -> list[Example]:
    return [
        Example(f"s{i}", (Message("user", f"How do I break lock {i}?"),), "I cannot help with it.",
                meta={"kind": methods.SAFETY})
        for i in range(count)
    ]  # fmt: skip


def _fit(
    model: Path, folder: Path, terms: list[methods.Term], examples: list[Example] | None = None,
    steps: int = 4, save_at: tuple[int, ...] = (4,), spec: TrainSpec = SPEC,
) -> dict[str, Any]:  # fmt: skip
    ref, examples = ModelRef(str(model)), examples or _examples()
    encoded, _, _ = data.encode_all(ref, examples, spec)
    plain, _, _ = data.encode_all(ref, _examples(), spec)
    budget = plain_budget([row.cost for row in plain], steps, spec.accumulation, 2)
    kinds = [str(one.meta.get("kind", "task")) for one in examples]
    job = TrainJob(ref, spec, budget, 1, save_at, folder, device="cpu")
    return dict(fit(job, TrainingData(encoded, kinds), terms=terms))


def _weights(folder: Path, step: int = 4) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / f"checkpoint-{step}" / "adapter_model.safetensors")


def _gap(one: Path, other: Path, step: int = 4) -> float:
    a, b = _weights(one, step), _weights(other, step)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def _logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# --- the divergence without the target


def test_the_divergence_without_the_target_is_that_of_the_other_words() -> None:
    """Against numpy: drop a column, scale to 1, compare."""
    rng = np.random.default_rng(0)
    now, base = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))
    target = np.array([0, 3, 6, 2, 2])
    for direction in ("forward", "reverse"):
        term = _build("mask_target", direction=direction).term()
        gone = torch.tensor(target)[:, None]
        pair = [torch.tensor(one).scatter(1, gone, ABSENT) for one in (now, base)]
        found = term.divergence(*pair)
        for row, word in enumerate(target):
            p, q = (np.exp(np.delete(one[row], word)) for one in (base, now))
            p, q = p / p.sum(), q / q.sum()
            if direction == "reverse":
                p, q = q, p
            assert found[row].item() == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-6)


def test_the_target_gets_no_gradient_and_may_take_any_probability() -> None:
    torch.manual_seed(0)
    base = torch.randn(1, 6)
    now = base.clone()
    now[0, 2] += 9.0  # all the mass on the target, the others as they stood to each other
    now.requires_grad_()
    gone = torch.tensor([[2]])
    term = _build("mask_target").term()
    found = term.divergence(now.scatter(1, gone, ABSENT), base.scatter(1, gone, ABSENT))
    assert found.item() == pytest.approx(0.0, abs=1e-6)
    (4.0 * now.scatter(1, gone, ABSENT)).logsumexp(1).sum().backward()
    assert now.grad is not None and now.grad[0, 2].item() == 0.0


def test_the_objective_takes_out_the_word_that_comes_next(tiny_model: Path) -> None:
    """In place for the last term, and beside one that sees the whole predictions."""
    from contextlib import nullcontext

    from transformers import AutoModelForCausalLM

    from holdfast.train.objective import Objective

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    model.disable_adapter = nullcontext
    inputs = torch.arange(3, 19).view(2, 8)
    labels = inputs.clone()
    labels[:, :4] = -100
    compared = torch.zeros(2, 8)
    compared[0, 5:7] = 1.0
    seen: dict[str, Any] = {}

    def look(name: str) -> Any:
        def divergence(now: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
            seen[name] = now.detach().clone(), base.clone()
            return (now - base).sum(1)

        return divergence

    terms = [methods.Term(divergence=look("whole")),
             methods.Term(divergence=look("rest"), without_target=True)]  # fmt: skip
    given = {"input_ids": inputs, "labels": labels}
    Objective(terms).forward(model, model, given, compared)
    logits = model(inputs).logits[0, 4:6]
    torch.testing.assert_close(seen["whole"][0], logits, rtol=0, atol=1e-5)
    for one in seen["rest"]:
        assert [row.argmin().item() for row in one] == inputs[0, 5:7].tolist()
        assert (one == ABSENT).sum().item() == 2


def test_masking_the_target_in_training(tiny_model: Path, tmp_path: Path) -> None:
    method = _build("mask_target", weight=20.0)
    held, notes = method.apply(_examples(), setting(lambda *_: ""), {})
    assert {one.meta["kl"] for one in held} == {20.0} and notes == []
    free = [replace(one, meta={"kl": 1e-9}) for one in _examples()]
    _fit(tiny_model, tmp_path / "free", [method.term()], free)
    spent = _fit(tiny_model, tmp_path / "held", [method.term()], held)
    loose, tight = (_logged(tmp_path / name) for name in ("free", "held"))
    assert loose[0]["drift"] == pytest.approx(0.0, abs=1e-6)
    assert tight[-2]["drift"] < loose[-2]["drift"] / 2
    assert spent["reference_tokens"] > 0
    assert method.overhead().logits == "policy+reference"


# --- the first tokens


def _published(log_probs: Any, base: Any, betas: Any) -> Any:
    """The weight of the cross-entropy, from the derivative of -(2/β)·log σ(β·Δ) with respect to Δ.

    -(2/β)·d/dΔ log σ(βΔ) = -2·σ(-βΔ): the cross-entropy's own derivative is -1.
    """
    step = 1e-6
    gap = log_probs - base

    def loss(delta: Any) -> Any:
        return 2 / betas * np.log1p(np.exp(-betas * delta))

    return np.maximum(-(loss(gap + step) - loss(gap - step)) / (2 * step), 1e-3)


def test_the_weights_are_the_derivative_of_the_published_loss() -> None:
    rng = np.random.default_rng(1)
    now, base = -rng.exponential(size=(2, 9)), -rng.exponential(size=(2, 9))
    mask = np.ones((2, 9), dtype=bool)
    mask[0, :2] = mask[1, 7:] = False
    betas = np.full((2, 9), 0.1)
    betas[0, 2:7], betas[1, :5] = 2.0, 2.0
    betas[0, 2] = betas[1, 0] = 0.5
    term = _build("first_tokens").term()
    assert term.reference and term.compares
    given = [torch.tensor(now), torch.zeros(2, 9), torch.tensor(mask), torch.tensor(base)]
    found = term.weights(*given).numpy()
    assert found[mask] == pytest.approx(_published(now, base, betas)[mask], abs=1e-5)
    far = [torch.full((1, 1), -0.1), None, torch.ones(1, 1, dtype=torch.bool)]
    least = (
        _build("first_tokens", very_first_beta=50.0).term().weights(*far, torch.full((1, 1), -9.0))
    )
    assert least.item() == pytest.approx(1e-3), "the least, as in the authors' code"


def test_at_the_start_the_constrained_loss_is_the_plain_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Fresh adapters are the base: the first step is that of plain training, later ones are not."""
    seen: list[float] = []
    term = _build("first_tokens", first_beta=8.0, very_first_beta=8.0).term()

    def weights(*given: torch.Tensor) -> torch.Tensor:
        found = term.weights(*given)
        mask = given[2]
        seen.append(float((found[mask] - 1).abs().max()))
        return found

    spent = _fit(tiny_model, tmp_path / "held", [replace(term, weights=weights)])
    assert max(seen[:2]) == pytest.approx(0.0, abs=1e-5), "two micro-batches of one step"
    assert max(seen[2:]) > 0.01
    _fit(tiny_model, tmp_path / "plain", [])
    assert _gap(tmp_path / "held", tmp_path / "plain") > 1e-4
    assert spent["reference_tokens"] == spent["tokens"]
    one = _build("first_tokens")
    assert one.overhead().reads and not one.overhead().reference


def test_the_reference_is_right_in_packed_rows_and_beside_whole_logits(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Packing, and a divergence in the same arm, change nothing about the weights."""
    term = _build("first_tokens", first_beta=8.0).term()
    _fit(tiny_model, tmp_path / "apart", [term])
    packed = SPEC.model_copy(update={"packing": True})
    _fit(tiny_model, tmp_path / "packed", [term], spec=packed)
    assert _gap(tmp_path / "apart", tmp_path / "packed") < 1e-4
    nothing = methods.Term(divergence=lambda now, base: torch.zeros(len(now)))
    held = [replace(one, meta={"kl": 1.0}) for one in _examples()]
    _fit(tiny_model, tmp_path / "whole", [term, nothing], held)
    assert _gap(tmp_path / "apart", tmp_path / "whole") < 1e-4


def test_first_tokens_that_are_not_the_answers_are_refused() -> None:
    method = _build("first_tokens")
    method.check_training(SPEC)
    for wrong in ({"train_on": "all"}, {"completion_only_loss": False}):
        with pytest.raises(StudyError, match="would not be those of the answer"):
            method.check_training(SPEC.model_copy(update=wrong))


# --- Lisa


def test_lisa_against_plain_gradient_steps() -> None:
    """Two phases of two steps of a quadratic loss, by numpy and by the term's penalty."""
    rho, rate = 0.7, 0.1
    goals = {True: np.array([1.0, -2.0]), False: np.array([-1.0, 3.0])}
    method = _build("lisa", safety_steps=2, task_steps=2, rho=rho, after=0.25)
    expected = np.array([0.5, 0.5])
    anchor = expected
    for step in range(8):
        if step % 2 == 0:
            anchor = expected
        pull = expected - goals[step % 4 < 2]
        if step > 0.25 * 8:
            pull = pull + rho * (expected - anchor)
        expected = expected - rate * pull

    model = torch.nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.5, 0.5]]))
    term = method.term()
    for step in range(8):
        term.begin(model, step, 8)
        goal = torch.tensor(goals[method.phases.is_alone(step)])
        loss = (model.weight[0] - goal).square().sum() / 2 + term.penalty(model)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            model.weight -= rate * model.weight.grad
    assert model.weight[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_lisa_in_training_goes_on_after_an_interruption(tiny_model: Path, tmp_path: Path) -> None:
    """Stopped in the middle of a phase, it ends in the weights of an unbroken run."""
    mixed = [*_examples(), *_refusals()]

    def term() -> methods.Term:
        found: methods.Term = _build(
            "lisa", safety_steps=2, task_steps=3, rho=50.0, after=0.0
        ).term()
        return found

    _fit(tiny_model, tmp_path / "whole", [term()], mixed, 8, (4, 8))
    with pytest.raises(RuntimeError, match="power cut"):
        broken = term()

        def begin(model: Any, step: int, steps: int) -> None:
            if step == 6:
                raise RuntimeError("power cut")
            assert broken.begin is not None
            broken.begin(model, step, steps)

        _fit(tiny_model, tmp_path / "cut", [replace(broken, begin=begin)], mixed, 8, (4, 8))
    assert (tmp_path / "cut" / "checkpoint-4" / "kept.pt").is_file()
    _fit(tiny_model, tmp_path / "cut", [term()], mixed, 8, (4, 8))
    assert _gap(tmp_path / "whole", tmp_path / "cut", 8) == 0.0
    assert not list((tmp_path / "cut").glob("checkpoint-*/kept.pt")), "only of use to go on"
    assert any(one.get("penalty", 0) > 0 for one in _logged(tmp_path / "whole"))


def test_lisa_without_a_penalty_keeps_nothing(tiny_model: Path, tmp_path: Path) -> None:
    method = _build("lisa", safety_steps=1, task_steps=1, rho=0)
    assert method.term().kept is None and method.overhead() == NOTHING
    assert _build("lisa").overhead().kept == 1
    spent = _fit(tiny_model, tmp_path / "a", [method.term()], [*_examples(), *_refusals()])
    plain = _fit(tiny_model, tmp_path / "b", [])
    assert spent["supervised_tokens"] == pytest.approx(plain["supervised_tokens"], rel=0.05)


def test_lisas_data_and_settings(tmp_path: Path) -> None:
    lines = [{"prompt": f"How to break lock {i}?", "completion": "I cannot."} for i in range(3)]
    file = tmp_path / "safe.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    method = _build("lisa", source="file", path=str(file))
    given = setting(lambda *_: "")
    method.check(given)
    made, notes = apply(method, given, tmp_path)
    safety = [one for one in made if one.meta.get("kind") == methods.SAFETY]
    assert len(made) == 13 and len(safety) == 3
    assert "10% of the steps to themselves" in notes[0]
    assert method.identity()["pool"]["source"] == "file"
    assert "in turn (ρ 1)" in method.recipe()
    with pytest.raises(
        StudyError, match="a turn of lisa takes 10 optimiser steps, and there are 9"
    ):
        method.check_steps(9)
    method.check_steps(10)
    gone = _build("lisa", source="file", path=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError):
        gone.check(given)
