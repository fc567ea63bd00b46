"""What a study will take before it has: hours, disk, memory, and what would shorten it.

A figure of one device is worth as much as where it is from: each says whether it was measured on
the model itself, is by formula, or follows what earlier stages of the run took.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from holdfast.errors import HoldfastError
from holdfast.memory.hardware.detect import host_ram_bytes
from holdfast.memory.model.shape import read_shape
from holdfast.memory.planner.inference import answering_bytes, longest
from holdfast.memory.planner.request import PlanRequest
from holdfast.progress import Progress
from holdfast.runs.stages import Step
from holdfast.study import calibration, readiness
from holdfast.study import speed as speeds
from holdfast.study.duration import Seconds, timed
from holdfast.study.session import Session
from holdfast.study.speed import Speed
from holdfast.study.work import Counted, Work, truncated
from holdfast.train.planning import plan_study
from holdfast.types import BASE

DAY_S = 86_400.0
WORTH_MEASURING_S = 600.0
"""A study that the formula gives longer is measured before it begins."""
FEWER_ITEMS, FEWER_CHECKPOINTS = 200, 3
SHARED, GRADING = "shared by arms", "grading, report"
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
class Change:
    """What would shorten a study.

    Attributes:
        setting: as it is written behind `holdfast run`.
        words: what is given up for it.
        saved: seconds.
    """

    setting: str
    words: str
    saved: float


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
    changes, shortened = _changes(session, works, left)
    parts = _parts(session, works, left)
    gpus, place = session.gpus, session.folder.absolute()
    while not place.exists():
        place = place.parent
    return Outlook(
        speeds.device(session), _how(stages, undone, speed),
        speed.how == "by formula" and not calibration.too_large(session, speed),
        {step.stage.name: stages[step.stage.name] for step in steps},
        math.fsum(left.values()),
        math.fsum(one.seconds for name, one in stages.items() if name not in undone),
        parts, math.fsum(one.disk for one in parts), shutil.disk_usage(place).free,
        memory_bytes(session),
        min(one.free_bytes for one in gpus) if gpus else host_ram_bytes(),
        changes, shortened,
    )  # fmt: skip


def _how(stages: Mapping[str, Seconds], undone: set[str], speed: Speed) -> str:
    followed = math.fsum(stages[n].seconds for n in undone if stages[n].how == "as before")
    every = math.fsum(stages[n].seconds for n in undone)
    return "by the stages done so far" if followed > every / 2 else speed.how


def _part_of(name: str) -> str:
    top, _, rest = name.partition("/")
    if top in ("replies", "train", "data", "weights", "perplexity"):
        return rest.split("/")[0].split("@")[0]
    return SHARED if top in ("shared", "budget", "validation") else GRADING


def _parts(
    session: Session, works: Mapping[str, Work], left: Mapping[str, float]
) -> list[Part]:
    found = {}
    for name in (BASE, SHARED, *session.arms, GRADING):
        arm = session.arms.get(name)
        own = [one for one in left if _part_of(one) == name]
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


def memory_bytes(session: Session) -> int:
    """About what training and answering take at the most; 0 where the model is not known."""
    study, model = session.study, session.plan.model
    found = [0]
    with suppress(HoldfastError, LookupError):
        shape = read_shape(model.base, model.revision)
        rows = study.answer.batch_size or speeds.ROWS["gpu" if session.gpus else "cpu"]
        most = max((one.max_new_tokens for one in session.measuring.samplings.values()), default=0)
        dtype = "bfloat16" if session.gpus else "float32"
        one = answering_bytes(shape, session.pool.nf4, longest(shape, most), dtype)  # type: ignore[arg-type]
        each = 2 * shape.layers * shape.kv_heads * shape.head_dim * (2 if session.gpus else 4)
        found.append(one + min(rows, 64) * (most + 256) * each)
    with suppress(HoldfastError, LookupError, ValueError):
        if session.plan.trained:
            plan = plan_study(study, PlanRequest(gpus=tuple(session.gpus), trace=False)).plan
            found.append(0 if plan is None else max(one.total for one in plan.predicted))
    return max(found)


Factor = Callable[[str, Work], float]
"""What is left of a stage after a change, as a share."""


def _changes(
    session: Session, works: Mapping[str, Work], left: Mapping[str, float]
) -> tuple[list[Change], float]:
    """What would shorten a study, the best first, and what all of it together would leave."""
    found: list[tuple[Change, Factor]] = []
    for setting, words, factor in _possible(session, works, left):
        saved = math.fsum(left[name] * (1 - factor(name, works[name])) for name in left)
        if saved > 0.02 * math.fsum(left.values()):
            found.append((Change(setting, words, saved), factor))
    found.sort(key=lambda pair: -pair[0].saved)
    rest = math.fsum(
        left[name] * math.prod(factor(name, works[name]) for _, factor in found) for name in left
    )
    return [change for change, _ in found], rest


def _possible(
    session: Session, works: Mapping[str, Work], left: Mapping[str, float]
) -> list[tuple[str, str, Factor]]:
    plan, study = session.plan, session.study
    places = sum(len(arm.places) for arm in plan.arms.values())
    found: list[tuple[str, str, Factor]] = []
    for task in plan.tasks.values():
        if task.items > FEWER_ITEMS:
            share = FEWER_ITEMS / task.items
            found.append((
                f"tasks.{task.name}.limit={FEWER_ITEMS}",
                f"wider intervals: {FEWER_ITEMS} of {task.items:,} items",
                _ending(f"/{task.name}", share),
            ))  # fmt: skip
    count = len(plan.save_at)
    if count > FEWER_CHECKPOINTS and places:
        share = FEWER_CHECKPOINTS / count
        found.append((
            f"train.checkpoints={FEWER_CHECKPOINTS}", f"fewer to choose from than {count}",
            lambda name, _: share if "/checkpoint-" in name else 1.0,
        ))  # fmt: skip
    if len(study.seeds) > 1:
        first, gone = study.seeds[0], {f"seed{seed}" for seed in study.seeds[1:]}
        found.append((
            f"seeds=[{first}]", "no spread over seeds",
            lambda name, _: 0.0 if gone & set(name.split("/")) else 1.0,
        ))  # fmt: skip
    if study.answer.repeats > 1:
        found.append((
            "answer.repeats=1", "no noise floor",
            lambda name, _: 0.0 if f"/{BASE}@" in name else 1.0,
        ))  # fmt: skip
    most = max((one.most for one in works.values() if one.kind == "ask"), default=0)
    if most > 256:
        found.append((
            f"answer.sampling.max_new_tokens={most // 2}", "more answers cut off",
            lambda _, work: _shorter(work) if work.kind == "ask" else 1.0,
        ))  # fmt: skip
    families: dict[str, float] = {}
    for name, seconds in left.items():
        if (arm := session.arms.get(_part_of(name))) is not None:
            families[arm.variant.family] = families.get(arm.variant.family, 0.0) + seconds
    used = {arm.variant.source for arm in session.arms.values() if not arm.trains}
    spare = [one for one in families if one not in used]
    if len(families) > 1 and spare:
        worst = max(spare, key=lambda one: families[one])
        arms = {name for name, arm in session.arms.items() if arm.variant.family == worst}
        found.append((
            f"arms.{worst}=null", "one remedy less",
            lambda name, _: 0.0 if set(name.split("/")) & arms else 1.0,
        ))  # fmt: skip
    return found


def _ending(end: str, share: float) -> Factor:
    return lambda name, _: share if name.endswith(end) else 1.0


def _shorter(work: Work) -> float:
    """Share of an asking that is left with half the new tokens."""
    mean = work.written / max(1.0, work.answers)
    if not work.written or mean <= 0:
        return 1.0
    low, high = 1.0, 1e5
    for _ in range(40):  # the usual length that gives this mean
        middle = (low * high) ** 0.5
        low, high = (middle, high) if truncated(work.most, middle) < mean else (low, middle)
    return truncated(work.most // 2, low) / mean


def in_words(seconds: float) -> str:
    """A duration, as precise as an estimate is.

    >>> [in_words(one) for one in (4, 90, 3_000, 9_000, 200_000)]
    ['4 s', '2 min', '50 min', '2.5 h', '2.3 days']
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < DAY_S:
        return f"{seconds / 3600:.1f} h"
    days = seconds / DAY_S
    return f"{days:.1f} days" if days < 20 else f"{days:,.0f} days"


