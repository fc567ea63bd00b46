"""`train.fit` against a bare TRL script: time, and the largest gap in loss.

Same model (the lab's), same examples in the same order, same steps; the two take turns, and the
median of the ratios is reported, so that a slow moment of the machine hits both. Both time the
whole call: loading, encoding, training, saving.

    python benchmarks/fit_overhead.py [--rounds 5] [--steps 60]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
warnings.simplefilter("ignore")

import sft_loop

from holdfast import models, tasks
from holdfast.config import TaskSpec, TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.train.data import TrainingData, encode_all
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example

BATCH, LR, SEED = 32, 3.5e-3, 1126


def ours(examples: list[Example], steps: int, folder: Path) -> list[float]:
    """Losses of `train.fit`, one per tenth of the run."""
    ref = models.ModelRef(str(models.LAB_FOLDER))
    spec = TrainSpec(
        learning_rate=LR, micro_batch_size=BATCH, gradient_accumulation_steps=1,
        optim="adamw_torch", gradient_checkpointing=False, group_by_length=False,
    )  # fmt: skip
    rows, _, _ = encode_all(ref, examples, spec)
    budget = plain_budget([row.cost for row in rows], steps, 1, BATCH)
    job = TrainJob(ref, spec, budget, SEED, (steps,), folder, device="cpu")
    spent = fit(job, TrainingData(rows))
    return [loss for _, loss in spent["loss"]]


def bare(examples: list[Example], steps: int, folder: Path) -> list[float]:
    """Losses of the plain script."""
    rows = [asdict(one) for one in examples]
    found = sft_loop.train(str(models.LAB_FOLDER), rows, folder, steps, BATCH, LR, SEED)
    return [loss for _, loss in found]


def main() -> None:
    """Run both in turns and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    task = tasks.build("lab_math", TaskSpec(role="target"), "benchmark")
    examples = task.examples("train")
    ratios, gaps = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds + 1):
            seconds, losses = {}, {}
            for name, run in (("fit", ours), ("bare", bare)):
                started = time.perf_counter()
                losses[name] = run(examples, args.steps, Path(folder) / f"{name}{turn}")
                seconds[name] = time.perf_counter() - started
            if turn:  # the first round pays for imports
                ratios.append(seconds["fit"] / seconds["bare"])
                pairs = zip(losses["fit"], losses["bare"], strict=True)
                gaps.append(max(abs(a - b) for a, b in pairs))
    print("\n| steps | rounds | time of fit / bare TRL (median, range) | largest loss gap |")
    print("|---|---|---|---|")
    print(
        f"| {args.steps} | {args.rounds} | {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f}-{max(ratios):.3f}) | {max(gaps):.1e} |"
    )


if __name__ == "__main__":
    main()
