"""How well the meters foretell forgetting, over all checkpoints of finished studies.

Every checkpoint of every training is a point: what the meters read there, and what was lost on each
retained task, on all its items, against the untouched model. Spearman's rank correlation over all
points says whether a meter orders models of different arms; within arms (ranks within each, pooled)
whether it orders the checkpoints of one. The interval resamples trainings, because the checkpoints
of one training are alike. Steps and training loss stand beside as what everybody has anyway.

    holdfast run examples/lab_remedies.yaml
    python benchmarks/meters.py runs/lab-remedies [RUN ...]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from holdfast.analysis.arrays import item_ids, values
from holdfast.grading.grade import read_readings
from holdfast.runs import store
from holdfast.train import meters

NAMES = {
    "kl": "KL(base‖tuned) per token",
    "cross_entropy": "cross-entropy to the base's answers",
    "norm": "norm of the change",
    "steps": "optimiser steps",
    "fit": "training loss, negated",
}
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Reading:
    """One checkpoint: of which training, what the meters read, what was lost by task."""

    arm: str
    training: str
    meters: dict[str, float]
    lost: dict[str, float]


def gather(run: Path) -> list[Reading]:
    """All checkpoints of a run folder that were metered and measured."""
    tasks = sorted(one.name for one in (run / "readings" / "base").iterdir())
    before = {task: read_readings(run / "readings" / "base" / task) for task in tasks}
    found = []
    for folder in sorted((run / "train").glob("*/seed*")):
        arm, seed = folder.parent.name, folder.name
        logged = store.read_json(folder / store.RECORD)["summary"]["loss"]
        for one in meters.read(folder):
            measured = run / "readings" / arm / seed / f"checkpoint-{one['step']}"
            if not measured.is_dir():
                continue
            lost = {}
            for task in tasks:
                ids = item_ids(before[task])
                after = values(read_readings(measured / task), ids)
                lost[task] = float(np.nanmean(values(before[task], ids) - after))
            loss = [value for step, value in logged if step <= one["step"]]
            read = {
                "kl": one["kl"], "cross_entropy": one["cross_entropy"], "steps": one["step"],
                "norm": np.nan if one["norm"] is None else one["norm"],
                "fit": -loss[-1] if loss else np.nan,
            }  # fmt: skip
            found.append(Reading(arm, f"{run.name}/{arm}/{seed}", read, lost))
    return found


def spearman(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> float:
    """Rank correlation; ranks are taken within the groups and pooled."""
    used = ~(np.isnan(x) | np.isnan(y))
    x, y, groups = x[used], y[used], groups[used]
    parts = []
    for group in np.unique(groups):
        mine = groups == group
        a, b = rankdata(x[mine]), rankdata(y[mine])
        parts.append(np.stack([a - a.mean(), b - b.mean()]))
    if not parts:
        return float("nan")
    a, b = np.concatenate(parts, axis=1)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale else float("nan")


def with_interval(found: list[Reading], meter: str, task: str, within: bool) -> str:
    """ρ and its 95 % percentile interval over trainings."""
    x = np.array([one.meters[meter] for one in found])
    y = np.array([one.lost[task] for one in found])
    groups = np.array([one.arm if within else "" for one in found])
    trainings = np.array([one.training for one in found])
    names = np.unique(trainings)
    places = {name: np.flatnonzero(trainings == name) for name in names}
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        some = np.concatenate([places[one] for one in rng.choice(names, len(names))])
        drawn.append(spearman(x[some], y[some], groups[some]))
    rho = spearman(x, y, groups)
    if np.isnan(rho):
        return "nothing to order"
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{rho:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Read the runs and print a table for each retained task."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--target", default="lab_math")
    args = parser.parse_args()
    found = [one for run in args.runs for one in gather(run)]
    trainings = len({one.training for one in found})
    print(
        f"\n{len(found)} checkpoints of {trainings} trainings, {len({o.arm for o in found})} arms"
    )
    for task in sorted(found[0].lost):
        if task == args.target:
            continue
        print(f"\nSpearman's ρ with what was lost on {task}, 95 % intervals\n")
        print("| meter | over all arms | within arms |")
        print("|---|---|---|")
        for meter, name in NAMES.items():
            ways = (with_interval(found, meter, task, within) for within in (False, True))
            print(f"| {name} | {' | '.join(ways)} |")


if __name__ == "__main__":
    main()
