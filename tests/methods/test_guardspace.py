"""Does ``guardspace`` begin and move as its authors' layers do, and leave the prompts alone?"""

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
from holdfast.config import LoraSpec, TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.methods.guardspace import covariances, free_directions, least, look
from holdfast.models import ModelRef
from holdfast.train import data
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message


def _build(**options: Any) -> Any:
    return methods.build("guardspace", options, "s", "arms.a.loss")


def test_free_directions_are_those_that_nothing_uses() -> None:
    rng = np.random.default_rng(0)
    for rank in (3, 9):  # few used directions, and few free ones
        used = rng.normal(size=(12, rank)) @ rng.normal(size=(rank, 40))
        found = free_directions(torch.tensor(used @ used.T, dtype=torch.float32), 1e-6)
        assert found.count == 12 - rank and found.free == (rank == 9)
        rows = torch.tensor(rng.normal(size=(5, 12)), dtype=torch.float32)
        kept = found(rows).numpy()
        assert np.abs(kept @ used).max() < 1e-4 * np.abs(used).max()
        u = np.linalg.svd(used)[0][:, rank:]
        assert kept == pytest.approx(rows.numpy() @ u @ u.T, abs=1e-5)
        assert found(found(rows)).numpy() == pytest.approx(kept, abs=1e-5)


def test_the_start_is_that_of_the_authors() -> None:
    """The last directions of W·C, taken back by C⁻¹: their sum over all is W itself."""
    rng = np.random.default_rng(1)
    weight, inputs = rng.normal(size=(7, 5)), rng.normal(size=(5, 30))
    c = inputs @ inputs.T
    damped = c + 0.01 * np.mean(np.diag(c)) * np.eye(5)
    u, s, vt = np.linalg.svd(weight @ damped, full_matrices=False)
    back = vt @ np.linalg.inv(damped)
    for rank in (2, 5):
        a, b = least(torch.tensor(weight), torch.tensor(c), rank)
        expected = u[:, -rank:] @ np.diag(s[-rank:]) @ back[-rank:]
        assert (b @ a).numpy() == pytest.approx(expected, abs=1e-8)
    assert expected == pytest.approx(weight, abs=1e-8)


class _Two(torch.nn.Module):
    """Two layers that read the same, and one that reads what they say."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(10, 6)
        self.left, self.right = (torch.nn.Linear(6, 6, bias=False) for _ in range(2))
        self.out = torch.nn.Linear(6, 4, bias=False)

    def forward(self, input_ids: Any, **_: object) -> Any:
        seen = self.words(input_ids)
        return self.out(torch.tanh(self.left(seen) + self.right(seen)))


class _Published(torch.nn.Module):
    """A layer as in the authors' code: W - B₀A₀P stays, B·A·P is trained."""

    def __init__(self, weight: Any, a: Any, b: Any, p: Any, scale: float) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone())
        self.p, self.scale = p, scale
        self.rest = weight - scale * b @ a @ p

    def forward(self, inputs: Any) -> Any:
        return inputs @ (self.rest + self.scale * self.b @ self.a @ self.p).T


