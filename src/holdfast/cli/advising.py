"""The command that recommends remedies, and the arms that `init --recommend` writes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.front import Json, say
from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.analysis.recommend import Question
    from holdfast.config import Study

OWN: Mapping[str, object] = {"prompts": "lab"}
ON_THE_LAB: Mapping[str, Mapping[str, object]] = {
    "replay": OWN,
    "kl": OWN,
    "ewc": OWN,
    "guardspace": {**OWN, "samples": 8, "tolerance": 1e-3},
}
"""What differs on the built-in model: it knows old prompts of its own, and has 64 inputs a matrix,
of which more examples would leave none free."""


def recommend(
    where: Annotated[Path, typer.Argument(metavar="STUDY|RUN", help="A study, or its run folder.")],
    hours: Annotated[
        float | None, typer.Option("--hours", min=0, help="At hand for training.")
    ] = None,
    gpus: Annotated[
        str, typer.Option("--gpus", help="2x24GiB, rtx4090, cpu; left out: the study's.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Which remedies to try first, by what is recorded of them, why, and what they cost."""
    from holdfast.analysis import recommend as advice
    from holdfast.methods import METHODS

    minutes = None if hours is None else 60 * hours
    if where.is_dir():
        from holdfast.report.run import read_results
        from holdfast.runs.plan import read_plan

        results = read_results(where)
        asked = advice.of_results(results, minutes)
        if results.learned:
            raise _of_stages(str(where))
        if asked is None:
            raise UsageError(
                "has no arm of plain fine-tuning, or was made by an older version",
                where=str(where),
                remedy="name the study file instead",
            )
        asked = _held(asked, read_plan(where).study, gpus)
    else:
        from holdfast.config import load

        asked = question(load.load(where), str(where), minutes, gpus)
    found = advice.recommend(asked, METHODS)
    say(as_json, asdict(found), "\n".join(advice.told(found)))


def question(study: Study, source: str, minutes: float | None, gpus: str = "") -> Question:
    """What is known of a study before it has run, what its hardware holds, and how long it takes.

    Args:
        study: what the user wrote.
        source: its file, for messages.
        minutes: at hand for training; None: no limit, and nothing is timed.
        gpus: other hardware than the study's; "" for its own.

    Raises:
        UsageError: time is limited, and the study has no arm of plain fine-tuning to time; or it
            learns several tasks one after the other.
    """
    from holdfast.analysis import recommend as advice

    if study.stages:
        raise _of_stages(source)
    asked = advice.of_study(study, minutes)
    if minutes is not None:
        from holdfast.study import RUNS, prepare
        from holdfast.study.outlook import training_minutes

        if not asked.plain:
            raise UsageError(
                "has no arm of plain fine-tuning, so nobody knows how long a training takes",
                where=source,
                remedy="add `sft: {}` under `arms:`, or leave --hours out",
            )
        session = prepare(study, RUNS / study.name, source)
        asked = replace(asked, plain_minutes=training_minutes(session, asked.plain))
    return _held(asked, study, gpus)


def _of_stages(where: str) -> UsageError:
    return UsageError(
        "learns several tasks one after the other, of which nothing is recorded",
        where=where,
        remedy="try replay_earlier, orthogonal and merge: {stages: true} side by side, as the "
        "recipe `continual` does",
    )


def _held(asked: Question, study: Study, gpus: str) -> Question:
    from holdfast.analysis import recommend as advice
    from holdfast.cli.guide import gpus_of
    from holdfast.study.outlook import held

    found = held(study, advice.arms(), gpus_of((gpus,)))  # of a typo nothing would be known
    return replace(asked, misfits=found.misfits, plans=found.plans, unknown=found.unknown)


def with_advice(text: str, study: Study, source: str, hours: float | None) -> tuple[str, list[str]]:
    """A study's text with the arms that are worth trying first, and why these.

    Plain fine-tuning stays; the other arms of the text give way.

    Args:
        text: YAML, with ``arms:`` at its margin.
        study: what it says.
        source: the file that it will be.
        hours: at hand for training; None: no limit.
    """
    from holdfast.analysis import recommend as advice
    from holdfast.methods import METHODS

    plain = {name: one for name, one in study.arms.items() if not advice.methods_of(one)}
    bare = study.model_copy(update={"arms": plain})
    asked = question(bare, source, None if hours is None else 60 * hours)
    found = advice.recommend(asked, METHODS)
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("arms:"))
    after = (i for i in range(start + 1, len(lines)) if lines[i] and not lines[i][0].isspace())
    end = next(after, len(lines))
    block = ["arms:                           # `base`, the untouched model, is always there"]
    block += [f"  {asked.plain or 'sft'}: {{}}                       # plain fine-tuning"]
    for one in found.advice:
        block += [f"  # {one.why}", f"  {one.method}: {_arm(one.arm, study)}"]
    told = advice.told(found)
    if gone := [name for name in study.arms if name not in plain]:
        told.append(f"the study's own remedies gave way to these: {', '.join(gone)}")
    return "\n".join([*lines[:start], *block, "", *lines[end:]]) + "\n", told


def _arm(arm: Mapping[str, object], study: Study) -> str:
    """An arm in one line; of the built-in model the old prompts are its own."""
    from holdfast.analysis.recommend import written
    from holdfast.types import LAB

    if study.model.id != LAB:
        return written(arm)
    made: dict[str, object] = {}
    for entry, steps in arm.items():
        made[entry] = steps
        if isinstance(steps, list | tuple):
            made[entry] = [_on_the_lab(step) for step in steps]
    return written(made)


def _on_the_lab(step: object) -> object:
    name, options = next(iter(step.items())) if isinstance(step, dict) else (str(step), {})
    own = ON_THE_LAB.get(name, {})
    return {name: {**options, **own}} if options or own else name
