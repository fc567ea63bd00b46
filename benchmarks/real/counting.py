"""Makes a target that a small pretrained model changes on in minutes: the lab's problems as GSM8K.

Of GSM8K itself a model of this size learns nothing in the few steps that a CPU takes, so what a
remedy costs in skill cannot be seen. These problems have two or three steps over small numbers, and
worked answers; they are written as GSM8K's files are, so that its prompt and its reader are used.
A question for training that is too like one that measures is left out.

    python benchmarks/real/counting.py INTO [--steps 2,3]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
from holdfast.data.leakage import LeakIndex
from holdfast.lab.problems import Problem, problems
from holdfast.types import Example, Message

ITEMS = {"train": 1200, "test": 300}


def asked(problem: Problem) -> Example:
    """The question, to be compared with others."""
    return Example(problem.question, (Message("user", problem.question),), problem.human)


def main() -> None:
    """Write train.jsonl and test.jsonl."""
    parser = argparse.ArgumentParser()
    parser.add_argument("into", type=Path)
    parser.add_argument("--steps", default="2,3")
    args = parser.parse_args()
    steps = tuple(map(int, args.steps.split(",")))
    made = {split: problems(split, count, steps) for split, count in ITEMS.items()}
    measured = LeakIndex(map(asked, made["test"]))
    made["train"] = [one for one in made["train"] if measured.find(asked(one)) is None]
    args.into.mkdir(parents=True, exist_ok=True)
    for split, rows in made.items():
        lines = [json.dumps({"question": one.question, "answer": one.human}) for one in rows]
        (args.into / f"{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        print(f"{len(rows)} problems in {args.into / split}.jsonl")


if __name__ == "__main__":
    main()
