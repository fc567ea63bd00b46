"""Which checkpoints of a run nobody needs any more, and what a run folder can do without.

Never deleted: what continues a run, what may be shipped (the chosen checkpoint, the runner-up, all
on the frontier), and the last checkpoint of every training. Replies, verdicts, readings and
statistics stay: they are small, and the report is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.analysis import selection
from holdfast.analysis.selection import from_run
from holdfast.runs import run_folder, stages, temporary
from holdfast.runs.plan import Plan, checkpoint_name, read_plan
from holdfast.train.checkpoints import step_of


@dataclass(frozen=True, slots=True)
class Spare:
    """A folder that is not needed.

    Attributes:
        path: its place.
        bytes: that it takes.
        why: it is not needed.
    """

    path: Path
    bytes: int
    why: str


def prune(plan: Plan) -> list[Path]:
    """Delete checkpoints that nobody needs once everything is measured.

    `train.save_total_limit` bounds how many each run keeps. Those on the frontier, the chosen one
    and the runner-up are never deleted, however many they are; of the others the newest stay.

    Args:
        plan: of a study whose statistics are done.

    Returns:
        The folders that were deleted.
    """
    limit = plan.study.train.save_total_limit
    if limit is None:
        return []
    deleted = list(_beyond(plan, limit))
    for checkpoint in deleted:
        temporary.remove_tree(checkpoint)
    return deleted


def _beyond(plan: Plan, limit: int) -> Iterator[Path]:
    """Checkpoints beyond so many of each training that the decision does not need."""
    evidence = from_run.gather(plan)
    decision = from_run.decide(plan, evidence)
    also = [choice.point for choice in (decision.chosen, decision.runner_up) if choice is not None]
    kept = {
        plan.folder / plan.checkpoint(plan.arms[arm].source, own, step)
        for arm, seed, step in selection.keepers(evidence.trained, also)
        for own in (plan.study.seeds if seed is None else (seed,))
    }
    kept |= _ends(plan)
    for folder in [plan.folder / of.stage for one in plan.trained for of in plan.trainings(*one)]:
        found = sorted(folder.glob(checkpoint_name(0)[:-1] + "*"), key=step_of, reverse=True)
        spare = [checkpoint for checkpoint in found if checkpoint not in kept]
        yield from spare[max(0, limit - (len(found) - len(spare))) :]


def _ends(plan: Plan) -> set[Path]:
    """Where each stage of continual learning ended, which the next one began with."""
    return {
        plan.folder / plan.checkpoint(*one, of.end) for one in plan.trained for of in plan.chapters
    }


def spare(folder: Path) -> list[Spare]:
    """What can be deleted of a run folder; touches nothing.

    Args:
        folder: of a study or comparison, finished or not. Of an unfinished one only what was begun
            for stages that are finished otherwise is spare.

    Raises:
        FolderError: no run folder.
        Damaged: a record is torn.
    """
    plan = read_plan(folder)
    done = {one.name: (folder / one.name / "record.json").is_file() for one in plan.stages}
    found = [
        Spare(left, _size(left), "begun anew since")
        for name in done
        if done[name] and (left := stages.work_folder(folder / name)).is_dir()
    ]
    if not plan.trained or not all(made for name, made in done.items() if name != "report"):
        return found
    last = {plan.folder / plan.checkpoint(*one, max(plan.save_at)) for one in plan.trained}
    for checkpoint in _beyond(plan, 0):
        if checkpoint not in last:
            found.append(
                Spare(checkpoint, _size(checkpoint), "measured, and neither best nor last")
            )
    return found


def clean(folder: Path) -> list[Spare]:
    """Delete what `spare` finds, holding the run folder; returns what is gone.

    Raises:
        FolderError: another run is using it.
    """
    with run_folder.lock(folder):
        found = spare(folder)
        for one in found:
            temporary.remove_tree(one.path)
    return found


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
