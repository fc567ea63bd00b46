"""Measures an exported model on all items, as the study measured every checkpoint.

Merging rounds, four bits round more, and adapters can be written wrongly: only the export itself
can say what it is worth. It is asked, judged and graded as the study did with every checkpoint.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from holdfast.analysis.arrays import values
from holdfast.analysis.selection import Candidate
from holdfast.analysis.selection.from_run import Evidence
from holdfast.analysis.stats import Values
from holdfast.engines.pool import EnginePool
from holdfast.grading.answer import answer_items
from holdfast.grading.grade import grade_replies, read_readings
from holdfast.grading.judge import judge_replies
from holdfast.grading.perplexity import score_replies
from holdfast.judges import JudgeContext
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.runs.plan import place
from holdfast.shipping.export import Form
from holdfast.study.session import Session
from holdfast.types import BASE, Point


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: which point, the model that lies there now, and in which form."""

    point: Point
    model: ModelRef
    form: Form


def measure(
    session: Session, evidence: Evidence, exported: Exported, progress: Progress
) -> Candidate:
    """Readings of an export, on all items of every task.

    An adapter is asked on the base as the study measured it. Whole models are asked as they were
    written, whether the study measured in four bits or not. No reply is kept.

    Args:
        session: of the finished study.
        evidence: its readings, which say in which order items stand.
        exported: what was exported.
        progress: is advanced per answer.
    """
    pool = session.pool
    if exported.form != "adapter":
        answer = session.study.answer.model_copy(update={"quantize": "none"})
        study = session.study.model_copy(update={"answer": answer})
        pool = EnginePool(study, session.gpus, pool.under_test)
    readings = {}
    try:
        with tempfile.TemporaryDirectory() as scratch:
            measuring = _Measuring(session, pool, exported, progress)
            for task in session.plan.tasks:
                progress.say(f"measuring the export on {task}")
                readings[task] = measuring.readings(task, evidence, Path(scratch) / task)
    finally:
        pool.close()
        session.pool.close()
    return Candidate(exported.point, readings)


@dataclass(frozen=True, slots=True)
class _Measuring:
    """One export being measured."""

    session: Session
    pool: EnginePool
    exported: Exported
    progress: Progress

    def readings(self, task: str, evidence: Evidence, folder: Path) -> Values:
        """One task asked, scored, judged and graded."""
        measuring, own = self.session.measuring, self.session.measuring.tasks[task]
        asked, items = self.session.ask(self.exported.point.arm, task), measuring.asked[task]
        replies, verdicts, graded = (folder / part for part in ("replies", "verdicts", "readings"))
        for place_ in (replies, verdicts, graded):
            place_.mkdir(parents=True)
        sampling = measuring.samplings[task]
        answer_items(self.pool, self.exported.model, asked, sampling, replies, self.progress)
        if own.judge:
            desk = JudgeContext(verdicts, self.progress, self.pool.engine)
            judge_replies(own.judge, items, replies, verdicts, desk)
        scored = self._scored(task, folder) if self.session.plan.tasks[task].perplexity else None
        grade_replies(own, items, replies, verdicts if own.judge else None, graded, scored)
        return values(read_readings(graded), evidence.ids[task])

    def _scored(self, task: str, folder: Path) -> tuple[Path, Path]:
        """Score an export's replies by the base, as the study measured it."""
        mine, session = folder / "perplexity", self.session
        mine.mkdir()
        if self.pool is not session.pool:
            self.pool.close()
        try:
            items, said = session.measuring.asked[task], folder / "replies"
            score_replies(session.pool, session.plan.model, items, said, mine, self.progress)
        finally:
            if self.pool is not session.pool:
                session.pool.close()
        return mine, session.folder / "perplexity" / place(Point(BASE), task)
