"""A training step of `train.fit` against bare TRL on pretrained models: time, and the loss.

Same model, same examples in the same order, same adapters (LoRA of rank 16 on all seven matrices of
a layer). Bare TRL is `SFTTrainer` with PEFT, as its defaults are (activations recomputed) and with
recomputation switched off. The three take turns in one process; the first step of each run warms up
and is not counted. Losses are compared in a run without dropout, where all three compute the same.

    python benchmarks/real/training.py FOLDER … [--steps 4] [--rounds 3] [--batch 8] [--rows 8]
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

warnings.simplefilter("ignore")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from holdfast import models
from holdfast.config import TrainSpec
from holdfast.data.batching import deal, plain_budget
from holdfast.train.data import TrainingData, encode_all
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SEED, LR, RANK = 1126, 2e-4, 16
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
THINGS = ("apples", "pencils", "tickets", "stamps", "bottles", "marbles", "coins", "cards")
NAMES = ("Ada", "Ben", "Chen", "Dora", "Emil", "Fang", "Gita", "Hugo")


def written(count: int, sentences: int) -> list[Example]:
    """Word problems of about 25 tokens a sentence, the working as long as the question."""
    found = []
    for number in range(count):
        draw = random.Random(f"{SEED}:{number}")
        total, asked, working = 0, [], []
        for _ in range(draw.randint(max(1, sentences - 1), sentences + 1)):
            who, what, n = draw.choice(NAMES), draw.choice(THINGS), draw.randint(2, 97)
            asked.append(
                f"{who} finds {n} {what} on the way home and puts all of them into the box."
            )
            working.append(f"The box held {total} things, and {n} {what} more make {total + n}.")
            total += n
        question = " ".join(asked) + " How many things are in the box?"
        answer = " ".join(working) + f" The answer is {total}."
        found.append(Example(f"p{number}", (Message("user", question),), answer))
    return found


def device() -> str:
    """A GPU where there is one."""
    return models.pick_device("auto")


class Clock(TrainerCallback):
    """Seconds of wall clock and of the processor of each optimiser step."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps: list[tuple[float, float]] = []
        self._began = (0.0, 0.0)

    def on_step_begin(self, *args: object, **kwargs: object) -> None:
        """Look at the clock."""
        self._began = (time.perf_counter(), time.process_time())

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Look again."""
        wall, busy = self._began
        self.steps.append((time.perf_counter() - wall, time.process_time() - busy))


Run = Callable[[str, float, Path], tuple[list[tuple[float, float]], list[float]]]
"""Model, dropout and an empty folder to times and losses of the steps."""


def ours(args: argparse.Namespace) -> Run:
    """`train.fit` with its defaults."""
    from holdfast.train import fit as module

    def run(
        model: str, dropout: float, folder: Path
    ) -> tuple[list[tuple[float, float]], list[float]]:
        clock, watch = Clock(), module.watch

        def watched(*given: object) -> TrainerCallback:
            given[0].add_callback(clock)
            return watch(*given)

        ref = models.ModelRef(model)
        spec = TrainSpec(
            learning_rate=LR, micro_batch_size=args.rows, optim=args.optim, logging_steps=1,
            gradient_accumulation_steps=args.batch // args.rows, group_by_length=False, bf16=False,
            lora={"r": RANK, "alpha": RANK, "dropout": dropout, "target_modules": list(MATRICES)},
        )  # fmt: skip
        rows, _, _ = encode_all(ref, written(args.batch * (args.steps + 1), args.sentences), spec)
        costs = [row.cost for row in rows]
        budget = plain_budget(costs, args.steps + 1, args.batch // args.rows, args.rows)
        job = TrainJob(ref, spec, budget, SEED, (args.steps + 1,), folder, device=device())
        module.watch = watched
        try:
            spent = fit(job, TrainingData(rows))
        finally:
            module.watch = watch
        return clock.steps, [loss for _, loss in spent["loss"]]

    return run


def bare(args: argparse.Namespace, recompute: bool) -> Run:
    """TRL and PEFT alone."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    def run(
        model: str, dropout: float, folder: Path
    ) -> tuple[list[tuple[float, float]], list[float]]:
        count = args.batch * (args.steps + 1)
        spec, ref = TrainSpec(), models.ModelRef(model)
        rows, _, _ = encode_all(ref, written(count, args.sentences), spec)
        costs = [row.cost for row in rows]
        budget = plain_budget(costs, args.steps + 1, args.batch // args.rows, args.rows)
        slots = deal(costs, ("task",) * count, budget, SEED, False)
        order = [rows[i] for slot in slots for i in slot]
        table = {
            "input_ids": [list(o.ids) for o in order],
            "labels": [list(o.labels) for o in order],
        }
        clock = Clock()
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
            args=SFTConfig(
                output_dir=str(folder), max_steps=args.steps + 1, learning_rate=LR,
                per_device_train_batch_size=args.rows, optim=args.optim, bf16=False,
                use_cpu=device() == "cpu",
                gradient_accumulation_steps=args.batch // args.rows, seed=SEED, logging_steps=1,
                train_sampling_strategy="sequential", activation_checkpointing=recompute,
                save_strategy="no", max_length=None, report_to=[], disable_tqdm=True,
                lr_scheduler_type="linear",
            ),
            train_dataset=Dataset.from_dict(table),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(
                r=RANK, lora_alpha=RANK, lora_dropout=dropout, target_modules=list(MATRICES),
                task_type="CAUSAL_LM",
            ),
            callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        return clock.steps, losses

    return run


def main() -> None:
    """Run them in turns and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="examples per optimiser step")
    parser.add_argument("--rows", type=int, default=8, help="examples per forward pass")
    parser.add_argument("--sentences", type=int, default=5)
    parser.add_argument("--optim", default="adamw_torch")
    args = parser.parse_args()
    if args.batch % args.rows:
        parser.error("--batch must be a multiple of --rows")
    ways = {"Holdfast": ours(args), "TRL, recomputing": bare(args, True), "TRL": bare(args, False)}
    for model in args.models:
        print_table(model, ways, args)


def print_table(model: str, ways: dict[str, Run], args: argparse.Namespace) -> None:
    """Measure one model."""
    example = encode_all(
        models.ModelRef(model), written(args.batch * (args.steps + 1), args.sentences), TrainSpec()
    )[0]
    tokens = sum(len(row.ids) for row in example)
    learned = sum(row.cost.supervised for row in example)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {}
    for turn in range(args.rounds + 1):
        for name, run in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                steps, found = run(model, 0.05 if turn else 0.0, Path(folder))
            gc.collect()
            if turn:
                wall[name] += [seconds for seconds, _ in steps[1:]]
                busy[name] += [seconds for _, seconds in steps[1:]]
            else:
                losses[name] = found
    each = tokens / (args.steps + 1) / 1000
    print(
        f"\n{Path(model).name}: {device()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, "
        f"LoRA r {RANK} on all seven matrices, dropout 0.05, {args.batch} examples of "
        f"{each * 1000 / args.batch:.0f} tokens a step ({learned / tokens:.0%} with a loss), "
        f"{args.rows} a pass, float32, seed {SEED}; median of {args.rounds} x {args.steps} steps\n"
    )
    print("| | s per 1,000 tokens | CPU s | time, Holdfast / this | CPU time | largest loss gap |")
    print("|---|---|---|---|---|---|")
    for name in ways:
        own, its = statistics.median(wall["Holdfast"]), statistics.median(wall[name])
        mine, theirs = statistics.median(busy["Holdfast"]), statistics.median(busy[name])
        pairs = zip(losses["Holdfast"], losses[name], strict=True)
        gap = max(abs(a - b) for a, b in pairs)
        print(
            f"| {name} | {its / each:.2f} | {theirs / each:.2f} | {own / its:.2f} | "
            f"{mine / theirs:.2f} | {gap:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
