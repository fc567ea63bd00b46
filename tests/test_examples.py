"""The flat script without Holdfast reaches the same loss as `train.fit`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.lab.problems import problems
from holdfast.models import ModelRef
from holdfast.runs import store
from holdfast.train.data import TrainingData, encode_all
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SCRIPT = Path(__file__).parents[1] / "examples" / "sft_loop.py"


def test_the_mirror_reaches_the_same_loss(tiny_model: Path, tmp_path: Path) -> None:
    ref = ModelRef(str(tiny_model))
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", 10, (1, 2)))
    ]
    store.write_jsonl(tmp_path / "examples.jsonl", [asdict(one) for one in examples])
    spec = TrainSpec(
        learning_rate=1e-2, micro_batch_size=4, gradient_accumulation_steps=1, optim="adamw_torch",
        gradient_checkpointing=False, group_by_length=False, logging_steps=1,
    )  # fmt: skip
    rows, _, _ = encode_all(ref, examples, spec)
    budget = plain_budget([row.cost for row in rows], 10, 1, 4)
    job = TrainJob(ref, spec, budget, 7, (10,), tmp_path / "fit", device="cpu")
    spent = fit(job, TrainingData(rows))
    command = [sys.executable, SCRIPT, tiny_model, tmp_path / "examples.jsonl", "--steps", "10",
               "--batch", "4", "--lr", "0.01", "--seed", "7",
               "--out", tmp_path / "mirror"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    printed = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert printed == pytest.approx([loss for _, loss in spent["loss"]], abs=1.5e-4)
    adapter = json.loads((tmp_path / "mirror" / "adapter_config.json").read_text())
    assert adapter["r"] == 16


def test_the_mirror_is_flat_and_free_of_us() -> None:
    text = SCRIPT.read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert "import holdfast" not in text
    assert "from holdfast" not in text
