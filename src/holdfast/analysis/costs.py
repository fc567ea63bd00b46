"""What an arm cost beyond its equal budget: seconds, tokens and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean as mean
from typing import Any

from holdfast.analysis import trainings
from holdfast.errors import ModelError
from holdfast.memory.model.shape import read_shape
from holdfast.runs import records
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


def cost_of(
    plan: Plan,
    arm: ArmPlan,
    data: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
) -> Costs:
    """What one arm cost beyond its equal budget: seconds, tokens and arithmetic.

    Arithmetic is estimated as usual (Kaplan et al. 2020, arXiv:2001.08361): a forward pass takes
    two operations per parameter and token, a backward pass four; with adapters the gradients of the
    frozen weights are not formed, so that it takes two; recomputed activations cost another forward
    pass. Attention over the sequence is left out. Shared work counts in full for each arm that uses
    it.

    Args:
        plan: its study.
        arm: one that trains.
        data: the summary of its data stage.
        runs: the summaries of its trainings, one for each seed.
    """
    train = arm.training
    backward = 4.0 if train["method"] == "full" else 2.0
    again = mean(bool(run.get("recomputed", train["gradient_checkpointing"])) for run in runs)
    each = FORWARD + backward + FORWARD * again
    tokens = mean(run["tokens"] for run in runs)
    reference = mean(run["reference_tokens"] for run in runs)
    written = mean(run["generated_tokens"] for run in runs)
    probed = mean(run.get("probe_tokens", 0) for run in runs)
    passes = each * tokens + FORWARD * (reference + written) + 3 * FORWARD * probed
    shared = [plan.folder / "shared" / name for name in arm.shared]
    spent = [records.summary(folder)["spent"] for folder in shared] + [data["spent"]]
    passes += FORWARD * sum(one["read"] + one["written"] for one in spent)
    taken = sum(map(trainings.seconds, trainings.folders(plan, arm.name, plan.study.seeds)))
    return Costs(
        seconds=round(taken / len(runs), 1),
        shared_seconds=round(sum(map(trainings.seconds, shared)) + data["spent"]["seconds"], 1),
        flops=passes * _active_parameters(plan),
        tokens=round(tokens),
        generated_tokens=round(written + sum(one["written"] for one in spent)),
    )


def _active_parameters(plan: Plan) -> int:
    """Of the model under test; 0 where its configuration does not say."""
    try:
        return read_shape(plan.model.base, plan.model.revision).active_parameters
    except ModelError:
        return 0
