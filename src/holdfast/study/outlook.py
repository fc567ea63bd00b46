"""What a study will take before it has: hours, disk, memory, what would shorten it, what fits.

A figure of one device is worth as much as where it is from: each says whether it was measured on
the model itself, is by formula, or follows what earlier stages of the run took.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from holdfast import methods
from holdfast.config import ArmSpec, Study, TrainSpec
from holdfast.config.sweeps import expand
from holdfast.errors import DoesNotFit, HoldfastError
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.planner import explanation
from holdfast.memory.planner.request import PlanRequest
from holdfast.methods import LossMethod
from holdfast.runs.stages import Step
from holdfast.study import calibration, combinations, readiness
from holdfast.study import speed as speeds
from holdfast.study.duration import Seconds, how_of, timed
from holdfast.study.session import Arm, Session
from holdfast.study.shortening import GRADING, SHARED, Change, changes_of, part_of
from holdfast.study.speed import Speed
from holdfast.study.work import Counted, Work
from holdfast.train.planning import NOTHING_SAID, overhead_of, plan_study
from holdfast.types import BASE

REPLY_BYTES = 6
"""Of a token that is kept: its text, and the reply's part of verdicts and readings."""


@dataclass(frozen=True, slots=True)
class Part:
    """An arm of a study, or what all arms share.

    Attributes:
        name: of the arm.
        trainings: how many there are.
        trained: tokens trained on.
        answers: asked for.
        written: tokens of these.
        seconds: that are left of it.
        disk: bytes that it writes.
    """

    name: str
    trainings: int
    trained: float
    answers: float
    written: float
    seconds: float
    disk: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is told of a study before it runs.

    Attributes:
        device: in words.
        how: where its speed is from.
        measurable: it could be measured in a short time.
        stages: how long each takes.
        left: seconds of those that have to run.
        done: seconds of those that are done.
        parts: arm by arm.
        disk: bytes that it will write.
        disk_free: bytes.
        memory: bytes at the peak, by formula; 0: not known.
        memory_free: bytes.
        changes: what would shorten it, the best first.
        shortened: seconds that are left after all of these.
    """

    device: str
    how: str
    measurable: bool
    stages: Mapping[str, Seconds]
    left: float
    done: float
    parts: Sequence[Part]
    disk: float
    disk_free: float
    memory: float
    memory_free: float
    changes: Sequence[Change]
    shortened: float

    @property
    def longest(self) -> list[tuple[str, Seconds]]:
        """The three longest stages that are left."""
        left = [(name, one) for name, one in self.stages.items() if one.how != "took"]
        return sorted(left, key=lambda pair: -pair[1].seconds)[:3]


def outlook(session: Session, steps: Sequence[Step], speed: Speed | None = None) -> Outlook:
    """What a study will take.

    Args:
        session: prepared.
        steps: its schedule: only what has to run is counted.
        speed: of the device; None: what was measured before, or the formula's.
    """
    speed = speed or speeds.known(session)
    counted = Counted(session, speed.usual)
    works = {one.name: counted.of(one) for one in session.plan.stages}
    stages = timed(session, works, speed)
    undone = {step.stage.name for step in steps if not step.done}
    left = {name: one.seconds for name, one in stages.items() if name in undone}
    changes, shortened = changes_of(session, works, left)
    parts = _parts(session, works, left)
    gpus, place = session.gpus, session.folder.absolute()
    while not place.exists():
        place = place.parent
    return Outlook(
        speeds.device(session), how_of(stages, undone, speed),
        speed.how == "by formula" and not calibration.too_large(session, speed),
        {step.stage.name: stages[step.stage.name] for step in steps},
        math.fsum(left.values()),
        math.fsum(one.seconds for name, one in stages.items() if name not in undone),
        parts, math.fsum(one.disk for one in parts), shutil.disk_usage(place).free,
        readiness.memory_bytes(session),
        min(one.free_bytes for one in gpus) if gpus else host_ram_bytes(),
        changes, shortened,
    )  # fmt: skip


def training_minutes(session: Session, arm: str) -> float:
    """How long all trainings of an arm take here, over its seeds."""
    speed = speeds.known(session)
    counted = Counted(session, speed.usual)
    works = {one.name: counted.of(one) for one in session.plan.stages}
    stages = timed(session, works, speed)
    own = (one.seconds for name, one in stages.items() if name.startswith(f"train/{arm}/"))
    return math.fsum(own) / 60


def _parts(session: Session, works: Mapping[str, Work], left: Mapping[str, float]) -> list[Part]:
    found = {}
    for name in (BASE, SHARED, *session.arms, GRADING):
        arm = session.arms.get(name)
        own = [one for one in left if part_of(one) == name]
        work = [works[one] for one in own]
        written = math.fsum(one.written for one in work if one.kind == "ask")
        disk = REPLY_BYTES * written
        disk += readiness.arm_bytes(session, name) if arm is not None and arm.trains else 0
        found[name] = Part(
            name, sum(one.kind == "train" for one in work),
            math.fsum(one.trained for one in work),
            math.fsum(one.answers for one in work if one.kind == "ask"), written,
            math.fsum(left[one] for one in own), disk,
        )  # fmt: skip
    return [one for one in found.values() if one.seconds]


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
    variant = expand(given)[name]
    for one in loss:
        one.check_training(variant.train)
    combinations.check_training(Arm(variant, loss=tuple(loss)), given, f"arms.{name}")
    return variant.train


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
