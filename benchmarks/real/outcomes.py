"""What became of the prompts, by outcome: the tables of docs/real.md, from a study's readings.

    python benchmarks/real/outcomes.py dose [--against MODEL] [--task TASK ...]

MODEL is the first part of ``model/task`` in ``results/NAME/readings.csv``; ``base`` unless given.
Of every other model: the change of each outcome's share against it in points, over the same items,
with Tango's interval (95 %) for paired shares. Items that nobody could score count as outcomes of
their own, so that the shares of one model add up to one.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from holdfast.analysis.arrays import as_share
from holdfast.analysis.stats.intervals import paired_difference
from holdfast.report import words

RESULTS = ROOT / "benchmarks/real/results"
Outcomes = Mapping[str, str]
"""Outcome by item."""


def outcomes(file: Path) -> dict[str, dict[str, dict[str, str]]]:
    """By task, by model: the outcome of every item of a ``readings.csv``."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            model, _, task = row["model/task"].rpartition("/")
            found.setdefault(task, {}).setdefault(model, {})[row["item"]] = row["outcome"]
    return found


def change(first: Outcomes, second: Outcomes, outcome: str) -> str:
    """The change of an outcome's share from the first model to the second, in points."""
    items = sorted(first.keys() & second.keys())
    before, after = (
        np.array([one[item] == outcome for item in items], dtype=float) for one in (first, second)
    )
    return words.points(as_share(paired_difference(before, after[None, :])))


def table(models: Mapping[str, Outcomes], against: str) -> list[str]:
    """Markdown: a row a model, a column an outcome; first how many items had it in `against`."""
    first = models[against]
    names = sorted({outcome for one in models.values() for outcome in one.values()})
    counts = [f"{sum(outcome == name for outcome in first.values())}" for name in names]
    rows = [["", *names], ["---"] * (1 + len(names)), [f"{against} (items)", *counts]]
    rows += [
        [model, *(change(first, one, name) for name in names)]
        for model, one in models.items()
        if model != against
    ]
    return [f"| {' | '.join(row)} |" for row in rows]


def main(given: Sequence[str] | None = None) -> None:
    """Print a table a task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", help="a folder below benchmarks/real/results")
    parser.add_argument("--against", default="base")
    parser.add_argument("--task", action="append", default=[])
    args = parser.parse_args(given)
    for task, models in outcomes(RESULTS / args.name / "readings.csv").items():
        if not args.task or task in args.task:
            print(f"\n{task}\n", *table(models, args.against), sep="\n")


if __name__ == "__main__":
    main()
