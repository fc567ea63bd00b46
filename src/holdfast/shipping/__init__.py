"""Exports the checkpoint that a study chose, measured again as exported.

The rule decides by the readings of the run. What it chose is exported into a temporary folder, the
export itself is asked and graded again on all items, the rule decides again by those readings, and
only then the folder gets its name. Merging and four bits
change a model; what is given away is what was measured.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.analysis import selection
from holdfast.analysis.arrays import as_share
from holdfast.analysis.collect import task_infos
from holdfast.analysis.results import Decision, Share
from holdfast.analysis.selection import Candidate, from_run
from holdfast.analysis.selection.from_run import Evidence
from holdfast.analysis.stats import Values, paired_difference, wilson
from holdfast.comparison import REQUEST
from holdfast.config import consent
from holdfast.errors import UsageError, begun
from holdfast.models import ModelRef, gguf_cache
from holdfast.progress import Progress, Silent, default
from holdfast.registry import nearest
from holdfast.report.run import Run
from holdfast.runs import records, run_folder, stages, store
from holdfast.runs.full_disk import explained_disk
from holdfast.runs.plan import Plan, point_folder, read_plan
from holdfast.shipping import gguf
from holdfast.shipping.card import CARD, SHIP, Card, Figure
from holdfast.shipping.export import FORMS, Form, building, export, free
from holdfast.shipping.push import Pushed, look, push
from holdfast.shipping.remeasure import Exported, measure
from holdfast.shipping.usage import write_modelfile
from holdfast.study import prepare

DECISION = "decision.json"


@dataclass(frozen=True, slots=True)
class Shipment:
    """What came of it.

    Attributes:
        in_study: the decision by the readings of the run.
        exported: the same rule put to the export; None where nothing was exported.
        form: in which it is, or would be, exported.
        folder: the export; None where there is none.
        notices: what else whoever reads the answer must know of the run.
    """

    in_study: Decision
    form: Form
    exported: Decision | None = None
    folder: Path | None = None
    notices: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The last word: by the export where there is one."""
        return (self.exported or self.in_study).answer

    @property
    def exit_code(self) -> int:
        """0: it may be shipped; 2: it may not, or too little is known."""
        return 0 if self.answer == SHIP else 2

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"answer": self.answer, "folder": self.folder and str(self.folder)}

    def push(self, name: str, really: bool = False) -> Pushed:
        """Send the export to the hub as ``owner/name``, or only say what would be sent.

        Raises:
            UsageError: nothing was exported, or no such name can be.
            HoldfastError: see `holdfast.shipping.push`.
        """
        if self.folder is None:
            raise UsageError("nothing was exported", remedy="see the answer; or add --anyway")
        return push(self.folder, name) if really else look(self.folder, name)

    def text(self) -> str:
        """All of it for a terminal."""
        one = self.in_study
        lines = [f"{self.answer[:1].upper()}{self.answer[1:]}.", one.reason, one.why_not]
        if self.exported is not None:
            lines.append(f"Measured again as exported ({self.form}): {self.exported.reason}")
        last = self.exported or one
        if self.folder is None and last.next_step:
            lines.append(f"Next: {last.next_step}")
        lines += [f"Rule: {one.rule}", *(f"Note: {notice}" for notice in self.notices)]
        if self.folder is not None:
            lines.append(f"Exported to {self.folder}; its card is {self.folder / CARD}")
        return "\n".join(line for line in lines if line)


