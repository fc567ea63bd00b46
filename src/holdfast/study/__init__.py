"""Checks a study, and carries it out.

`prepare` reads data files, checks everything that can be checked without a model, and returns a
`Session`: the plan, and the stages (`holdfast.study.layout`) whose functions do the work later.
`plan` is its data alone. `run` carries a session out in a run folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from holdfast import engines, environment, methods, models, tasks
from holdfast.analysis.results import Results, from_json
from holdfast.analysis.selection import check_power, check_rule, from_run
from holdfast.config import Study, consent, load, places
from holdfast.config.sweeps import Variant, expand
from holdfast.data.leakage import LeakIndex
from holdfast.data.sources import notices
from holdfast.engines.pool import EnginePool
from holdfast.errors import StudyError, begun, located
from holdfast.memory.hardware.devices import GPU
from holdfast.models import gguf_record
from holdfast.progress import Progress, default
from holdfast.report import trackers
from holdfast.report.trackers.process import following
from holdfast.runs import run_folder, stages, store
from holdfast.runs.noted import noted
from holdfast.runs.plan import Plan, write_plan
from holdfast.runs.stages import Stage, Step
from holdfast.study import combinations, executing, preflight, start, successive, targets
from holdfast.study.abilities import Measuring
from holdfast.study.cleaning import prune
from holdfast.study.layout import lay_out
from holdfast.study.probes import asked_by_meters
from holdfast.study.session import Arm, Session
from holdfast.train import stage
from holdfast.types import Example, Where

MOST_MEASURED = 30_000
"""Models times tasks of a study; planning so many takes some seconds."""
RUNS = Path("runs")
"""Where run folders are made unless somebody says otherwise."""


def plan(
    study: Study | str | Path | Mapping[str, object],
    folder: str | Path | None = None,
    source: str = "",
) -> Plan:
    """Check a study and say what it does; loads no model and writes nothing.

    Args:
        study: what the user wrote, or the file that holds it.
        folder: the run folder, existing or not; None: ``runs/NAME``.
        source: name of the study file, for messages.

    Raises:
        UsageError: anything wrong with the study, its data or its model folder.
    """
    found = as_study(study)
    return prepare(found, _folder(found, folder), source or _source(study)).plan


def prepare(
    study: Study, folder: Path, source: str = "study", own: Sequence[GPU] | None = None
) -> Session:
    """Check a study and make everything ready to run it; loads no model and writes nothing.

    Args:
        study: what the user wrote.
        folder: the run folder, existing or not.
        source: name of the study file, for messages.
        own: GPUs of a worker, whose run was found to fit already; none where other machines make
            the stages; None: those that the study names, or those that are there.

    Raises:
        UsageError: anything wrong with the study, its data or its model folder.
    """
    gpus = stage.gpus_of(study) if own is None else tuple(own)
    _check_place(study, source)
    given, study = study, _absolute(study)
    if models.takes_long(study.model.id):  # mistakes of the study are told before that
        measure(study, source)
        expand(study, source)
    chats = tasks.any_chats(study.tasks, source)
    model = models.reference(study.model, chats)  # before anything else reads its files
    study = stage.resolved(study, gpus)
    if own is None:
        stage.check_fits(study, gpus)
    engines.REGISTRY.find(study.answer.engine, f"{source}: answer.engine")
    trackers.of(study.track, folder, source)  # names and settings; their packages only to run
    measuring = measure(study, source)
    if (widened := targets.with_width(study, measuring.tasks, model)) is not study:
        study = widened
        if own is None:
            stage.check_fits(study, gpus)
    leaks = LeakIndex(example for examples in measuring.asked.values() for example in examples)
    arms = {name: _arm(variant, source) for name, variant in expand(study, source).items()}
    successive.check(study, arms, source)
    learned = successive.to_learn(study, measuring, leaks, model, source)
    pool = EnginePool(study, gpus, [model])
    abilities = measuring.planned(study, pool.nf4)
    found = Plan(
        study, folder, model, learned.steps, learned.save_at, len(learned.plain), pool.nf4,
        abilities, {},
        notices=(*gguf_record.told(model.base), *stage.notices(given, study), *learned.notices),
        chapters=learned.chapters,
    )  # fmt: skip
    found = with_data(found, measuring)
    session = Session(
        found, measuring, learned.plain, arms, leaks, pool, models.identity(model), tuple(gpus),
        held=learned.held, plains=learned.plains,
    )  # fmt: skip
    for name, arm in arms.items():
        combinations.check(arm, arms, study, f"{source}: arms.{arm.variant.family}")
        if arm.trains:
            for part, method in product(session.parts, arm.made):
                with located(f"{source}: arms.{name}"):
                    method.check(part.setting())
            for part, loss in product(session.parts, arm.loss):
                with located(f"{source}: arms.{name}.loss"):
                    loss.check_training(arm.train)
                    loss.check_steps(part.plan.steps)
        for made in arm.weights:
            with located(f"{source}: arms.{name}.weights"):
                made.check(session.parts[-1].setting())
    check_rule(study.ship, study.tasks, source)
    settings = {part.before_shared: part.setting() for part in session.parts}
    planned = {name: arm.planned(study, learned.save_at, settings) for name, arm in arms.items()}
    measured = len(study.tasks) * (
        1 + sum(len(arm.seeds) * len(arm.places) for arm in planned.values())
    )
    if measured > MOST_MEASURED:
        raise StudyError(
            f"{measured:,} measurements (models times tasks); {MOST_MEASURED:,} is the most",
            where=source,
            remedy="set train.checkpoints lower, or leave out arms, seeds, scales or tasks",
        )
    found = replace(found, arms=planned)
    notices = (
        *found.notices,
        *_unmetered(study, learned.plain),
        *check_power(from_run.power(found)),
    )
    return laid_out(replace(session, plan=replace(found, notices=notices)), lay_out)


def _unmetered(study: Study, plain: Sequence[Example]) -> list[str]:
    """What to say where the meters have nothing to read."""
    if asked_by_meters(study.meters, plain) == study.meters.probes:
        return []
    return ["The training data is plain text without questions, so no drift meters are read."]


def with_data(plan: Plan, measuring: Measuring) -> Plan:
    """The plan with what became of the user's data, and a notice on each ignored column."""
    fields, sources = measuring.fields(), measuring.sources()
    told = dict.fromkeys([*plan.notices, *notices(fields, sources)])
    return replace(plan, fields=fields, sources=sources, notices=tuple(told))


