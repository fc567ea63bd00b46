"""Tells which remedies a study's hardware holds, beside those that it has already.

Each remedy is planned as an arm of the study would be, by formula. Where plain training and the
remedy are run alike there is nothing to say; else the plan under which it fits is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from holdfast import methods
from holdfast.config import Study
from holdfast.errors import DoesNotFit, HoldfastError
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.planner import explanation
from holdfast.memory.planner.request import PlanRequest
from holdfast.methods import LossMethod
from holdfast.train.planning import NOTHING_SAID, overhead_of, plan_study


@dataclass(frozen=True, slots=True)
class Held:
    """What the hardware holds of some remedies.

    Attributes:
        misfits: by method, why it cannot be run.
        plans: by method, the plan under which it fits, where that is not plain training's.
        unknown: why nothing is known; "" where it is.
    """

    misfits: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""


def held(study: Study, arms: Mapping[str, Mapping[str, object]], gpus: str = "") -> Held:
    """Plan each remedy on the hardware that a study names.

    Args:
        study: model, training and hardware.
        arms: by method, the arm as it is written in a study.
        gpus: other hardware than the study's, as ``--gpus`` takes it; "" for the study's own.
    """
    misfits, plans = {}, {}
    try:
        usual = _plan(study, (), gpus)
        for name, arm in arms.items():
            loss = _loss(arm)
            if "from" in arm or (not loss and usual is not None):
                continue
            compares = any(one.own_trainer for one in loss) or any(
                term.compares for one in loss if (term := one.term())
            )
            if compares and not study.train.reference_by_switch:
                misfits[name] = "needs adapters beside the base (train.method: lora or qlora)"
                continue
            found = _plan(study, loss, gpus)
            if found is None:
                misfits[name] = f"does not fit {gpus or study.hardware.gpus or 'the memory here'}"
            elif usual is None or _way(found) != _way(usual):
                plans[name] = explanation.describe(found, "en")
    except HoldfastError as error:
        return Held(unknown=error.message.splitlines()[0])
    return Held(misfits, plans)


def _loss(arm: Mapping[str, object]) -> list[LossMethod]:
    steps = arm.get("loss", ())
    found = []
    for step in steps if isinstance(steps, list | tuple) else ():
        name, options = (step, None) if isinstance(step, str) else next(iter(step.items()))
        found.append(methods.build(name, options, "recommend", "arms.a.loss"))
    return found


def _plan(study: Study, loss: list[LossMethod] | tuple[()], gpus: str) -> MemoryPlan | None:
    """The plan of one arm; None where nothing fits."""
    asked = replace(NOTHING_SAID, gpus=gpus) if gpus else NOTHING_SAID
    arm = PlanRequest(train=study.train, overhead=overhead_of(loss))
    try:
        return plan_study(study, asked, arms={"arm": arm}).plan
    except DoesNotFit:
        return None


def _way(plan: MemoryPlan) -> tuple[object, ...]:
    """What of a plan changes how a training is run."""
    return plan.placement, plan.quantized, plan.checkpointing, plan.micro_batch
