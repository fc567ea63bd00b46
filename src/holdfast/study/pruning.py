"""Deletes checkpoints that nobody needs once everything is measured.

`train.save_total_limit` bounds how many each run keeps. Those on the frontier, the chosen one and
the runner-up are never deleted, however many they are; of the others the newest stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from holdfast.analysis import selection
from holdfast.analysis.selection import from_run
from holdfast.runs.plan import Plan
from holdfast.train.checkpoints import step_of


def prune(plan: Plan) -> list[Path]:
    """Delete what the limit does not allow.

    Args:
        plan: of a study whose statistics are done.

    Returns:
        The folders that were deleted.
    """
    limit = plan.study.train.save_total_limit
    if limit is None:
        return []
    evidence = from_run.gather(plan)
    decision = from_run.decide(plan, evidence)
    also = [choice.point for choice in (decision.chosen, decision.runner_up) if choice is not None]
    kept = {
        plan.folder / plan.checkpoint(plan.arms[arm].source, own, step)
        for arm, seed, step in selection.keepers(evidence.trained, also)
        for own in (plan.study.seeds if seed is None else (seed,))
    }
    deleted = []
    for arm, seed in plan.trained:
        folder = plan.folder / "train" / arm / f"seed{seed}"
        found = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
        spare = [checkpoint for checkpoint in found if checkpoint not in kept]
        room = max(0, limit - (len(found) - len(spare)))
        for checkpoint in spare[room:]:
            shutil.rmtree(checkpoint)
            deleted.append(checkpoint)
    return deleted
