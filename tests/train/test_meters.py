"""Do the meters read what they say, leave training alone, and stop it when asked?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.data.chat import Encoded
from holdfast.lab.problems import problems
from holdfast.models import ModelRef
from holdfast.train import data, meters
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.train.meters import Meters
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=4, gradient_accumulation_steps=1,
    gradient_checkpointing=False, lora={"dropout": 0.0},
)  # fmt: skip


def _rows(model: Path, count: int = 12) -> list[Encoded]:
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]
    return data.encode_all(ModelRef(str(model)), examples, SPEC)[0]


def _fit(model: Path, folder: Path, meter: Meters | None, spec: TrainSpec = SPEC) -> dict[str, Any]:
    encoded = _rows(model)
    budget = plain_budget([row.cost for row in encoded], 6, 1, 4)
    job = TrainJob(ModelRef(str(model)), spec, budget, 1, (2, 4, 6), folder, device="cpu")
    return dict(fit(job, TrainingData(encoded), meters=meter))


def _weights(folder: Path, step: int = 6) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / f"checkpoint-{step}" / "adapter_model.safetensors")


def test_read_at_every_checkpoint_without_a_trace(tiny_model: Path, tmp_path: Path) -> None:
    _fit(tiny_model, tmp_path / "plain", None)
    _fit(tiny_model, tmp_path / "read", Meters(_rows(tiny_model, 3), {}, tmp_path / "read"))
    found = meters.read(tmp_path / "read")
    assert [one["step"] for one in found] == [2, 4, 6]
    assert all(one["kl"] > 0 and one["norm"] > 0 for one in found)
    plain, read = _weights(tmp_path / "plain"), _weights(tmp_path / "read")
    assert all(torch.equal(plain[name], read[name]) for name in plain)


def test_the_readings_are_those_of_the_formulas(tiny_model: Path, tmp_path: Path) -> None:
    """Against both models loaded apart."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    probes = _rows(tiny_model, 3)
    _fit(tiny_model, tmp_path, Meters(probes, {}, tmp_path))
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tuned = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(tuned, tmp_path / "checkpoint-6").eval()
    kl, entropy, tokens = 0.0, 0.0, 0
    for row in probes:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            p, q = (torch.log_softmax(one(ids).logits[0], -1) for one in (base, tuned))
        for place in range(row.start, len(row.ids)):
            kl += float((p[place - 1].exp() * (p[place - 1] - q[place - 1])).sum())
            entropy -= float(q[place - 1, row.ids[place]])
            tokens += 1
    last = meters.read(tmp_path)[-1]
    assert last["kl"] == pytest.approx(kl / tokens, rel=1e-3)
    assert last["cross_entropy"] == pytest.approx(entropy / tokens, rel=1e-4)
    merged = tuned.merge_and_unload().state_dict()
    square = sum(
        float((merged[name] - one).square().sum()) for name, one in base.state_dict().items()
    )
    assert last["norm"] == pytest.approx(square**0.5, rel=1e-3)


def test_a_limit_ends_the_training_at_a_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    spent = _fit(tiny_model, tmp_path, Meters(_rows(tiny_model, 3), {"kl": 1e-6}, tmp_path))
    assert spent["stopped_at"] == spent["steps"] == 2
    assert [one.name for one in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert spent["examples_seen"] == 8


def test_killed_after_the_end_it_does_not_go_on(tiny_model: Path, tmp_path: Path) -> None:
    _fit(tiny_model, tmp_path, Meters(_rows(tiny_model, 3), {"kl": 1e-6}, tmp_path))
    (tmp_path / "summary.json").unlink()
    whole = _fit(tiny_model, tmp_path / "whole", None)
    assert whole["stopped_at"] is None
    for name in ("optimizer.pt", "scheduler.pt"):  # as if it had not been tidied up yet
        (tmp_path / "checkpoint-2" / name).write_bytes(b"")
    again = _fit(tiny_model, tmp_path, Meters(_rows(tiny_model, 3), {"kl": 1e-6}, tmp_path))
    assert again["stopped_at"] == 2
    assert not (tmp_path / "checkpoint-4").exists()


def test_without_adapters_it_is_estimated_from_the_answers(
    tiny_model: Path, tmp_path: Path
) -> None:
    full = TrainSpec(**{**SPEC.model_dump(exclude_unset=True), "method": "full"})
    _fit(tiny_model, tmp_path, Meters(_rows(tiny_model, 3), {}, tmp_path), full)
    found = meters.read(tmp_path)
    assert [one["norm"] for one in found] == [None] * 3
    assert found[-1]["cross_entropy"] > 0
