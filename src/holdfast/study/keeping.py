"""Which checkpoints can be deleted once everything is measured?

`train.save_total_limit` bounds how many each run keeps. Those on the frontier, the chosen one and
the runner-up are never deleted, however many they are; of the others the newest stay.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from holdfast.analysis import selection
from holdfast.analysis.selection import from_run
from holdfast.study.plan import Plan
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
    also = [one.point for one in (decision.chosen, decision.runner_up) if one is not None]
    kept = {
        plan.folder / plan.checkpoint(plan.arms[arm].variant.source, one, step)
        for arm, seed, step in selection.keepers(evidence.trained, also)
        for one in (plan.study.seeds if seed is None else (seed,))
    }
    deleted = []
    for arm, seed in plan.trained:
        folder = plan.folder / "train" / arm / f"seed{seed}"
        found = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
        spare = [one for one in found if one not in kept]
        room = max(0, limit - (len(found) - len(spare)))
        for one in spare[room:]:
            shutil.rmtree(one)
            deleted.append(one)
    return deleted
