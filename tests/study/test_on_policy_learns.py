"""Does reinforcement by the grader learn on the lab, half as much as plain fine-tuning or more?

Minutes: the lab's model, 160 steps of 16 questions, 8 answers to each. The questions are those that
the untouched model solves two times in three; of five steps it solves none, and what is never right
is never rewarded.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.study import run_study, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TASKS = {
    "lab_math": {
        "role": "target",
        "split": "heldout",
        "items": 300,
        "train_items": 600,
        "steps": [4],
    },
    "lab_refuse": {"items": 200, "seed": 1},
}
TRAIN = {
    "optim": "adamw_torch", "learning_rate": 0.002, "warmup_steps": 0.05, "max_steps": 160,
    "checkpoints": 4, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False, "group_by_length": False,
    "lora": {"r": 16, "alpha": 32, "dropout": 0.0},
}  # fmt: skip
ARMS = {
    "sft": {},
    "grpo": {
        "loss": [{"grpo": {"group": 8, "max_new_tokens": 96}}],
        "train": {"learning_rate": 0.001},
    },
    "raft": {"loss": [{"raft": {"rounds": 4, "samples": 4, "max_new_tokens": 96}}]},
}


def test_it_gains_half_of_what_plain_fine_tuning_does(tmp_path: Path) -> None:
    file = write_study(
        tmp_path, Path("lab"), seeds=[1126], tasks=TASKS, train=TRAIN, arms=ARMS,
        answer={"sampling": {"max_new_tokens": 96}, "repeats": 1}, meters={"probes": 0},
    )  # fmt: skip
    run_study(file, tmp_path / "runs")
    results = json.loads((tmp_path / "runs" / "s" / "stats" / "results.json").read_text())
    last = {
        (cell["arm"], cell["task"]): cell["diff"]
        for cell in results["cells"]
        if cell["step"] == TRAIN["max_steps"]
    }
    for key, diff in last.items():
        print(key, diff)
    print(json.dumps(results["equal_gain"], indent=1))
    sft, grpo = last["sft", "lab_math"], last["grpo", "lab_math"]
    assert sft["low"] > 0 and grpo["low"] > 0
    assert grpo["mean"] >= sft["mean"] / 2
    assert any(one["arm"] == "grpo" for one in results["equal_gain"])
