"""Compares models that were trained elsewhere with their base: gained and forgotten.

`plan` checks what was asked and lays out the stages of `holdfast.comparison.layout`; `run` carries
them out in a run folder. Nothing is trained. With files of answers instead of models, nothing is
asked either, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from holdfast import environment
from holdfast.analysis.results import Results, from_json
from holdfast.analysis.selection import check_power, check_rule
from holdfast.comparison import answer_files, contestants, suite
from holdfast.comparison.layout import Comparison, lay_out
from holdfast.comparison.request import SOURCE, Request, study_of, without_perplexity
from holdfast.comparison.suite import Suite
from holdfast.comparison.verdict import KEPT, about_models, power
from holdfast.config import ArmSpec, Study, TrainSpec, consent
from holdfast.config.sweeps import Variant
from holdfast.data.leakage import LeakIndex
from holdfast.engines.pool import EnginePool
from holdfast.errors import FolderError, UsageError, begun
from holdfast.models import ModelRef, external, gguf_record
from holdfast.models.external import ExternalModel
from holdfast.progress import Progress, default
from holdfast.registry import nearest
from holdfast.runs import run_folder, stages, store
from holdfast.runs.noted import noted
from holdfast.runs.plan import Plan, write_plan
from holdfast.runs.stages import PlannedStage, Step
from holdfast.study import laid_out, measure, preflight, with_data
from holdfast.study.abilities import Measuring
from holdfast.study.session import Arm, Session
from holdfast.train import stage
from holdfast.types import BASE

__all__ = ["Comparison", "Outcome", "Request", "compare", "plan", "run", "schedule"]

REQUEST = "compare.json"
"""In the run folder: what was asked."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a comparison."""

    results: Results
    folder: Path

    @property
    def exit_code(self) -> int:
        """0: done, and kept what had to be kept; 2: it was not, or that is open."""
        made = self.results.decision
        return 0 if made is None or made.answer == KEPT else 2


def compare(
    base: str,
    tuned: str | Sequence[str],
    tasks: Sequence[str] = (),
    *,
    runs_dir: str | Path = "runs",
    progress: Progress | None = None,
    **options: Any,
) -> Results:
    """Measure models that were trained elsewhere against their base: gained and forgotten.

    Args:
        base: a folder, hub id, ``FILE.gguf``, ``http://host:port/v1#model`` or ``lab``.
        tuned: one or several such models, or adapters; ``NAME=MODEL`` gives a name.
        tasks: what is measured, by name, ``harness:NAME`` or ``file.py:Class``; none: the default
            suite (`holdfast.comparison.suite`).
        runs_dir: where the run folder is made.
        progress: follows it; None: bars in a terminal or notebook, lines elsewhere.
        **options: further fields of `Request`: ``limit=50``, ``retain={"xstest": -0.02}``, ...

    Returns:
        The results; `holdfast.open_run` has replies and readings as well.

    Raises:
        UsageError: anything wrong with models, tasks or options.
        HoldfastError: see `holdfast.errors`; everything finished is kept.
    """
    known = [field.name for field in fields(Request) if field.name not in ("models", "tasks")]
    for name in options:
        if name not in known:
            raise UsageError(
                f"compare has no option {name!r}{nearest(name, known)}",
                remedy=f"it takes: {', '.join(known)}",
            )
    others = (tuned,) if isinstance(tuned, str) else tuple(tuned)
    request = Request((base, *others), tuple(tasks), **options)
    if progress is not None:
        return run(request, Path(runs_dir), progress).results
    with default() as bars:
        return run(request, Path(runs_dir), bars).results


def plan(request: Request, runs_dir: Path) -> Comparison:
    """Check a comparison and lay out its stages; loads no model and writes nothing.

    Args:
        request: what was asked.
        runs_dir: where its run folder is, or will be.

    Raises:
        UsageError: anything wrong with models, files, tasks or their data.
    """
    if not request.by_default:
        if request.data is not None:
            raise UsageError("--data goes with the default suite", remedy="leave out --tasks")
        return _plan(request, runs_dir)
    whole, chosen = suite.expanded(request, runs_dir, lambda one: _plan(one, runs_dir).session)
    return _plan(whole, runs_dir, chosen)


def _plan(request: Request, runs_dir: Path, chosen: Suite | None = None) -> Comparison:
    base, tuned = contestants.models(request)
    name = request.name or contestants.run_name(base, list(tuned))
    study, targets = study_of(request, base.source, name)
    base, tuned = contestants.asked_alike(base, tuned, study)
    every = {BASE: base, **tuned}
    check_rule(study.ship, study.tasks, SOURCE)
    kinds = {
        who: SOURCE if request.replies else external.engine_of(one.ref, study.answer.engine)
        for who, one in every.items()
    }
    contestants.check_engines(kinds, request.mixed_engines)
    if base.form in ("endpoint", "answers"):
        study = without_perplexity(study, asked=True)
    if request.replies:
        study = study.model_copy(update={"answer": study.answer.model_copy(update={"repeats": 1})})
    measuring = measure(study, SOURCE)
    held: dict[str, answer_files.Given] = {}
    notes: list[str] = []
    if request.replies:
        held = _given(request, every, study, measuring)
        study, notes = contestants.answered_by_all(study, held, targets)
        notes += [note for one in held.values() for note in one.notes]
        measuring = measuring.only(study.tasks)
        targets = tuple(one for one in targets if one in study.tasks)
    marks = {
        who: {"given": held[who].mark} if request.replies else external.identity(one)
        for who, one in every.items()
    }
    notes += [] if chosen is None else [chosen.words(), *chosen.notes]
    notes += about_models(base, list(tuned.values()), marks, len(set(kinds.values())) > 1)
    ref = ModelRef(base.ref.base) if request.replies else base.ref
    session = _session(study, runs_dir / name, ref, measuring, tuned, marks[BASE])
    found = Comparison(session, base, tuned, marks, kinds, targets, tuple(notes), held, chosen)
    return replace(
        found, session=laid_out(session, lambda live: lay_out(replace(found, session=live)))
    )


