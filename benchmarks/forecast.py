"""Can the first tenth of a training foretell what it will have lost? Of arms that were left out.

Every training of finished studies is foretold from what a meter read at its first checkpoint, by
the trainings of all other arms (`holdfast.analysis.forecast`), and held against what it had lost at
its last. The studies must share a model and their tasks.

    python benchmarks/forecast.py runs/lab-remedies [RUN ...] [--target lab_math]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
from meters import NAMES, Reading, gather

from holdfast.analysis.forecast import FEWEST, LEVEL, Meter, Past, skill


def first_and_last(found: list[Reading]) -> list[tuple[Reading, Reading]]:
    """The first checkpoint of every training, and its last."""
    by_training: dict[str, list[Reading]] = {}
    for one in found:
        by_training.setdefault(one.training, []).append(one)
    ordered = (sorted(each, key=lambda one: one.meters["steps"]) for each in by_training.values())
    return [(each[0], each[-1]) for each in ordered if len(each) > 1]


def main() -> None:
    """Read the runs and print a table for each retained task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--target", default="lab_math")
    args = parser.parse_args()
    pairs = first_and_last([one for run in args.runs for one in gather(run)])
    if not pairs:
        raise SystemExit("no training of these runs has two checkpoints with meters")
    share = np.median([first.meters["steps"] / last.meters["steps"] for first, last in pairs])
    print(f"\n{len(pairs)} trainings, first read after {share:.0%} of their steps")
    for task in sorted(set(pairs[0][0].lost) - {args.target}):
        print(f"\n{task}\n\n| meter | trainings, arms | rank correlation | in their {LEVEL:.0%} "
              "interval | its width | error / the mean's | skill |")  # fmt: skip
        print("|---|---|---|---|---|---|---|")
        for meter in get_args(Meter):
            past = [
                Past(first.arm, {meter: first.meters[meter]}, -last.lost[task])
                for first, last in pairs
                if not np.isnan(first.meters[meter])
            ]
            found = skill(past, meter)
            if found is None:
                print(f"| {NAMES[meter]} | fewer than {FEWEST + 1} arms |")
                continue
            rank = found.rank
            print(
                f"| {NAMES[meter]} | {found.trainings}, {found.arms} | {rank.mean:+.2f} "
                f"[{rank.low:+.2f}, {rank.high:+.2f}] | {found.covered:.0%} | {found.width:.2f} | "
                f"{found.error:.2f} | {'some' if found.any else 'none'} |"
            )


if __name__ == "__main__":
    main()