def laid_out(session: Session, lay: Callable[[Session], Iterable[Stage]]) -> Session:
    """The session with its stages, in its plan as well."""
    made = tuple(lay(session))
    planned = replace(session.plan, stages=tuple(stage.planned for stage in made))
    return replace(session, plan=planned, stages=made)


def measure(study: Study, source: str) -> Measuring:
    """Build the tasks of a study and read their items.

    Raises:
        UsageError: a task that cannot be, data that cannot be read, a judge that lacks something.
    """
    made = {name: tasks.build(name, spec, source) for name, spec in study.tasks.items()}
    asked = {}
    for name, task in made.items():
        with located(f"{source}: tasks.{name}"):
            asked[name] = tasks.measuring_set(task, study.tasks[name])
            task.self_check()
            if task.judge is not None:
                task.judge.check()
    samplings = {
        name: tasks.sampling(name, spec, study.answer.sampling, source, made[name])
        for name, spec in study.tasks.items()
    }
    return Measuring(made, samplings, asked)


def _arm(variant: Variant, source: str) -> Arm:
    def built(entry: str) -> tuple[Any, ...]:
        where = f"arms.{variant.family}.{entry}"
        return tuple(
            methods.build(name, options, source, where)
            for step in getattr(variant.spec, entry)
            for name, options in step.items()
        )

    arm = Arm(variant, built("data"), built("loss"), built("weights"), built("ask"))
    for place, one in enumerate(arm.made):
        one.later = (
            [other for other in arm.made[place + 1 :] if other.mixed()] if one.mixed() else ()
        )
    return arm


def run(
    study: Study | str | Path | Mapping[str, object],
    folder: str | Path | None = None,
    progress: Progress | None = None,
    source: str = "",
    only: str = "*",
    rebuild: Sequence[str] = (),
    on: Where | None = None,
) -> Results | None:
    """Carry a study out, or on; what is finished already is not done again.

    Args:
        study: what the user wrote, or the file that holds it.
        folder: the run folder; None: ``runs/NAME``.
        progress: follows it; None: bars in a terminal or notebook, lines elsewhere.
        source: name of the study file, for messages.
        only: run the stages that match this glob, and what they need.
        rebuild: globs of stages to make again.
        on: where: ``local``, ``workers``, ``gpus``, ``ray`` or ``slurm``; None: on all GPUs where
            there are several, else here, one stage after another.

    Returns:
        The results, when statistics are part of what was asked.

    Raises:
        HoldfastError: see `holdfast.errors`; everything finished is kept.
    """
    found = as_study(study)
    place = _folder(found, folder)
    if progress is None:
        with default() as bars:
            return _run(found, place, bars, source or _source(study), only, rebuild, on)
    return _run(found, place, progress, source or _source(study), only, rebuild, on)


