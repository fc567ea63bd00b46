"""Carries out the stages of a study where its user wants them: here in order, or side by side.

What each stage takes is decided here: trainings as many GPUs as their memory plan needs (more where
there are fewer trainings than GPUs), answering and scoring as many as hold the model, the rest
none, so that it runs beside them. The workers prepare the study by themselves (`study.workshop`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from holdfast.engines import FROM_FILES
from holdfast.errors import HoldfastError, UsageError
from holdfast.judges import members_of
from holdfast.memory.hardware.cpu import cores
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner.inference import answering_bytes, answering_map, longest
from holdfast.memory.planner.request import PlanRequest
from holdfast.models import ModelRef
from holdfast.models.external import has_shape
from holdfast.progress import Progress
from holdfast.progress.remaining import in_words
from holdfast.runs import records, stages
from holdfast.runs.executors import carry_out, links
from holdfast.runs.executors.arrival import has_arrived
from holdfast.runs.executors.graph import Asks, Graph, makespan
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.seats import Seat, Starter
from holdfast.runs.executors.workers import Workers
from holdfast.runs.stages import Step
from holdfast.study.preflight import add_notices
from holdfast.study.probes import asked_by_meters
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
"""What the least able GPU of a run decides for all of them."""
CAPS = ("max_requests", "max_cost")
"""Of a server: what one command may send and spend, which each process counts by itself."""
FREE_SHARE = 0.5
"""Of what is free on the freest GPU; one with less would be a trap for what fits another."""


def chosen(session: Session, on: Where | None) -> Where:
    """Where a study runs.

    Args:
        session: prepared.
        on: as its user says; None: on all GPUs where there are several, else here in order.

    Raises:
        UsageError: that is not possible on this machine, or with this study.
    """
    gpus, hardware = session.gpus, session.study.hardware
    if hardware.nodes > 1 and (not gpus or on not in (None, "local", "gpus")):
        raise UsageError(
            f"trainings on {hardware.nodes} machines together need GPUs, and come one by one",
            where="hardware.nodes",
            remedy="run it with --on local or gpus on a machine with GPUs, or leave it out",
        )
    said = str(session.study.model_dump(mode="json", exclude_unset=True, exclude_none=True))
    cap = next((name for name in CAPS if f"'{name}'" in said or f"{name}=" in said), "")
    if on is None:
        return "gpus" if len(usable(gpus)) > 1 and not cap else "local"
    if cap and on != "local":
        raise UsageError(
            f"{cap} of a server is kept by the process that asks, and here several would",
            where=f"--on {on}", remedy=f"use --on local, or leave {cap} out",
        )  # fmt: skip
    if on == "gpus" and not gpus:
        raise UsageError(
            "no GPU can be used here" if hardware.device != "cpu" else "hardware.device is cpu",
            where="--on gpus",
            remedy="leave --on out; or --on workers, which takes processes on the CPU instead",
        )
    if on == "workers" and gpus:
        raise UsageError(
            f"{len(gpus)} GPUs would be shared by workers that are meant for the CPU",
            where="--on workers",
            remedy="--on gpus gives every GPU a worker; hardware.device=cpu does without them",
        )
    if is_elsewhere(on) and hardware.gpus:
        raise UsageError(
            f"hardware.gpus ({hardware.gpus}) names GPUs of this machine, and others do the work",
            where=f"--on {on}", remedy=f"leave it out; see hardware.{on}.gpus",
        )  # fmt: skip
    return on


def usable(gpus: Sequence[GPU]) -> tuple[GPU, ...]:
    """Those that stages may be given to, any to any: none that others have filled."""
    least = FREE_SHARE * max((one.free_bytes for one in gpus), default=0)
    return tuple(one for one in gpus if one.free_bytes >= least)


def able_of(gpus: Sequence[GPU]) -> dict[str, bool]:
    """What all of them can compute in."""
    return {name: all(getattr(gpu, name) for gpu in gpus) for name in ABLE}


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
    if len(free := usable(session.gpus)) < len(session.gpus):
        progress.say(f"{len(session.gpus) - len(free)} GPUs are left out: less than half as much "
                     "memory is free there as on another")  # fmt: skip
        session = replace(session, gpus=free)
    folder = session.folder.absolute()
    secret = links.write_secret(folder)
    try:
        room = _room(session, where, progress)
        try:
            asks: Asks = _Demands(session, steps, where, room.slots).of
            takes = makespan(Graph(steps, room.roughly), expected, room.slots, room.beside or 1)
            about = f": about {in_words(takes)}" if takes < sum(expected.values()) else ""
            progress.say(f"{room.slots} stages at a time on {room.words}{about}.")
            todo = stages.announce(steps, session.folder, progress, expected)
            workers = Workers(room.starter, room.slots, room.beside, lambda seat: {
                "source": SOURCE, "folder": str(folder), "secret": secret,
                "given": _given(session, where, seat, room.least),
            })  # fmt: skip
            graph = Graph(todo, asks, expected, FIRST)
        except BaseException:
            room.starter.close()
            raise

        def noticed(notices: Sequence[str]) -> None:
            for one in add_notices(folder, notices):
                progress.say(one)

        carry_out(graph, workers, progress, lambda name: has_arrived(folder, name),
                  session.study.hardware.retries, noticed)  # fmt: skip
    finally:
        links.forget_secret(folder, secret)


@dataclass(frozen=True)
class _Room:
    """How much runs at a time, and who sees to it."""

    starter: Starter
    slots: int
    beside: int
    words: str
    least: int = 0  # GPUs that each worker of another machine must have

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
            threads = {"OMP_NUM_THREADS": str(max(1, cores() * len(own) // len(gpus)))}
            return {**threads, **torchrun.environment(plan, os.environ), **named}

        return _Room(Machine(folder, variables), len(gpus), beside, "the GPUs of this machine")
    module, _, name = ELSEWHERE[where].partition(":")
    make: Any = getattr(import_module(module), name)
    here, spec = Machine(folder, lambda own: light), getattr(hardware, where)
    if hardware.device == "cpu":
        if spec.gpus and "gpus" in spec.model_fields_set:
            progress.say(f"hardware.device is cpu: hardware.{where}.gpus is ignored")
        spec = spec.model_copy(update={"gpus": 0})
    starter = make(folder, spec, here, progress.say)
    slots = hardware.workers or starter.room or JOBS
    return _Room(starter, slots, beside, starter.words, starter.gpus)


def _given(session: Session, where: Where, seat: Seat, least: int) -> dict[str, object]:
    """What a worker is told of its GPUs; see `study.workshop`."""
    if is_elsewhere(where) and seat.slots:
        return {"gpus": None, "able": {}, "least": least, "on": where}
    gpus = () if is_elsewhere(where) else session.gpus
    own = [asdict(gpus[one]) for one in seat.slots] if where == "gpus" else []
    return {"gpus": own, "able": able_of(gpus) if gpus else {}, "least": 0, "on": where}


class _Demands:
    """What the stages of a study take."""

    def __init__(self, session: Session, steps: Sequence[Step], where: Where, slots: int) -> None:
        self._session, self._where, self._slots = session, where, slots
        self._gpus = sorted(session.gpus, key=lambda one: one.free_bytes)  # any may be given
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
        return (1 if self._where in ELSEWHERE else self._of_gpus(kind, rest)), model

    def _loads(self, arm: str) -> bool:
        """Whether the model is loaded to make an arm's weights."""
        made = self._session.arms[arm].merges
        return made is not None and made.loads

    def _judge(self, task: str) -> tuple[str, str]:
        judge = self._session.measuring.tasks[task].judge
        guards = [one.guard for one in members_of(judge) if one.guard] if judge else []
        return ("guard", f"judge of {task}") if guards else ("none", "")

    def _of_gpus(self, kind: str, rest: str) -> int:
        """GPUs of this machine that a stage takes, at most all."""
        key = (kind, rest if kind == "train" else "")
        if key not in self._known:
            found = 1
            if self._slots > 1 and kind == "train":
                found = self._training(rest)
            elif self._slots > 1 and kind == "base":
                found = self._answering(self._session.plan.model)
            self._known[key] = max(1, min(found, self._slots))
        return self._known[key]

    def _answering(self, ref: ModelRef) -> int:
        session = self._session
        if session.study.answer.engine not in FROM_FILES or not has_shape(ref):
            return 1
        shape, nf4 = read_shape(ref.base, ref.revision), session.pool.nf4
        tokens = longest(shape, session.study.answer.sampling.max_new_tokens)
        if answering_bytes(shape, nf4, tokens) <= self._gpus[0].free_bytes:
            return 1
        for count in range(2, self._slots):
            if answering_map(shape, self._gpus[:count], nf4, tokens):
                return count
        return self._slots

    def _training(self, rest: str) -> int:
        """As few as it fits on, or its share where there are fewer trainings than GPUs."""
        arm, session = rest.partition("/")[0], self._session.part_of(rest)
        own = session.arms[arm]
        train = own.train_in(session.chapter)
        if session.study.hardware.nodes > 1:
            return self._slots  # the other machines join one training at a time
        study = session.study.model_copy(update={"train": train})
        about = records.summary(session.folder / session.named(f"data/{arm}"))
        overhead = overhead_of(own.loss, len(session.averages(arm)))
        if asked_by_meters(session.study.meters, session.plain):
            probed = about["answer_tokens"] or about["longest_tokens"]
            overhead = replace(overhead, names=(*overhead.names, "meters"), probed_tokens=probed)
        for count in range(max(1, self._slots // self._trainings), self._slots + 1):
            asked = PlanRequest(gpus=tuple(self._gpus[:count]), trace=False)
            try:
                report = plan_study(
                    study, asked, arms={arm: PlanRequest(train=train, overhead=overhead)},
                    longest=about["longest_tokens"], answer_tokens=about["answer_tokens"],
                )  # fmt: skip
            except HoldfastError:
                return self._slots  # as where one is made after another
            if report.plan is not None:
                return max(1, len(report.plan.gpus))
        return self._slots
