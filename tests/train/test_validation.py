"""Is the loss of held-out examples what it says, leaves it training alone, and stops it in time?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.data.chat import IGNORED, Encoded
from holdfast.errors import TrainingError
from holdfast.lab.problems import problems
from holdfast.models import ModelRef
from holdfast.runs import store
from holdfast.train import data, validation
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.train.launch import worker
from holdfast.train.validation import Validation
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=4, gradient_accumulation_steps=1,
    gradient_checkpointing=False, lora={"dropout": 0.1}, neftune_noise_alpha=5,
)  # fmt: skip


def _examples(split: str, count: int) -> list[Example]:
    return [
        Example(f"{split}{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems(split, count, (1, 2)))
    ]


def _rows(model: Path, split: str = "train", count: int = 12) -> list[Encoded]:
    return data.encode_all(ModelRef(str(model)), _examples(split, count), SPEC)[0]


def _job(model: Path, folder: Path, rows: list[Encoded]) -> TrainJob:
    budget = plain_budget([row.cost for row in rows], 6, 1, 4)
    return TrainJob(ModelRef(str(model)), SPEC, budget, 1, (2, 4, 6), folder, device="cpu")


def _fit(model: Path, folder: Path, held: Validation | None) -> dict[str, Any]:
    rows = _rows(model)
    return dict(fit(_job(model, folder, rows), TrainingData(rows), validation=held))


def _held(model: Path, folder: Path, **more: Any) -> Validation:
    return Validation(_rows(model, "heldout", 3), folder, (2, 4, 6), **more)


def _weights(folder: Path, step: int = 6) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / f"checkpoint-{step}" / "adapter_model.safetensors")


def test_read_when_asked_without_a_trace_and_as_the_formula_has_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Against the checkpoint loaded apart; the noise of NEFTune is of training alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _fit(tiny_model, tmp_path / "plain", None)
    summary = _fit(tiny_model, tmp_path / "read", _held(tiny_model, tmp_path / "read", also_at={3}))
    found = validation.read(tmp_path / "read")
    assert [one["step"] for one in found] == [2, 3, 4, 6]
    plain, read = _weights(tmp_path / "plain"), _weights(tmp_path / "read")
    assert all(torch.equal(plain[name], read[name]) for name in plain)

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(model, tmp_path / "read" / "checkpoint-6").eval()
    nats, tokens = 0.0, 0
    for row in _rows(tiny_model, "heldout", 3):
        with torch.no_grad():
            said = torch.log_softmax(tuned(torch.tensor([row.ids])).logits[0], -1)
        for place, label in enumerate(row.labels):
            if label != IGNORED:
                nats, tokens = nats - float(said[place - 1, label]), tokens + 1
    assert found[-1]["eval_loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert found[-1]["tokens"] == tokens

    best = min(found, key=lambda one: one["eval_loss"])
    assert summary["validation"] == {
        "best_loss": best["eval_loss"], "best_step": best["step"], "ended": False,
    }  # fmt: skip
    log = [one for _, one in store.read_objects(tmp_path / "read" / "log.jsonl")]
    assert [one["eval_loss"] for one in log if "eval_loss" in one] == [
        one["eval_loss"] for one in found
    ]
    assert any("loss" in one for one in log)


def test_noise_changes_what_is_learned(tiny_model: Path, tmp_path: Path) -> None:
    rows = _rows(tiny_model)
    job = _job(tiny_model, tmp_path / "quiet", rows)
    quiet = SPEC.model_copy(update={"neftune_noise_alpha": None})
    object.__setattr__(job, "train", quiet)
    fit(job, TrainingData(rows))
    _fit(tiny_model, tmp_path / "loud", None)
    one, other = _weights(tmp_path / "quiet"), _weights(tmp_path / "loud")
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_it_ends_the_training_at_a_checkpoint_and_stays_ended(
    tiny_model: Path, tmp_path: Path
) -> None:
    def held() -> Validation:
        return _held(tiny_model, tmp_path, patience=1, threshold=50.0)

    spent = _fit(tiny_model, tmp_path, held())
    assert spent["stopped_at"] == spent["steps"] == 4, "the first reading is the best so far"
    assert spent["validation"]["ended"]
    assert {one.name for one in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    before = validation.read(tmp_path)
    (tmp_path / "summary.json").unlink()  # killed after its end
    for name in ("optimizer.pt", "scheduler.pt"):
        (tmp_path / "checkpoint-4" / name).write_bytes(b"")
    again = _fit(tiny_model, tmp_path, held())
    assert again["stopped_at"] == 4 and not (tmp_path / "checkpoint-6").exists()
    assert validation.read(tmp_path) == before


def _judged(losses: list[float], **settings: Any) -> Validation:
    found = Validation([], Path("nowhere"), (2, 4, 6, 8), **settings)
    for step, loss in enumerate(losses, 1):
        found._judge(step, loss)
    return found


@pytest.mark.parametrize(
    ("losses", "settings", "stopped"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, None),
        ([5, 4, 4, 3], {"patience": 1}, None),  # no better at 3, which is no checkpoint
        ([5, 4, 4, 4], {"patience": 1}, 4),
        ([5, 6, 4, 5], {"patience": 1}, 2),
        ([5, 6, 6, 6], {"patience": 3}, 4),
        ([5, 6, 6, 4, 4, 4], {"patience": 3}, None),
        ([5, 6, 6, 4, 4, 4, 4, 4], {"patience": 3}, 8),
        ([5, 4.9, 4.8, 4.7], {"patience": 2, "threshold": 0.5}, 4),
        ([5, 6, 7, 8], {}, None),
    ],
)
def test_patience(losses: list[float], settings: dict[str, Any], stopped: int | None) -> None:
    found = _judged(losses, **settings)
    assert found.stopped_at == stopped
    assert found.best == (min(losses), losses.index(min(losses)) + 1)
    assert bool(found.why) == (stopped is not None)


def test_a_run_that_goes_on_counts_what_was_read_before(tmp_path: Path) -> None:
    rows = [{"step": step, "eval_loss": loss} for step, loss in ((2, 3.0), (4, 4.0), (6, 5.0))]
    store.write_jsonl(tmp_path / validation.FILE, rows)
    found = Validation([], tmp_path, (2, 4, 6, 8), patience=3)
    for _ in range(2):
        found.begin(None, 4)  # type: ignore[arg-type]  # is not looked at
    assert [one["step"] for one in validation.read(tmp_path)] == [2, 4]
    found._judge(6, 6.0)
    assert found.stopped_at is None and found.best == (3.0, 2)
    found._judge(8, 6.0)
    assert found.stopped_at == 8


def test_a_lost_loss_is_seen(tmp_path: Path) -> None:
    class Lost(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            return type("Out", (), {"logits": torch.full((1, *input_ids.shape[1:], 4), torch.nan)})

    rows = [Encoded((1, 2, 3), (IGNORED, 2, 3))]
    with pytest.raises(TrainingError, match="held-out examples is nan at step 2"):
        Validation(rows, tmp_path, (2,)).read(Lost(), 2)  # type: ignore[arg-type]


def test_a_launched_process_reads_them_from_the_job(tiny_model: Path, tmp_path: Path) -> None:
    rows = _rows(tiny_model)
    job = _job(tiny_model, tmp_path, rows)
    store.write_jsonl(tmp_path / "held.jsonl", _examples("heldout", 3))
    spec = SPEC.model_copy(update={"val_size": 3.0, "eval_steps": 3, "early_stopping_patience": 1})
    for name, value in {"validation": tmp_path / "held.jsonl", "train": spec}.items():
        object.__setattr__(job, name, value)
    from holdfast.train.job import read_job, write_job

    write_job(job, tmp_path / "job.json")
    found = worker._validation(read_job(tmp_path / "job.json"))
    assert found is not None and [found.due(step) for step in (2, 3, 6)] == [False, True, True]
    assert worker._validation(_job(tiny_model, tmp_path, rows)) is None
