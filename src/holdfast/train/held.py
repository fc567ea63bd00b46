"""Which remedies the hardware holds, and a study's training allows, before any of them is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from holdfast import methods
from holdfast.config import ArmSpec, Study, TrainSpec
from holdfast.config.sweeps import expand
from holdfast.errors import DoesNotFit, HoldfastError, StudyError
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
        usual = _plan(study, study.train, (), gpus)
    except HoldfastError as error:
        return Held(unknown=error.message.splitlines()[0])
    for name, arm in arms.items():
        loss = _loss(arm)
        if "from" in arm or (not loss and usual is not None):
            continue
        try:
            found = _plan(study, _allowed(study, name, arm, loss), loss, gpus)
        except HoldfastError as error:  # plain training can be planned, so it is the remedy's
            misfits[name] = error.message.splitlines()[0]
            continue
        if found is None:
            misfits[name] = f"does not fit {gpus or study.hardware.gpus or 'the memory here'}"
        elif usual is None or _way(found) != _way(usual):
            plans[name] = explanation.describe(found, "en")
    return Held(misfits, plans)


def _allowed(
    study: Study, name: str, arm: Mapping[str, object], loss: Sequence[LossMethod]
) -> TrainSpec:
    """How the arm would be trained.

    Raises:
        StudyError: the study's own settings do not go with it.
    """
    given = study.model_copy(update={"arms": {name: ArmSpec.model_validate(arm)}})
    train = expand(given)[name].train
    for one in loss:
        one.check_training(train)
    compares = any(one.own_trainer for one in loss) or any(
        term.compares for one in loss if (term := one.term())
    )
    if compares and not train.reference_by_switch:
        raise StudyError("needs adapters beside the base (train.method: lora or qlora)")
    return train


def _loss(arm: Mapping[str, object]) -> list[LossMethod]:
    steps = arm.get("loss", ())
    found = []
    for step in steps if isinstance(steps, list | tuple) else ():
        name, options = (step, None) if isinstance(step, str) else next(iter(step.items()))
        found.append(methods.build(name, options, "recommend", "arms.a.loss"))
    return found


def _plan(
    study: Study, train: TrainSpec, loss: Sequence[LossMethod], gpus: str
) -> MemoryPlan | None:
    """The plan of one arm; None where nothing fits."""
    asked = replace(NOTHING_SAID, gpus=gpus) if gpus else NOTHING_SAID
    arm = PlanRequest(train=train, overhead=overhead_of(loss))
    try:
        return plan_study(study, asked, arms={"arm": arm}).plan
    except DoesNotFit:
        return None


def _way(plan: MemoryPlan) -> tuple[object, ...]:
    """What of a plan changes how a training is run."""
    return plan.placement, plan.quantized, plan.checkpointing, plan.micro_batch
