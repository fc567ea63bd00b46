"""Carries out the stages of a study where its user wants them: here in order, or side by side.

What each stage takes is decided here: trainings as many GPUs as their memory plan needs (more where
there are fewer trainings than GPUs), answering and scoring as many as hold the model, the rest
none, so that it runs beside them. The workers prepare the study by themselves (`study.workshop`).
"""

from __future__ import annotations

import heapq
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from holdfast.errors import HoldfastError, UsageError
from holdfast.judges import members_of
from holdfast.memory.hardware.cpu import cores
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.model.shape import read_shape
from holdfast.memory.planner.inference import answering_bytes, answering_map, longest
from holdfast.memory.planner.request import PlanRequest
from holdfast.models import ModelRef
from holdfast.models.external import has_shape
from holdfast.progress import Progress
from holdfast.progress.remaining import in_words
from holdfast.runs import records, stages, store
from holdfast.runs.executors import carry_out, links
from holdfast.runs.executors.graph import Asks, Graph
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.workers import Seat, Starter, Workers
from holdfast.runs.stages import Step
from holdfast.study.session import Session
from holdfast.train.launch import torchrun
from holdfast.train.planning import overhead_of, plan_study
from holdfast.types import Where

SOURCE = "holdfast.study.workshop:stages_of"
ELSEWHERE = {
    "ray": "holdfast.runs.executors.ray:Ray", "slurm": "holdfast.runs.executors.slurm:Slurm",
}  # fmt: skip
FIRST = ("judges",)
"""Stages that look whether something would fail later."""
ASKING = ("replies", "perplexity", "shared")
JOBS = 4
ABLE = ("bf16", "fp16", "nf4")
APPEARS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Waits for a file that another machine has written."""


def chosen(session: Session, on: Where | None) -> Where:
    """Where a study runs.

    Args:
        session: prepared.
        on: as its user says; None: on all GPUs where there are several, else here in order.

    Raises:
        UsageError: that is not possible on this machine.
    """
    gpus = session.gpus
    if on is None:
        return "gpus" if len(gpus) > 1 else "local"
    if on == "gpus" and not gpus:
        raise UsageError(
            "no GPU can be used here" if session.study.hardware.device != "cpu" else
            "hardware.device is cpu",
            where="--on gpus",
            remedy="leave --on out; or --on workers, which takes processes on the CPU instead",
        )  # fmt: skip
    if on == "workers" and gpus:
        raise UsageError(
            f"{len(gpus)} GPUs would be shared by workers that are meant for the CPU",
            where="--on workers",
            remedy="--on gpus gives every GPU a worker; hardware.device=cpu does without them",
        )
    return on


def is_elsewhere(on: Where | None) -> bool:
    """Whether other machines do the work, so that nothing of this one's devices counts."""
    return on in ELSEWHERE


def execute(
    session: Session,
    steps: Sequence[Step],
    progress: Progress,
    expected: Mapping[str, float],
    on: Where | None = None,
) -> None:
    """Make all stages that are not done.

    Args:
        session: prepared; the caller holds the lock of its folder.
        steps: the schedule.
        progress: follows it.
        expected: seconds that stages may take.
        on: see `chosen`.

    Raises:
        HoldfastError: the first that a stage raised, or `WorkerLost`.
    """
    where = chosen(session, on)
    if where == "local" or all(step.done for step in steps):
        stages.execute(steps, session.stages, session.folder, progress, expected)
        return
    session.pool.close()  # the device is the workers'
    folder = session.folder.absolute()
    secret = links.write_secret(folder)
    try:
        room = _room(session, where, progress)
        asks: Asks = _Demands(session, steps, where, room.slots).of
        told = dict(expected)
        takes = makespan(Graph(steps, room.roughly), told, room.slots, max(1, room.beside))
        progress.say(
            f"{room.slots} stages at a time on {room.words}: about {in_words(takes)}."
            if takes < sum(told.values()) else f"{room.slots} stages at a time on {room.words}."
        )  # fmt: skip
        todo = stages.announce(steps, session.folder, progress, expected)
        workers = Workers(room.starter, room.slots, room.beside, lambda seat: {
            "source": SOURCE, "folder": str(folder), "secret": secret,
            "given": _given(session, where, seat),
        })  # fmt: skip
        graph = Graph(todo, asks, told, FIRST)
        carry_out(graph, workers, progress, _arrived(session), session.study.hardware.retries)
    finally:
        links.forget_secret(folder, secret)