def at_start(
    session: Session, steps: Sequence[Step], progress: Progress
) -> dict[str, float]:
    """Tell what a run will take, measured first where it is worth that, before its first stage.

    Returns:
        Seconds of every stage.
    """
    speed = speeds.known(session)
    told = outlook(session, steps, speed)
    if told.left > WORTH_MEASURING_S and told.measurable:
        told = outlook(session, steps, measured(session, progress))
    for line in start_lines(told):
        progress.say(line)
    return {name: one.seconds for name, one in told.stages.items()}


def measured(session: Session, progress: Progress) -> Speed:
    """The speed, measured; the formula's, and a line that says why, where that fails."""
    try:
        return calibration.measure(session, progress)
    except (HoldfastError, RuntimeError) as error:
        progress.say(f"the speed could not be measured: {str(error).splitlines()[0][:200]}")
        return replace(speeds.by_formula(session))


def start_lines(told: Outlook) -> list[str]:
    """What is said of the time when a run starts."""
    lines = [f"About {in_words(told.left)} on {told.device} ({told.how})."]
    if told.left > DAY_S:
        lines.append("That is days. What would shorten it:")
        lines += [
            f"  {one.setting} saves {in_words(one.saved)} ({one.words})"
            for one in told.changes[:5]
        ]
    return lines