def as_study(study: Study | str | Path | Mapping[str, object]) -> Study:
    """A study, loaded where it is named by its file."""
    return study if isinstance(study, Study) else load.load(study)


def _source(study: Study | str | Path | Mapping[str, object]) -> str:
    return str(study) if isinstance(study, str | Path) else "study"


def _folder(study: Study, folder: str | Path | None) -> Path:
    return RUNS / study.name if folder is None else Path(folder)


def _run(
    study: Study,
    folder: Path,
    progress: Progress,
    source: str,
    only: str,
    rebuild: Sequence[str],
    on: Where | None,
) -> Results | None:
    elsewhere = executing.is_elsewhere(on)
    if not elsewhere:
        stage.check_present(study)
    session = prepare(study, folder, source, () if elsewhere else None)
    for tracker in trackers.of(study.track, folder, source):
        trackers.ready(tracker)
    executing.chosen(session, on)
    ahead = schedule(session.plan, only, rebuild)  # complain before anything is written
    undone = any(not step.done for step in ahead)
    noticed = preflight.check(session, elsewhere) if undone else None
    consent.give(session.study, must=False)  # its user's own, or consented to when it was loaded
    run_folder.open_run(folder)
    with run_folder.lock(folder), begun():
        stages.forget(session.plan.stages, folder, rebuild)
        steps = schedule(session.plan, only)
        _check_trained(session)
        dump = session.study.model_dump(mode="json", exclude_unset=True)
        store.write_text(folder / "study.yaml", yaml.safe_dump(dump, sort_keys=False))
        write_plan(session.plan)
        if noticed is not None:
            preflight.write_notices(folder, noticed)
            for notice in (*session.plan.notices, *noticed):
                progress.say(notice)
        for notice in stages.unchecked(steps):
            progress.say(notice)
        expected: Mapping[str, float] = {}
        if not all(step.done for step in steps):
            about = {**environment.describe(), **gguf_record.recorded(session.plan.model.base)}
            store.write_json(folder / "environment.json", about)
            expected = start.at_start(session, steps, progress, elsewhere)
        try:
            with noted(progress, folder) as told, following(study.track, folder, told):
                executing.execute(session, steps, told, expected, on)
        finally:
            session.pool.close()
        if not any(step.stage.name == "stats" for step in steps):
            return None
        for gone in prune(session.plan):
            progress.say(f"deleted {gone} (train.save_total_limit)")
    return from_json(store.read_json(folder / "stats" / "results.json"))


def _absolute(study: Study) -> Study:
    """The same with paths that hold wherever the command is given from."""
    dump = study.model_dump(mode="json", exclude_unset=True)
    return Study.model_validate(places.anchored(dump, Path.cwd()))


def _check_place(study: Study, source: str) -> None:
    """Refuse a model's name that is a hub id to the study's file and a folder to its caller."""
    name, file = study.model.id, Path(source)
    if name == models.LAB or name.startswith((".", "/", "~")) or not file.is_file():
        return
    here = Path.cwd()
    if file.absolute().parent != here and (here / name).is_dir():
        raise StudyError(
            f"there is no folder {name!r} beside the study file, so it is a hub id, and there is "
            "one in the working folder; which is meant?",
            where=f"{source}: model.id",
            remedy=f"for the folder write model={here / name}; for the model on the hub run the "
            "study from another working folder",
        )


def _check_trained(session: Session) -> None:
    """Refuse to measure arms that were trained on what has become an evaluation question since."""
    for part, arm in product(session.parts, session.arms):
        file = session.folder / part.named(f"data/{arm}") / methods.EXAMPLES
        if file.is_file():
            session.leaks.refuse(store.read_jsonl(file, Example), f"arm {arm}, already trained")


def schedule(plan: Plan, only: str = "*", rebuild: Sequence[str] = ()) -> list[Step]:
    """Which stages of a plan run and which are done; touches nothing (see `stages.schedule`)."""
    run_folder.check_run(plan.folder)
    return stages.schedule(plan.stages, plan.folder, only, rebuild)
