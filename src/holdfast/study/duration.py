"""How long every stage of a study takes: measured, or told beforehand.

A finished stage took what its record says. The others take what their work (`study.work`) takes at
the device's speed (`study.speed`), corrected by what stages of the same kind took in this run
folder against what would have been told of them: so an estimate becomes true as the study runs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Literal, NamedTuple

from holdfast.errors import HoldfastError
from holdfast.runs import records
from holdfast.runs.plan import place
from holdfast.runs.stages import PlannedStage
from holdfast.study import speed as speeds
from holdfast.study.session import Session
from holdfast.study.speed import Speed
from holdfast.study.work import SERVER, Counted, Work

SMALL_S = 0.05
"""Of a stage that asks no model."""
JUDGED_S = 5e-4
"""Of a reply that rules judge."""
How = Literal["took", "as before", "measured", "by formula", "assumed"]


class Seconds(NamedTuple):
    """How long a stage takes.

    Attributes:
        seconds: all of it, interruptions left out.
        how: `took`: it is finished. `as before`: by what stages of its kind took in this run;
            `measured`: by this device's speed with this model; `by formula`: by its size;
            `assumed`: a server does it.
    """

    seconds: float
    how: How


def stage_seconds(session: Session, speed: Speed | None = None) -> dict[str, Seconds]:
    """How long every stage of a study takes, by name, in the order of the plan.

    Reads the records of finished stages, so it may be asked again while the study runs.

    Args:
        session: prepared; nothing is loaded but its tokenizer.
        speed: of the device; None: what was measured before, or the formula's.
    """
    speed = speed or speeds.known(session)
    counted = Counted(session, speed.usual)
    return timed(session, {one.name: counted.of(one) for one in session.plan.stages}, speed)


def timed(session: Session, works: dict[str, Work], speed: Speed) -> dict[str, Seconds]:
    """How long stages take whose work is known; see `stage_seconds`."""
    took = {one.name: _took(session, one) for one in session.plan.stages}
    opened, told = "", {}
    for stage in session.plan.stages:
        work = works[stage.name]
        loads = work.model not in ("", SERVER, opened) and work.kind != "other"
        opened = work.model if work.model not in ("", SERVER) else opened
        told[stage.name] = seconds_of(work, speed, loads)
    copied = {
        f"{top}/{place(point, task)}"
        for point in session.plan.points()
        if session.plan.repeated(point)
        for task in session.plan.tasks
        for top in ("replies", "perplexity")
    }
    alike: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, seconds in took.items():
        work = works[name]
        if seconds is not None and name not in copied:
            for key in (work.alike, work.kind):
                alike[key].append((seconds, told[name]))
    found = {}
    for name, work in works.items():
        if (seconds := took[name]) is not None:
            found[name] = Seconds(seconds, "took")
            continue
        seen = alike.get(work.alike) or (alike.get(work.kind) if work.kind != "other" else None)
        how: How = speed.how
        factor = 1.0
        if seen and (sum_told := math.fsum(b for _, b in seen)) > 0:
            factor, how = math.fsum(a for a, _ in seen) / sum_told, "as before"
        found[name] = Seconds(0.0 if name in copied else told[name] * factor, how)
    return found


def how_of(stages: Mapping[str, Seconds], names: Collection[str], speed: Speed) -> str:
    """Where the time that these stages take is from, in words."""
    followed = math.fsum(stages[name].seconds for name in names if stages[name].how == "as before")
    every = math.fsum(stages[name].seconds for name in names)
    return "by the stages done so far" if followed > every / 2 else speed.how


def _took(session: Session, stage: PlannedStage) -> float | None:
    with suppress(HoldfastError, KeyError, TypeError, ValueError):
        if record := records.read(session.folder / stage.name):
            return float(record["seconds"])
    return None


def seconds_of(work: Work, speed: Speed, loads: bool = False) -> float:
    """How long some work takes.

    Args:
        work: in tokens.
        speed: of the device with the study's own model.
        loads: another model was loaded before.
    """
    if work.model == SERVER:
        return work.answers * 0.2
    if not work.parameters:
        return SMALL_S + JUDGED_S * work.answers
    seconds = speed.read_s * work.read + speed.train_s * work.trained
    if work.written:
        rows = min(speed.rows, max(1.0, work.answers))
        mean = work.written / max(1.0, work.answers)
        # the longest of a batch goes on alone; of exponential lengths it is the mean x ln(rows)
        longest = min(work.most or mean, mean * (1 + math.log(rows)))
        back = max(0.0, speed.write_s + speed.cached_s * (work.context - speed.context))
        seconds += math.ceil(work.answers / rows) * longest * speed.round_s + work.written * back
    seconds = work.parameters * seconds
    if work.kind == "train":
        return seconds + speed.start_s
    return seconds + (work.parameters * speed.open_s if loads else 0.0)