@dataclass(frozen=True)
class _Room:
    """How much runs at a time, and who sees to it."""

    starter: Starter
    slots: int
    beside: int
    words: str

    def roughly(self, name: str) -> tuple[int, str]:
        """What a stage takes, as far as that is known before the run."""
        top = name.partition("/")[0]
        return (1 if top in (*ASKING, "train", "data") or not self.beside else 0), ""


def _room(session: Session, where: Where, progress: Progress) -> _Room:
    folder, hardware = session.folder.absolute(), session.study.hardware
    if where == "workers":
        slots = hardware.workers or max(1, cores() // 2)
        share = {"OMP_NUM_THREADS": str(max(1, cores() // slots))} | dict(os.environ)
        return _Room(Machine(folder, lambda own: share), slots, 0, "this machine's CPU")
    light = dict(os.environ) | {"CUDA_VISIBLE_DEVICES": ""}
    beside = max(1, min(4, cores() // 4))
    if where == "gpus":
        gpus = session.gpus

        def variables(own: tuple[int, ...]) -> Mapping[str, str]:
            if not own:
                return light
            plan = MemoryPlan("split", gpus=tuple(gpus[one].index for one in own))
            slices = [gpus[one].uuid for one in own if gpus[one].mig]
            named = {"CUDA_VISIBLE_DEVICES": ",".join(slices)} if slices else {}
            return {**torchrun.environment(plan, os.environ), **named}

        return _Room(Machine(folder, variables), len(gpus), beside, "the GPUs of this machine")
    module, _, name = ELSEWHERE[where].partition(":")
    make: Any = getattr(import_module(module), name)
    starter = make(folder, getattr(hardware, where), Machine(folder, lambda own: light),
                   progress.say)  # fmt: skip
    slots = hardware.workers or starter.room or JOBS
    return _Room(starter, slots, beside, starter.words)


def _given(session: Session, where: Where, seat: Seat) -> dict[str, object]:
    """What a worker is told of its GPUs; see `study.workshop`."""
    gpus, hardware = session.gpus, session.study.hardware
    able = {name: all(getattr(gpu, name) for gpu in gpus) for name in ABLE}
    if not is_elsewhere(where):
        own = [asdict(gpus[one]) for one in seat.slots] if where == "gpus" else []
        return {"gpus": own, "able": able, "least": 0}
    if not seat.slots:
        return {"gpus": [], "able": {}, "least": 0}
    least = 0 if hardware.device == "cpu" or where == "ray" else hardware.slurm.gpus
    return {"gpus": None, "able": {}, "least": least}


def _arrived(session: Session) -> Any:
    def look(name: str) -> bool:
        for wait in APPEARS_S:
            time.sleep(wait)
            if (session.folder / name / store.RECORD).is_file():
                return True
        return False

    return look


class _Demands:
    """What the stages of a study take."""

    def __init__(self, session: Session, steps: Sequence[Step], where: Where, slots: int) -> None:
        self._session, self._where, self._slots = session, where, slots
        names = [step.stage.name for step in steps if not step.done]
        self._trainings = max(1, sum(name.startswith("train/") for name in names))
        self._known: dict[object, int] = {}

    def of(self, name: str) -> tuple[int, str]:
        """Slots and model of one stage; see `graph.Asks`."""
        top, _, rest = name.partition("/")
        model, kind = "", "none"
        if top == "train":
            kind, model = "train", name
        elif top in ASKING or (top == "data" and self._session.arms[rest].made):
            kind, model = "base", "base"
        elif (top == "weights" and self._loads(rest.partition("/")[0])) or top == "judges":
            kind = "base"
        elif top in ("verdicts", "members"):
            kind, model = self._judge(rest.rpartition("/")[2])
        if self._where == "workers":
            return 1, model
        if kind == "none":
            return 0, ""
        return (1 if self._where in ELSEWHERE else self._gpus(kind, rest)), model

    def _loads(self, arm: str) -> bool:
        """Whether the model is loaded to make an arm's weights."""
        made = self._session.arms[arm].merges
        return made is not None and made.loads

    def _judge(self, task: str) -> tuple[str, str]:
        judge = self._session.measuring.tasks[task].judge
        guards = [one.guard for one in members_of(judge) if one.guard] if judge else []
        return ("guard", f"judge of {task}") if guards else ("none", "")

    def _gpus(self, kind: str, rest: str) -> int:
        """GPUs of this machine that a stage takes, at most all."""
        key = (kind, rest.partition("/")[0] if kind == "train" else "")
        if key not in self._known:
            found = 1
            if self._slots > 1 and kind == "train":
                found = self._training(rest.partition("/")[0])
            elif self._slots > 1 and kind == "base":
                found = self._answering(self._session.plan.model)
            self._known[key] = max(1, min(found, self._slots))
        return self._known[key]

    def _answering(self, ref: ModelRef) -> int:
        session = self._session
        if session.study.answer.engine != "hf" or not has_shape(ref):
            return 1
        shape, gpus = read_shape(ref.base, ref.revision), session.gpus
        tokens = longest(shape, session.study.answer.sampling.max_new_tokens)
        if answering_bytes(shape, session.pool.nf4, tokens) <= min(one.free_bytes for one in gpus):
            return 1
        for count in range(2, self._slots):
            if answering_map(shape, gpus[:count], session.pool.nf4, tokens):
                return count
        return self._slots

    def _training(self, arm: str) -> int:
        """As few as it fits on, or its share where there are fewer trainings than GPUs."""
        session, own = self._session, self._session.arms[arm]
        study = session.study.model_copy(update={"train": own.train})
        about = records.summary(session.folder / "data" / arm)
        overhead = overhead_of(own.loss, len(session.averages(arm)))
        for count in range(max(1, self._slots // self._trainings), self._slots + 1):
            asked = PlanRequest(gpus=session.gpus[:count], trace=False)
            try:
                report = plan_study(
                    study, asked, arms={arm: PlanRequest(train=own.train, overhead=overhead)},
                    longest=about["longest_tokens"], answer_tokens=about["answer_tokens"],
                )  # fmt: skip
            except HoldfastError:
                return self._slots  # as where one is made after another
            if report.plan is not None:
                return max(1, len(report.plan.gpus))
        return self._slots


def makespan(graph: Graph, seconds: Mapping[str, float], slots: int, beside: int = 1) -> float:
    """Seconds that a whole graph takes, by what its stages are expected to take; uses it up.

    Args:
        graph: fresh; what its `Asks` says is taken at once.
        seconds: of every stage.
        slots: that there are.
        beside: stages without a slot that may run at a time.
    """
    now, under_way = 0.0, list[tuple[float, str, int]]()
    free, light = slots, beside
    while graph.left:
        for size in graph.sizes():
            while (light if size == 0 else free >= size) and (order := graph.take(size)):
                free, light = free - size, light - (size == 0)
                ends = now + seconds.get(order.stage, 0.0)
                heapq.heappush(under_way, (ends, order.stage, size))
        if not under_way:
            return math.inf  # a stage that no machine of this size can make
        now, name, size = heapq.heappop(under_way)
        free, light = free + size, light + (size == 0)
        graph.done(name)
    return now
