"""How is a study checked and carried out?

`plan` is pure: it reads data files, checks everything that can be checked without a model, and
returns stages (`holdfast.study.layout`) whose functions do the work later. `run` carries a plan out
in a run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from holdfast import engines, environment, methods, models, tasks
from holdfast.analysis.results import Results, from_json
from holdfast.analysis.selection import check_rule
from holdfast.config import Study
from holdfast.config.sweeps import Variant, expand
from holdfast.data.batching import checkpoint_steps, steps_of
from holdfast.data.leakage import LeakIndex
from holdfast.engines.pool import EnginePool
from holdfast.errors import located
from holdfast.progress import Progress
from holdfast.runs import stages, store
from holdfast.runs.stages import Step
from holdfast.study import combinations, keeping
from holdfast.study.layout import lay_out
from holdfast.study.plan import Arm, Plan
from holdfast.train import stage
from holdfast.types import Example


def plan(study: Study, folder: Path, source: str = "study") -> Plan:
    """Check a study and lay out its stages; loads no model and writes nothing.

    Args:
        study: what the user wrote.
        folder: the run folder, existing or not.
        source: name of the study file, for messages.

    Raises:
        UsageError: anything wrong with the study, its data or its model folder.
    """
    gpus = stage.gpus_of(study)
    study = stage.resolved(study, gpus)
    stage.check_fits(study, gpus)
    ref = models.reference(study.model)
    made = {name: tasks.build(name, spec, source) for name, spec in study.tasks.items()}
    samplings = {
        name: tasks.sampling(name, spec, study.answer.sampling, source, made[name])
        for name, spec in study.tasks.items()
    }
    engines.REGISTRY.find(study.answer.engine, f"{source}: answer.engine")
    asked = {}
    for name, task in made.items():
        with located(f"{source}: tasks.{name}"):
            asked[name] = tasks.measuring_set(task, study.tasks[name])
            task.self_check()
            if task.judge is not None:
                task.judge.check()
    target = study.target
    with located(f"{source}: tasks.{target}"):
        plain = tasks.training_set(made[target], study.tasks[target], study.train.keep_shortest)
    leaks = LeakIndex(example for examples in asked.values() for example in examples)
    leaks.refuse(plain, f"{source}: tasks.{target}")
    arms = {
        name: Arm(
            variant,
            _built(variant, "data", source),
            _built(variant, "loss", source),
            _built(variant, "weights", source),
            _built(variant, "ask", source),
        )
        for name, variant in expand(study, source).items()
    }
    train = study.train
    steps = steps_of(len(plain), train.batch_size, train.num_train_epochs, train.max_steps)
    save_at = checkpoint_steps(steps, train.checkpoints, train.save_steps)
    pool = EnginePool(study, gpus)
    found = Plan(
        study, folder, ref, made, samplings, asked, plain, steps, save_at, arms, leaks, pool,
        models.identity(ref), gpus,
    )  # fmt: skip
    for name, arm in arms.items():
        combinations.check(arm, arms, study, f"{source}: arms.{arm.variant.family}")
        if arm.variant.trains:
            for method in arm.made:
                with located(f"{source}: arms.{name}"):
                    method.check(found.setting())
    check_rule(study.ship, study.tasks, source)
    found.stages.extend(lay_out(found))
    return found


def _built(variant: Variant, entry: str, source: str) -> tuple[Any, ...]:
    where = f"arms.{variant.family}.{entry}"
    return tuple(
        methods.build(name, options, source, where)
        for step in getattr(variant.spec, entry)
        for name, options in step.items()
    )


def run(
    study: Study,
    folder: Path,
    progress: Progress,
    source: str = "study",
    only: str = "*",
    rebuild: Sequence[str] = (),
) -> Results | None:
    """Carry a study out, or on; returns the results when statistics are part of what was asked.

    Raises:
        HoldfastError: see `holdfast.errors`; everything finished is kept.
    """
    stage.check_present(study)
    planned = plan(study, folder, source)
    schedule(planned, only, rebuild)  # complain before anything is written
    store.open_run(folder)
    with store.lock(folder):
        stages.forget(planned.stages, folder, rebuild)
        steps = schedule(planned, only)
        _check_trained(planned)
        dump = _anchored(study.model_dump(mode="json", exclude_unset=True))
        store.write_text(folder / "study.yaml", yaml.safe_dump(dump, sort_keys=False))
        store.write_json(folder / "plan.json", [
            {"stage": step.stage.name, "fingerprint": step.fingerprint} for step in steps
        ])  # fmt: skip
        if not all(step.done for step in steps):
            store.write_json(folder / "environment.json", environment.describe())
        try:
            stages.execute(steps, folder, progress)
        finally:
            planned.pool.close()
        if not any(step.stage.name == "stats" for step in steps):
            return None
        for gone in keeping.prune(planned):
            progress.say(f"deleted {gone} (train.save_total_limit)")
    return from_json(store.read_json(folder / "stats" / "results.json"))


def _anchored(value: Any, key: str = "") -> Any:
    """The same with paths that hold wherever the command is given from."""
    if isinstance(value, dict):
        return {name: _anchored(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_anchored(one, key) for one in value]
    names_a_place = key.endswith("path") or key in ("model", "id", "teacher")
    if names_a_place and isinstance(value, str) and value != models.LAB:
        place = Path(value).expanduser()
        return str(place.absolute()) if place.exists() else value
    return value


def _check_trained(plan: Plan) -> None:
    """Refuse to measure arms that were trained on what has become an evaluation question since."""
    for arm in plan.arms:
        file = plan.folder / "data" / arm / methods.EXAMPLES
        if file.is_file():
            plan.leaks.refuse(store.read_jsonl(file, Example), f"arm {arm}, already trained")


def schedule(plan: Plan, only: str = "*", rebuild: Sequence[str] = ()) -> list[Step]:
    """Which stages of a plan run and which are done; touches nothing (see `stages.schedule`)."""
    store.check_run(plan.folder)
    return stages.schedule(plan.stages, plan.folder, only, rebuild)