def test_training_takes_the_path_of_the_authors_layers() -> None:
    """Ten steps of AdamW with gradients clipped, by projection here and through P there."""
    from peft import LoraConfig, get_peft_model

    probes = [{"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.ones(1, 2)}]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["left", "right", "out"])
    mine = get_peft_model(_Two(), config)
    term = _build(tolerance=1e-4).term()
    term.prepare(mine, probes)
    theirs = _Two()
    seen = theirs.words.weight.detach()
    asked = seen[[1, 2]]
    for name in ("left", "right", "out"):
        if name == "out":
            asked = torch.tanh(_Two().left(asked) + _Two().right(asked)).detach()
        weight = getattr(_Two(), name).weight.detach()
        c = asked.T @ asked
        values, vectors = np.linalg.eigh(c.double().numpy())
        free = vectors[:, values <= 1e-4 * values.max()]
        assert free.shape[1] == 4
        p = torch.tensor(free @ free.T, dtype=torch.float32)
        damped = c + 0.01 * c.diagonal().mean() * torch.eye(6)
        u, s, vt = torch.linalg.svd(weight @ damped, full_matrices=False)
        root = (s[-2:] / 2.0).sqrt()  # the scale is alpha / r = 2
        a, b = root[:, None] * (vt[-2:] @ torch.linalg.inv(damped)), u[:, -2:] * root
        setattr(theirs, name, _Published(weight, a, b, p, 2.0))
    task = torch.randint(0, 10, (8, 5), generator=torch.Generator().manual_seed(3))
    goal = torch.randn(8, 5, 4, generator=torch.Generator().manual_seed(4))

    def run(model: Any, after: Any) -> list[float]:
        trained = [one for name, one in model.named_parameters()
                   if one.requires_grad and "words" not in name]  # fmt: skip
        steps, losses = torch.optim.AdamW(trained, lr=0.05, weight_decay=0.0), []
        for _ in range(10):
            loss = (model(task) - goal).square().mean()
            losses.append(loss.item())
            steps.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 0.2)
            steps.step()
            after()
        return losses

    ours = run(mine, lambda: term.end(mine))
    assert ours == pytest.approx(run(theirs, lambda: None), rel=1e-4)
    assert ours[-1] < ours[0] and ours[0] == pytest.approx(
        (_Two()(task) - goal).square().mean().item(), rel=1e-5
    )
    with torch.no_grad():
        same = torch.tensor([[1, 2]])
        torch.testing.assert_close(mine(same), _Two()(same), atol=1e-5, rtol=0)
        assert (mine(task) - _Two()(task)).abs().max() > 0.1


def test_matrices_that_read_the_same_share_one_covariance() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(_Two(), LoraConfig(r=2, target_modules=["left", "right", "out"]))
    probes = [{"input_ids": torch.tensor([[n, n + 1]]), "attention_mask": torch.ones(1, 2)}
              for n in range(3)]  # fmt: skip
    seen, owner = covariances(model, probes)
    left, right, out = (f"base_model.model.{name}" for name in ("left", "right", "out"))
    assert owner == {left: left, right: left, out: out} and seen.keys() == {left, out}
    rows = _Two().words.weight.detach()[[0, 1, 1, 2, 2, 3]]
    torch.testing.assert_close(seen[left], rows.T @ rows)
    with pytest.raises(TrainingError, match=r"leave 2 of 6 directions .* rank 3"):
        wide = get_peft_model(_Two(), LoraConfig(r=6, target_modules=["left"]))
        look(wide, [{"input_ids": torch.tensor([[0, 1, 2, 3]]),
                     "attention_mask": torch.ones(1, 4)}], 1e-6)  # fmt: skip


SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False,
    lora=LoraSpec(variant="guardspace", r=2, alpha=4, dropout=0.0),
)  # fmt: skip
PROBE = Example("p", (Message("user", "How?"),), "No.", meta={"kind": methods.PROBE})


def _fit(model: Path, folder: Path, term: methods.Term) -> Any:
    ref = ModelRef(str(model))
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", 16, (1, 2)))
    ]
    rows, _, _ = data.encode_all(ref, examples, SPEC)
    probes, _, _ = data.encode_all(ref, [PROBE], SPEC)
    budget = plain_budget([row.cost for row in rows], 8, SPEC.accumulation, 2)
    job = TrainJob(ref, SPEC, budget, 1, (4, 8), folder, device="cpu")
    fit(job, TrainingData(rows, probes=probes), terms=[term])
    return rows[0], probes[0]


def test_in_training_the_prompts_come_out_as_before(tiny_model: Path, tmp_path: Path) -> None:
    """Interrupted or not, to the end: what the model says of the probe is what the base says."""
    from peft import PeftModel
    from safetensors.torch import load_file

    from holdfast import models

    term = _build().term()
    task, probe = _fit(tiny_model, tmp_path / "whole", term)
    base = models.load_model(ModelRef(str(tiny_model)), torch.float32, "cpu").eval()

    def logits(row: Any) -> Any:
        with torch.no_grad():
            return base(torch.tensor([row.ids])).logits

    before = logits(probe), logits(task)
    tuned = PeftModel.from_pretrained(base, str(tmp_path / "whole" / "checkpoint-8"))
    of_probe, of_task = (float((logits(row) - old).abs().max())
                         for row, old in ((probe, before[0]), (task, before[1])))  # fmt: skip
    assert of_probe < 5e-3 and of_task > 0.1
    with tuned.disable_adapter():
        torch.testing.assert_close(logits(task), before[1])

    broken, steps = _build().term(), iter(range(100))

    def end(model: Any) -> None:
        if next(steps) == 5:
            raise RuntimeError("power cut")
        broken.end(model)

    with pytest.raises(RuntimeError, match="power cut"):
        _fit(tiny_model, tmp_path / "cut", replace(broken, end=end))
    _fit(tiny_model, tmp_path / "cut", _build().term())
    one, two = (load_file(tmp_path / name / "checkpoint-8" / "adapter_model.safetensors")
                for name in ("whole", "cut"))  # fmt: skip
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_its_data_and_settings(tmp_path: Path) -> None:
    lines = [{"prompt": f"How to break lock {i}?", "completion": "I cannot."} for i in range(3)]
    file = tmp_path / "safe.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    method = _build(source="file", path=str(file), samples=2)
    given = setting(lambda *_: "")
    method.check(given)
    made, notes = apply(method, given, tmp_path)
    assert [one.meta.get("kind") for one in made].count(methods.PROBE) == 2 and len(made) == 12
    assert "what 2 safety examples put" in notes[0]
    method.check_training(SPEC)
    plain = SPEC.model_copy(update={"lora": LoraSpec()})
    with pytest.raises(StudyError, match="of a kind of their own"):
        method.check_training(plain)
