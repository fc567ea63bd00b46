"""Batched answering against one prompt at a time through `pipeline`: time, equal replies.

The course's starter asks prompt by prompt. Both sides ask the lab's model the same word problems
with greedy decoding and the same limit; replies are compared. They take turns.

    python benchmarks/answering.py [--items 200] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

warnings.simplefilter("ignore")

from transformers import logging, pipeline

from holdfast import models, tasks
from holdfast.config import Sampling, TaskSpec
from holdfast.engines.hf import HFEngine
from holdfast.progress import Silent

NEW_TOKENS = 96


def main() -> None:
    """Ask both ways in turns and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    logging.set_verbosity_error()
    models.require_torch()
    spec = TaskSpec(role="target", items=args.items)
    examples = tasks.build("lab_math", spec, "benchmark").examples("test")
    one_by_one = pipeline("text-generation", model=str(models.LAB_FOLDER), device="cpu")
    ratios = []
    with HFEngine(models.ModelRef(str(models.LAB_FOLDER)), "cpu") as engine:
        engine.generate(examples[:8], Sampling(max_new_tokens=NEW_TOKENS), None, Silent())  # warm
        for _ in range(args.rounds):
            started = time.perf_counter()
            batched = engine.generate(examples, Sampling(max_new_tokens=NEW_TOKENS), None, Silent())
            middle = time.perf_counter()
            single = [
                one_by_one(
                    [{"role": turn.role, "content": turn.content} for turn in example.messages],
                    max_new_tokens=NEW_TOKENS,
                    do_sample=False,
                )[0]["generated_text"][-1]["content"]
                for example in examples
            ]
            ended = time.perf_counter()
            ratios.append((ended - middle) / (middle - started))
            same = sum(a[0].text == b for a, b in zip(batched, single, strict=True))
    print("\n| items | rounds | one at a time / batched (median, range) | same replies |")
    print("|---|---|---|---|")
    print(
        f"| {args.items} | {args.rounds} | {statistics.median(ratios):.1f} "
        f"({min(ratios):.1f}-{max(ratios):.1f}) | {same} of {args.items} |"
    )


if __name__ == "__main__":
    main()
