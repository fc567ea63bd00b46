"""What a study saves by sharing, over running its arms as studies of their own.

Base answers, the base's losses of answers and self-generated samples are made once for all arms.
The same arms are run once together and once each alone, on the lab's model. The readings are
compared too: sharing must not change them.

    OMP_NUM_THREADS=1 python benchmarks/study.py [--items 60] [--steps 20]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from holdfast import study
from holdfast.config import Study
from holdfast.progress import Silent
from holdfast.runs import store

LAB = {"prompts": "lab", "pool": 200, "max_new_tokens": 64}
SELF = {"selfgen": {"samples": 4, "temperature": 0.8, "unsolved": "drop"}}
ARMS: dict[str, dict[str, Any]] = {
    "sft": {},
    "replay": {"data": [{"replay": {"share": 0.1, **LAB}}]},
    "replay30": {"data": [{"replay": {"share": 0.3, **LAB}}]},
    "kl": {"loss": [{"kl": LAB}]},
    "self": {"data": [SELF]},
    "self_replay": {"data": [SELF, {"replay": {"share": 0.1, **LAB}}]},
    "masked": {"loss": ["token_mask"]},
    "masked10": {"loss": [{"token_mask": {"max_perplexity": 10}}]},
}


def make(name: str, arms: dict[str, Any], items: int, steps: int) -> Study:
    """A study of these arms."""
    return Study.model_validate({
        "name": name, "model": "lab", "seeds": [1126],
        "tasks": {
            "lab_math": {"role": "target", "items": items, "train_items": 300},
            "lab_refuse": {"items": items}, "lab_help": {"items": items},
        },
        "answer": {"sampling": {"max_new_tokens": 96}},
        "train": {
            "learning_rate": 0.004, "max_steps": steps, "checkpoints": 1, "optim": "adamw_torch",
            "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False, "group_by_length": False,
        },
        "arms": arms,
    })  # fmt: skip


def run(one: Study, folder: Path) -> tuple[float, dict[str, str]]:
    """Seconds of a whole study, and its readings by place."""
    started = time.perf_counter()
    study.run(one, folder / one.name, Silent())
    spent = time.perf_counter() - started
    found = (folder / one.name / "readings").rglob("readings.jsonl")
    root = folder / one.name / "readings"
    return spent, {str(path.relative_to(root)): path.read_text("utf-8") for path in found}


def main() -> None:
    """Run both ways and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(make("warm", {"sft": {}}, 8, 2), folder)  # pays for imports
        together, readings = run(make("together", ARMS, args.items, args.steps), folder)
        alone, same, compared = 0.0, 0, 0
        for arm, spec in ARMS.items():
            spent, own = run(make(f"alone-{arm}", {arm: spec}, args.items, args.steps), folder)
            alone += spent
            compared += len(own)
            same += sum(readings[place] == text for place, text in own.items())
            print(f"{arm}: {spent / together:.0%} of all together", file=sys.stderr, flush=True)
        shared = sum(
            store.read_json(path)["seconds"]
            for path in (folder / "together" / "shared").rglob(store.RECORD)
        )
    print(f"\n{len(ARMS)} arms, one seed, {args.steps} steps, {args.items} items a task, CPU\n")
    print("| arms | alone / together, time | shared work, share of the study | equal readings |")
    print("|---|---|---|---|")
    print(
        f"| {len(ARMS)} | {alone / together:.2f} | {shared / together:.0%} | {same} of {compared} |"
    )


if __name__ == "__main__":
    main()