def ship(
    run: str | Path | Run,
    to: str | Path | None = None,
    progress: Progress | None = None,
    form: Form | None = None,
    *,
    checkpoint: str | None = None,
    dry_run: bool = False,
    anyway: bool = False,
) -> Shipment:
    """Decide, export, measure again, decide again.

    Args:
        run: a finished study, or its folder.
        to: the folder to make; it may exist if it is empty. Not needed for a dry run.
        progress: is told of exporting and answering; None: bars in a terminal or notebook, lines
            elsewhere.
        form: see `holdfast.shipping.export`; None: the adapter; all weights where all were trained.
        checkpoint: judge this one alone, e.g. ``sft/seed1/checkpoint-60@0.8``; None: all.
        dry_run: only decide; needs no torch.
        anyway: export whatever the answer; the card says what it was.

    Returns:
        What came of it; without ``anyway``, nothing is exported unless the answer is to ship.

    Raises:
        UsageError: the study is not finished, or is a comparison; or something was asked for that
            is not there; or the study names code that was never run here (`config.consent`).
        FolderError: no run folder, or `to` holds something already.
    """
    if progress is None and not dry_run:
        with default() as bars:
            return ship(run, to, bars, form, checkpoint=checkpoint, dry_run=dry_run, anyway=anyway)
    plan = _finished(run.folder if isinstance(run, Run) else Path(run).expanduser())
    form = _form(form, plan)
    target = None if dry_run else free(to)
    evidence = from_run.gather(plan)
    decision = from_run.decide(plan, evidence)
    if checkpoint is not None:
        decision = _by_hand(plan, evidence, decision, checkpoint)
    notices = tuple(stages.unchecked(stages.schedule(plan.stages, plan.folder)))
    found = Shipment(from_run.as_decision(decision), form, notices=notices)
    choice = decision.chosen or decision.runner_up
    if dry_run or target is None or choice is None or (decision.answer != SHIP and not anyway):
        return found
    untracked = plan.study.model_copy(update={"track": ()})
    consent.check(untracked, plan.folder / "study.yaml")
    named = plan.study.model.id
    if not Path(plan.model.base).is_dir():  # of a GGUF file, where the cache was cleared since
        base = gguf_cache.base_of(named, plan.study.model.revision)
        plan = plan if base == named else replace(plan, model=replace(plan.model, base=base))
    ref = plan.weights(choice.point)
    if not Path(ref.adapter or ref.base).is_dir():
        where = plan.made_in(choice.point)
        raise UsageError(
            "the weights are not there any more",
            where=str(plan.folder / where),
            remedy=f"make them again: {_again(plan)} --rebuild '{where.rpartition('/')[0]}'",
        )
    if form == "gguf":
        gguf.converter()  # before weights are merged for it
    told = progress or Silent()
    records.check_folder(Path(ref.adapter or ref.base))
    with building(target) as folder, begun(), explained_disk(target):
        told.say(f"exporting {selection.name_of(choice.point)}")
        made = export(ref, form, folder)
        session = prepare(plan.study, plan.folder, str(plan.folder / "study.yaml"))
        asked: AbstractContextManager[tuple[ModelRef, str]] = nullcontext((made, ""))
        if form == "gguf":
            tokens = plan.study.answer.sampling.max_new_tokens
            write_modelfile(folder, plan.study.name, tokens)
            asked = gguf.served(folder / gguf.FILE, made)
        with asked as (model, by):
            measured = measure(session, evidence, Exported(choice.point, model, form), told)
        again = from_run.as_decision(from_run.confirm(plan, evidence, measured, choice.levels))
        found = replace(found, exported=again)
        if again.answer != SHIP and not anyway:
            return found
        figures = _figures(plan, evidence, measured)
        by_hand = checkpoint is not None
        card = Card(plan, choice.point, form, found.in_study, again, figures, by_hand, by)
        card.write(folder)
        shutil.copyfile(plan.folder / "study.yaml", folder / "study.yaml")
        store.write_json(folder / DECISION, {**found.to_json(), "point": choice.point})
        folder.replace(target)
    return replace(found, folder=target)


def _finished(run: Path) -> Plan:
    """The plan of a run folder in which nothing is left to do."""
    run_folder.check_run(run, must_exist=True)
    if (run / REQUEST).is_file():
        raise UsageError(
            "is a comparison: nothing is chosen to ship",
            where=str(run),
            remedy="name the run folder of a study",
        )
    plan = read_plan(run)
    left = [step.stage.name for step in stages.schedule(plan.stages, run) if not step.done]
    left = [name for name in left if name != "report"]
    if left:
        raise UsageError(
            f"the study is not finished: {len(left)} stages are left, the first is {left[0]}",
            where=str(run),
            remedy=f"finish it: {_again(plan)}",
        )
    return plan


def _again(plan: Plan) -> str:
    return f"holdfast run {plan.folder / 'study.yaml'} --runs-dir {plan.folder.parent}"


def _form(form: Form | None, plan: Plan) -> Form:
    full = plan.study.train.method == "full"
    if form is None:
        return "merged" if full else "adapter"
    if form not in FORMS:
        raise UsageError(
            f"no form is called {form!r}{nearest(form, FORMS)}",
            where="--form",
            remedy=f"known: {', '.join(FORMS)}",
        )
    if form == "adapter" and full:
        raise UsageError(
            "all weights were trained, so there is no adapter",
            where="--form",
            remedy="leave it out, or use --form merged",
        )
    return form


def _by_hand(
    plan: Plan, evidence: Evidence, decision: selection.Decision, checkpoint: str
) -> selection.Decision:
    """The decision on a checkpoint that was named; what the rule chose itself needs no other."""
    named = _named(evidence, checkpoint)
    if decision.chosen is not None and decision.chosen.point == named.point:
        return decision
    return from_run.confirm(plan, evidence, named)


def _named(evidence: Evidence, checkpoint: str) -> Candidate:
    names = {point_folder(one.point): one for one in evidence.trained}
    name = checkpoint.strip("/")
    if name not in names:
        raise UsageError(
            f"no checkpoint is called {name!r}{nearest(name, names)}",
            where="--checkpoint",
            remedy=f"name its folder below replies/, e.g. {next(iter(names), 'none')}",
        )
    return names[name]


def _figures(plan: Plan, evidence: Evidence, measured: Candidate) -> list[Figure]:
    """Every task: before, in the study, and as exported."""
    (in_study,) = (one for one in evidence.trained if one.point == measured.point)
    found = []
    for info in task_infos(plan):
        before = evidence.base[info.name]
        then, now = (one.readings[info.name] for one in (in_study, measured))
        diff = as_share(paired_difference(before, now[None]))
        found.append(Figure(info, _share(before), _share(then), _share(now), diff))
    return found


def _share(scores: Values) -> Share:
    return as_share(wilson(scores))
