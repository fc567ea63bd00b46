"""Training with packed rows against padded ones on the lengths of GSM8K: tokens/s, and the loss.

The same model, the same examples in the same steps, the same adapters (LoRA of rank 16, no dropout,
so that both compute the same); packed and padded take turns in one process, and the first step of
each run warms up and is not counted. Tokens are those of the examples, padding left out. Padded
rows come in a random order, as transformers and TRL lay them out by themselves, and by length
(`group_by_length`, this package's default), which is the other way to save padding.

    python benchmarks/real/packing.py FOLDER --data gsm8k/train.jsonl [--steps 4] [--rounds 3]
        [--batch 32] [--rows 8] [--width 0]
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch
from transformers import TrainerCallback

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.train import fit as module
from holdfast.train.data import TrainingData, encode_all
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SEED, LR, RANK = 1126, 2e-4, 16


def read(path: Path, count: int) -> list[Example]:
    """The first questions and worked answers of a GSM8K file."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]
    return [
        Example(f"g{i}", (Message("user", row["question"]),), row["answer"])
        for i, row in enumerate(rows)
    ]


class Clock(TrainerCallback):
    """Seconds of each optimiser step."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        """Look at the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Look again."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.steps.append(time.perf_counter() - self._began)


def run(
    args: argparse.Namespace, packing: bool, by_length: bool, folder: Path
) -> tuple[list[float], dict[str, object]]:
    """Seconds of the steps, and the training's summary."""
    clock, watch = Clock(), module.watch

    def watched(*given: object) -> TrainerCallback:
        given[0].add_callback(clock)
        return watch(*given)

    ref = models.ModelRef(args.model, attention=args.attention)
    spec = TrainSpec(
        learning_rate=LR, micro_batch_size=args.rows, optim="adamw_torch", logging_steps=1,
        gradient_accumulation_steps=args.batch // args.rows, group_by_length=by_length,
        packing=packing, max_length=args.width or None, overlong="drop",
        bf16=False if models.pick_device("auto") == "cpu" else "auto",
        lora={"r": RANK, "alpha": RANK, "dropout": 0.0},
    )  # fmt: skip
    rows, _, _ = encode_all(ref, read(args.data, args.batch * (args.steps + 1)), spec)
    steps = args.steps + 1
    budget = plain_budget([row.cost for row in rows], steps, spec.accumulation, args.rows)
    job = TrainJob(ref, spec, budget, SEED, (steps,), folder, device=models.pick_device("auto"))
    module.watch = watched
    try:
        spent = dict(fit(job, TrainingData(rows)))
    finally:
        module.watch = watch
    return clock.steps, spent


WAYS = {
    "padded, random order": (False, False),
    "packed, random order": (True, False),
    "padded, by length": (False, True),
    "packed, by length": (True, True),
}


def main() -> None:
    """Run them in turns and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="folder of a pretrained model")
    parser.add_argument("--data", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32, help="examples per optimiser step")
    parser.add_argument("--rows", type=int, default=8, help="rows per forward pass")
    parser.add_argument("--width", type=int, default=0, help="tokens of a row; 0: longest example")
    parser.add_argument("--attention", default="", help="such as flash_attention_2")
    args = parser.parse_args()
    if args.batch % args.rows:
        parser.error("--batch must be a multiple of --rows")
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    losses: dict[str, list[float]] = {}
    padding: dict[str, float] = {}
    tokens = 0
    for turn in range(args.rounds):
        for name, (packing, by_length) in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, spent = run(args, packing, by_length, Path(folder))
            gc.collect()
            tokens = int(str(spent["tokens"]))
            rates[name].append(tokens * args.steps / (args.steps + 1) / sum(seconds[1:]))
            losses[name] = [loss for _, loss in spent["loss"]]
            told = spent.get("packing", {})
            if told:
                padding[name] = told["padding"]
                padding[name.replace("packed", "padded")] = told["padding_unpacked"]
            print(f"round {turn + 1}, {name}: {rates[name][-1]:.0f} tokens/s", flush=True)
    print(
        f"\n{Path(args.model).name}: {models.pick_device('auto')}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}, LoRA r {RANK}, {args.batch} examples of "
        f"{tokens / args.batch / (args.steps + 1):.0f} tokens a step, {args.rows} rows a pass, "
        f"seed {SEED}; median of {args.rounds} x {args.steps} steps\n"
    )
    print("| | tokens/s | packed / padded (range) | padding | largest loss gap |")
    print("|---|---|---|---|---|")
    for name, rate in rates.items():
        other = name.replace("packed", "padded")
        ratios = [a / b for a, b in zip(rate, rates[other], strict=True)]
        gap = max(abs(a - b) for a, b in zip(losses[name], losses[other], strict=True))
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(
            f"| {name} | {statistics.median(rate):.0f} | {shown if name != other else ''} | "
            f"{padding[name]:.1%} | {f'{gap:.1e}' if name != other else ''} |"
        )


if __name__ == "__main__":
    main()
