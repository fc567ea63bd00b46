"""What a study will take before it has: hours, disk, memory, and what would shorten it.

A figure of one device is worth as much as where it is from: each says whether it was measured on
the model itself, is by formula, or follows what earlier stages of the run took.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.runs.stages import Step
from holdfast.study import calibration, readiness
from holdfast.study import speed as speeds
from holdfast.study.duration import Seconds, how_of, timed
from holdfast.study.session import Session
from holdfast.study.shortening import GRADING, SHARED, Change, changes_of, part_of
from holdfast.study.speed import Speed
from holdfast.study.work import Counted, Work
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