def _session(
    study: Study,
    folder: Path,
    ref: ModelRef,
    measuring: Measuring,
    tuned: dict[str, ExternalModel],
    identity: dict[str, Any],
) -> Session:
    """A session whose arms are the tuned models."""
    here = [model for model in tuned.values() if model.form not in external.ELSEWHERE]
    gpus = stage.gpus_of(study) if here else ()
    untrained = ArmSpec.model_validate({"from": BASE})
    arms = {
        who: Arm(Variant(who, who, untrained, TrainSpec(), BASE), foreign=model)
        for who, model in tuned.items()
    }
    pool = EnginePool(study, gpus, [ref, *(model.ref for model in here)] if here else ())
    planned = Plan(
        study, folder, ref, 0, (), 0, pool.nf4, measuring.planned(study, pool.nf4), {}
    )  # fmt: skip
    planned = with_data(planned, measuring)
    planned = replace(planned, notices=(*planned.notices, *check_power(power(planned))))
    session = Session(planned, measuring, (), arms, LeakIndex(()), pool, identity, gpus=tuple(gpus))
    setting = session.setting()
    own = {who: arm.planned(study, (), {"": setting}) for who, arm in arms.items()}
    return replace(session, plan=replace(planned, arms=own))


def _given(
    request: Request,
    files: dict[str, ExternalModel],
    study: Study,
    measuring: Measuring,
) -> dict[str, answer_files.Given]:
    """What every file holds."""
    asked = measuring.asked
    whole = {name: task.examples(study.tasks[name].split) for name, task in measuring.tasks.items()}
    return {
        who: answer_files.read(Path(one.ref.base).expanduser(), asked, whole, request.allow_missing)
        for who, one in files.items()
    }


def run(
    request: Request, runs_dir: Path, progress: Progress, rebuild: Sequence[str] = ()
) -> Outcome:
    """Carry a comparison out, or on.

    Args:
        request: what is asked.
        runs_dir: where its run folder is made.
        progress: follows it.
        rebuild: globs of stages to make again.

    Raises:
        HoldfastError: see `holdfast.errors`; everything finished is kept.
    """
    found = plan(request, runs_dir)
    session, folder = found.session, found.plan.folder
    rebuild = [*rebuild, *_stale(found, rebuild)]
    ahead = schedule(found, rebuild)  # complain before anything is written
    notices = preflight.check(session) if any(not step.done for step in ahead) else None
    run_folder.open_run(folder)
    consent.give(found.plan.study, must=False)  # its user's own
    with run_folder.lock(folder), begun():
        stages.forget(session.plan.stages, folder, rebuild)
        steps = schedule(found)
        store.write_json(folder / REQUEST, asdict(request))
        if found.suite is not None:
            suite.keep(folder, found.suite)
        write_plan(session.plan)
        if notices is not None:
            preflight.write_notices(folder, notices)
            for notice in (*session.plan.notices, *notices):
                progress.say(notice)
        for notice in stages.unchecked(steps):
            progress.say(notice)
        if not all(step.done for step in steps):
            about = environment.describe() if found.local else {"versions": environment.versions()}
            recorded = gguf_record.recorded(session.plan.model.base)
            store.write_json(folder / "environment.json", {**about, **recorded})
        try:
            with noted(progress, folder) as told:
                stages.execute(steps, session.stages, folder, told)
        finally:
            session.pool.close()
    return Outcome(from_json(store.read_json(folder / "stats" / "results.json")), folder)


def schedule(one: Comparison, rebuild: Sequence[str] = ()) -> list[Step]:
    """Which stages run and which are done; touches nothing.

    Raises:
        FolderError: the folder is something else, or the run of a study.
        DriftError: finished stages differ from what is asked for now.
    """
    folder = one.plan.folder
    run_folder.check_run(folder)
    if (folder / "study.yaml").is_file():
        raise FolderError(
            "is the run of a study", where=str(folder), remedy="give another --name or --runs-dir"
        )
    return stages.schedule(one.plan.stages, folder, rebuild=rebuild)


def _stale(one: Comparison, rebuild: Sequence[str]) -> list[str]:
    """Finished stages that were asked for differently and cost next to nothing to make again."""
    return [
        stage.name
        for stage in one.plan.stages
        if _cheap(stage)
        and not any(fnmatchcase(stage.name, glob) for glob in rebuild)
        and _differs(stage, one.plan)
    ]


def _cheap(stage: PlannedStage) -> bool:
    """Whether a stage is made again without ado when it differs: nothing is asked for it."""
    return stage.name.startswith(("stats", "looks", "readings/")) or "given" in stage.identity


def _differs(stage: PlannedStage, plan: Plan) -> bool:
    record = stages.read_record(plan.folder / stage.name)
    return record is not None and record["identity"] != store.canonical(stage.identity)
