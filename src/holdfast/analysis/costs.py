"""Seconds, tokens and arithmetic that an arm cost beyond its equal budget.

Arithmetic is estimated as usual (Kaplan et al. 2020, arXiv:2001.08361): a forward pass takes two
operations per parameter and token, a backward pass four; with adapters the gradients of the frozen
weights are not formed, so that it takes two; recomputed activations cost another forward pass.
Attention over the sequence is left out. Shared work counts in full for each arm that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.memory.model.shape import read_shape
from holdfast.runs import store
from holdfast.runs.plan import ArmPlan, Plan

FORWARD = 2.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one arm; means over its seeds where there are several trainings.

    Attributes:
        seconds: of training.
        shared_seconds: of work that other arms may share.
        flops: estimate of all of it.
        tokens: put through the model in training.
        generated_tokens: written by the model, for its data or in training.
    """

    seconds: float
    shared_seconds: float
    flops: float
    tokens: int
    generated_tokens: int


def of_arm(
    plan: Plan,
    arm: ArmPlan,
    data: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
) -> Costs:
    """What one arm cost.

    Args:
        plan: its study.
        arm: one that trains.
        data: the summary of its data stage.
        runs: the summaries of its trainings.
        folders: of its trainings.
    """
    train = arm.training
    backward = 4.0 if train["method"] == "full" else 2.0
    each = FORWARD + backward + (FORWARD if train["gradient_checkpointing"] else 0.0)
    tokens = _mean(run["tokens"] for run in runs)
    reference = _mean(run["reference_tokens"] for run in runs)
    written = _mean(run["generated_tokens"] for run in runs)
    probed = _mean(run.get("probe_tokens", 0) for run in runs)
    passes = each * tokens + FORWARD * (reference + written) + 3 * FORWARD * probed
    records = [store.read_json(plan.folder / "shared" / name / store.RECORD) for name in arm.shared]
    spent = [record["summary"]["spent"] for record in records] + [data["spent"]]
    passes += FORWARD * sum(one["read"] + one["written"] for one in spent)
    return Costs(
        seconds=round(_mean(_seconds(folder) for folder in folders), 1),
        shared_seconds=round(
            sum(record["seconds"] for record in records) + data["spent"]["seconds"], 1
        ),
        flops=passes * read_shape(plan.model.base, plan.model.revision).active_parameters,
        tokens=round(tokens),
        generated_tokens=round(written + sum(one["written"] for one in spent)),
    )


def _seconds(folder: Path) -> float:
    return float(store.read_json(folder / store.RECORD)["seconds"])


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
