"""What does an exported model score on the items that had no part in choosing it?

Merging rounds, four bits round more, and adapters can be written wrongly: only the export itself
can say what it is worth. It is asked, judged and graded as the study did with every checkpoint.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from holdfast.analysis.arrays import values
from holdfast.analysis.selection import Candidate
from holdfast.analysis.selection.from_run import Evidence
from holdfast.analysis.stats import Values
from holdfast.engines.pool import EnginePool
from holdfast.grading import evaluate
from holdfast.judges import JudgeContext
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.ship.export import Form
from holdfast.study.measuring import scores
from holdfast.study.plan import BASE, Plan, place
from holdfast.types import Point


def measure(
    plan: Plan, evidence: Evidence, point: Point, ref: ModelRef, form: Form, progress: Progress
) -> Candidate:
    """Readings of an export; the items that choose are not asked and stay unscored.

    An adapter is asked on the base as the study measured it. Whole models are asked as they were
    written, whether the study measured in four bits or not. No reply is kept.

    Args:
        plan: of the finished study.
        evidence: its readings, which say which items report.
        point: what was exported.
        ref: the export.
        form: in which it was exported.
        progress: is advanced per answer.
    """
    plan.pool.close()
    pool = plan.pool
    if form != "adapter":
        answer = plan.study.answer.model_copy(update={"quantize": "none"})
        pool = EnginePool(plan.study.model_copy(update={"answer": answer}), plan.gpus)
    readings = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for task in plan.tasks:
                progress.say(f"measuring the export on {task}")
                folder = Path(scratch) / task
                readings[task] = _readings(plan, pool, evidence, point, task, ref, folder, progress)
    finally:
        pool.close()
    return Candidate(point, readings)


def _readings(
    plan: Plan,
    pool: EnginePool,
    evidence: Evidence,
    point: Point,
    task: str,
    ref: ModelRef,
    folder: Path,
    progress: Progress,
) -> Values:
    """One task asked, scored, judged and graded."""
    order, (_, reporting) = evidence.ids[task], evidence.halves[task]
    ids = {one for one, keep in zip(order, reporting, strict=True) if keep}
    asked = [one for one in plan.ask(point.arm, task) if one.id in ids]
    items = [one for one in plan.asked[task] if one.id in ids]
    replies, verdicts, graded = (folder / one for one in ("replies", "verdicts", "readings"))
    for one in (replies, verdicts, graded):
        one.mkdir(parents=True)
    evaluate.answer(pool, ref, asked, plan.samplings[task], replies, progress)
    judged = plan.tasks[task].judge
    if judged:
        evaluate.judge(
            judged, items, replies, verdicts, JudgeContext(verdicts, progress, pool.engine)
        )
    scored = _scored(plan, pool, task, folder, progress) if scores(plan.tasks[task]) else None
    evaluate.grade(plan.tasks[task], items, replies, verdicts if judged else None, graded, scored)
    return values(evaluate.read_readings(graded), order)


def _scored(
    plan: Plan, pool: EnginePool, task: str, folder: Path, progress: Progress
) -> tuple[Path, Path]:
    """Score an export's replies by the base, as the study measured it."""
    mine = folder / "surprise"
    mine.mkdir()
    if pool is not plan.pool:
        pool.close()
    try:
        items, said = plan.asked[task], folder / "replies"
        evaluate.score(plan.pool, plan.ref, items, said, mine, progress)
    finally:
        if pool is not plan.pool:
            plan.pool.close()
    return mine, plan.folder / "surprise" / place(Point(BASE), task)
