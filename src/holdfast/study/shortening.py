"""What would shorten a study, and what each change saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast.study.session import Session
from holdfast.study.work import Work, truncated
from holdfast.types import BASE

FEWER_ITEMS, FEWER_CHECKPOINTS = 200, 3
SHARED, GRADING = "shared by arms", "grading, report"


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


def part_of(name: str) -> str:
    """The arm that a stage belongs to, or what all of them share."""
    top, _, rest = name.partition("/")
    if top in ("replies", "train", "data", "weights", "perplexity"):
        return rest.split("/")[0].split("@")[0]
    return SHARED if top in ("shared", "budget", "validation") else GRADING


Factor = Callable[[str, Work], float]
"""What is left of a stage after a change, as a share."""


def changes_of(
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
    if count > FEWER_CHECKPOINTS and places and not plan.chapters:
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
        if (arm := session.arms.get(part_of(name))) is not None:
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
