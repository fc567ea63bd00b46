"""Says how a run was measured, from the records of its stages: engine, devices, notices."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from holdfast import environment
from holdfast.analysis import trainings
from holdfast.engines.vllm import INSTEAD
from holdfast.errors import Damaged
from holdfast.runs import records, sealed
from holdfast.runs.plan import NOTICES, RUN_AGAIN, Plan, place

MIXED = "mixed: "


def conditions(plan: Plan, done: Collection[str] | None = None) -> dict[str, str]:
    """The lines under "how it was measured", from what was recorded when it was measured."""
    replies = _asked(plan, done)
    stages = trainings.stages_of(plan)
    trained = [_device(plan, one) for one in stages if done is None or one in done]
    answered = [one["summary"]["device"] or "not recorded" for one in replies]
    versions = environment.versions()
    shown = ("holdfast", "torch", "transformers", "trl", "peft")
    return {
        "Date": min(one["started"] for one in replies)[:10],
        "Engine": _engine(plan.study.answer.engine, answered),
        "Device": _each(answered),
        **({"Trained on": _each(trained)} if trained or done is None else {}),
        "Versions": ", ".join(f"{name} {versions[name]}" for name in shown),
    }


def _device(plan: Plan, stage: str) -> str:
    found: str = records.finished(plan.folder / stage)["summary"]["device"]
    return found


def _asked(plan: Plan, done: Collection[str] | None = None) -> list[Mapping[str, Any]]:
    """The records of all replies; of a run under way, of those that are `done`."""
    asked = [f"replies/{place(point, task)}" for point in plan.points() for task in plan.tasks]
    return [records.finished(plan.folder / one) for one in asked if done is None or one in done]


def _engine(asked: str, answered: Sequence[str]) -> str:
    """What answered: the engine that was asked for, or another one where it could not."""
    name = {"hf": "transformers", "vllm": "vLLM"}.get(asked, asked)
    instead = sum(one.startswith(INSTEAD) for one in answered)
    if 0 < instead < len(answered):
        return f"{MIXED}{name}, and {instead} of {len(answered)} times {INSTEAD}"
    return f"{INSTEAD if instead else name} (base and every checkpoint alike)"


def _each(words: Sequence[str]) -> str:
    """Every different word once; more than one is a mixture that a reader must see."""
    different = sorted(set(words))
    return different[0] if len(different) == 1 else MIXED + "; ".join(different)


def notices(plan: Plan, done: Collection[str] | None = None) -> list[str]:
    """What was found before anything ran, and whether two engines answered."""
    file = plan.folder / NOTICES
    found = sealed.read(file, RUN_AGAIN).get("notices") if file.is_file() else []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Damaged("holds no list of notices", where=str(file), remedy=RUN_AGAIN)
    devices = [str(one["summary"].get("device")) for one in _asked(plan, done)]
    said = _engine(plan.study.answer.engine, devices)
    two = [f"Two engines answered ({said}): figures differ by that as well."]
    return [*plan.notices, *found, *two * said.startswith(MIXED)]
