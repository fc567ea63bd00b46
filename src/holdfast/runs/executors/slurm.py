"""Workers as tasks of Slurm's job arrays: `sbatch` places them, `squeue` says what became of them.

A worker makes one stage after another for as long as its job lives, so what depends on what is the
coordinator's to see to and no job waits in the queue for another. A job that is taken back for
another (pre-emption), or whose node fails, is queued again by Slurm and comes back as a new worker;
the stage that it had goes to whoever is free. Jobs are noted in the run folder, so that a run which
is begun again cancels what a killed one has left in the queue.
"""

from __future__ import annotations

import math
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.config.hardware import SlurmSpec
from holdfast.errors import HoldfastError, UsageError
from holdfast.runs import store
from holdfast.runs.executors import links
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.remote import Remote, said, why_ended
from holdfast.runs.executors.seats import Ending, Seat

JOBS = "slurm-jobs.txt"
"""In the folder of workers: ids of what was submitted and may be in the queue."""
LOOK_EVERY_S = 10.0
"""How often Slurm is asked; its controller serves everybody."""
AGAIN_S, ENDS_S = 2.0, 30.0
"""So often it is asked, and so long at most, until a job ends whose worker has."""
WARNED_S = 120
"""Seconds before the end of its time in which a worker comes to a safe point."""
WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
LIVES = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "RESIZING",
         "STOPPED", "UNANSWERED"}  # fmt: skip
"""`UNANSWERED` is none of Slurm's: it was asked, and has not said."""
TAKEN = {"PREEMPTED", "NODE_FAIL", "BOOT_FAIL", *WAITS}
"""States in which the stage is not to blame."""
LATE = {"TIMEOUT", "DEADLINE"}
NEVER = {"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints",
         "InvalidAccount", "InvalidQOS", "AccountNotAllowed", "QOSNotAllowed"}  # fmt: skip
"""Reasons for which a job waits that do not pass by themselves: `sbatch` may take such a job."""
WARNED = 128 + signal.SIGTERM
"""Exit code of a worker that came to a safe point before its time was over."""
NO_GPUS = "export CUDA_VISIBLE_DEVICES="
AS_COUNTED = 'export CUDA_DEVICE_ORDER="${CUDA_DEVICE_ORDER:-PCI_BUS_ID}"'
"""What a worker's GPUs are numbered by, as Slurm numbers them."""
Execute = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Task:
    """What Slurm says of one task of an array."""

    state: str
    reason: str = ""
    node: str = ""
    code: int = 0
    signal: int = 0


class Slurm(Remote):
    """Slurm's queue; see `Starter`."""

    room: int | None = None
    """As much as is asked for."""
    words = "Slurm"

    def __init__(
        self,
        folder: Path,
        spec: SlurmSpec,
        here: Machine,
        say: Callable[[str], None],
        execute: Execute | None = None,
    ) -> None:
        """Cancel what an earlier run has left in the queue; submit nothing yet.

        Raises:
            UsageError: there is no Slurm here.
        """
        execute = execute or _execute
        execute(["sbatch", "--version"])
        super().__init__(folder, Queue(folder, spec, say, execute), here, spec.host)
        self.gpus = spec.gpus


class Queue:
    """What was submitted, by seat; see `remote.Jobs`."""

    def __init__(
        self, folder: Path, spec: SlurmSpec, say: Callable[[str], None], execute: Execute
    ) -> None:
        """See `Slurm`."""
        self._folder, self._spec, self._say, self._execute = folder, spec, say, execute
        self._seats: dict[int, str] = {}  # number: id of the task, such as 17_3
        self._looked, self._told, self._heard = -math.inf, "", True
        self._asked, self._answer = -math.inf, dict[str, Task]()
        self._note = folder / links.FOLDER / JOBS
        left = self._note.read_text(encoding="utf-8").split() if self._note.is_file() else []
        if left := [one for one in left if re.fullmatch(r"\d+", one)]:
            with suppress(HoldfastError):  # none of them is known any more
                execute(["scancel", *left])
        self._jobs: list[str] = []

    def submit(self, seats: Sequence[Seat], command: Sequence[str]) -> None:
        """One array for seats of one size; see `remote.Jobs`."""
        first = seats[0].number  # tasks are counted from 0: clusters limit how high
        file = self._folder / links.FOLDER / f"slurm-{first}.sh"
        store.write_text(file, self.script(first, len(seats), command))
        told = self._execute(["sbatch", "--parsable", str(file)])
        found = re.match(r"(\d+)", told.strip())
        if found is None:
            raise HoldfastError(
                f"did not say which job it made: {told.strip()[:200]!r}", where="sbatch",
                remedy="see whether `sbatch --parsable` works here",
            )  # fmt: skip
        self._jobs.append(found[1])
        store.write_text(self._note, "\n".join(self._jobs) + "\n")
        self._seats |= {seat.number: f"{found[1]}_{seat.number - first}" for seat in seats}
        self._say(f"Slurm: job {found[1]}, {len(seats)} workers")

    def script(self, first: int, count: int, command: Sequence[str]) -> str:
        """What `sbatch` is given for so many seats, from the first number on."""
        spec, log = self._spec, self._folder / links.FOLDER / "slurm-%A_%a.log"
        asked = {
            "job-name": shlex.quote(f"holdfast-{self._folder.name}"),
            "array": f"0-{count - 1}",
            "partition": spec.partition,
            "gres": f"gpu:{spec.gpus}" if spec.gpus else None,
            "cpus-per-task": spec.cpus,
            "mem": spec.memory,
            "time": spec.time,
            "output": shlex.quote(str(log)),
            "open-mode": "append",
            "signal": f"B:TERM@{WARNED_S}",
        }
        lines = [f"#SBATCH --{key}={value}" for key, value in asked.items() if value is not None]
        lines += ["#SBATCH --requeue", *(f"#SBATCH {one}" for one in spec.options)]
        call = f'exec {shlex.join(command)} --seat "$(({first} + SLURM_ARRAY_TASK_ID))"'
        return "\n".join(["#!/bin/sh", *lines, AS_COUNTED if spec.gpus else NO_GPUS, call, ""])

    def ended(self) -> Iterable[tuple[int, Ending]]:
        """See `remote.Jobs`; says in a line how many run and wait when that has changed."""
        if not self._seats or time.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = time.monotonic()
        queued = self._queued(0.0)
        if self._heard:
            self._tell(queued)
        if never := [
            (number, _refused(queued[task].reason))
            for number, task in self._seats.items()
            if task in queued and queued[task].reason in NEVER
        ]:
            return never
        gone = {
            number: self._state(task) for number, task in self._seats.items() if task not in queued
        }
        return [
            (number, self._why(number, found))
            for number, found in gone.items()
            if found.state not in WAITS | LIVES  # else the queue will show it again
        ]

    def _tell(self, queued: Mapping[str, Task]) -> None:
        own = [queued[task] for task in self._seats.values() if task in queued]
        words = (f" ({one.reason})" if one.state in WAITS and one.reason else "" for one in own)
        counts = Counter(one.state.lower() + why for one, why in zip(own, words, strict=True))
        self._tell_once(", ".join(f"{count} {words}" for words, count in counts.most_common()))

    def _tell_once(self, told: str) -> None:
        if told and told != self._told:
            self._told = told
            self._say(f"Slurm: {told}")

    def _queued(self, within_s: float) -> Mapping[str, Task]:
        """The tasks that wait or run, by id, as Slurm has said at most so long ago."""
        if time.monotonic() - self._asked >= within_s:
            self._answer, self._asked = self._squeue(), time.monotonic()
        return self._answer

    def _squeue(self) -> dict[str, Task]:
        if not self._jobs:
            return {}
        command = ["squeue", "--noheader", "--array", "--jobs", ",".join(self._jobs),
                   "--format", "%i|%T|%r|%N"]  # fmt: skip
        self._heard = True
        try:
            told = self._execute(command)
        except HoldfastError as error:
            if "Invalid job id" in error.message:  # the last of them has been forgotten
                return {}
            self._heard = False
            self._tell_once(f"no answer ({error.message})")
            return {task: Task("RUNNING") for task in self._seats.values()}
        rows = (line.strip().split("|") for line in told.splitlines())
        return {
            row[0]: Task(row[1].split()[0].upper(), row[2].strip("()"), row[3])
            for row in rows
            if len(row) == 4 and row[1].split()[0].upper() in WAITS | LIVES
        }

    def _why(self, number: int, found: Task) -> Ending:
        """Why a task that is no longer queued has ended."""
        task = self._seats.pop(number)
        words = f"Slurm says {found.state} of job {task}"
        words += f" on {found.node}" if found.node else ""
        words += f", exit code {found.code}" if found.code else ""
        words += f", signal {found.signal}" if found.signal else ""
        log = str(self._folder / links.FOLDER / f"slurm-{task}.log")
        ending = why_ended(found.code, self._folder, found.node, words, log)
        warned = found.code == WARNED or found.signal == signal.SIGTERM
        late = found.state in LATE or (found.state == "FAILED" and warned)
        words = f"its time was over ({ending.why})" if late else ending.why
        return replace(ending, why=words, late=late, counted=not late and found.state not in TAKEN)

    def _state(self, task: str) -> Task:
        """What the controller remembers of a task, or else the accounting, where there is any."""
        with suppress(HoldfastError):
            told = self._execute(["scontrol", "--oneliner", "show", "job", task])
            about = dict(re.findall(r"(\w+)=(\S+)", told))
            if "JobState" in about:
                node = about.get("NodeList", "").replace("(null)", "")
                return Task(about["JobState"], "", node, *_exit(about.get("ExitCode", "")))
        with suppress(HoldfastError):
            told = self._execute(
                ["sacct", "--noheader", "--parsable2", "--allocations", "--jobs", task,
                 "--format", "State,ExitCode,NodeList"]
            )  # fmt: skip
            rows = [line.split("|") for line in told.splitlines() if line.count("|") == 2]
            if rows:
                state, code, node = rows[-1]
                return Task(state.split()[0].upper(), "", node, *_exit(code))
        return Task("GONE")

    def end(self, number: int, since: float) -> Ending | None:
        """See `remote.Jobs`: a task that Slurm has queued again by itself stays there."""
        task = self._seats.get(number)
        if task is None:
            return Ending("its job is gone")
        found = self._queued(AGAIN_S).get(task) or self._state(task)
        if found.state in WAITS:
            return Ending(f"Slurm has queued job {task} again", counted=False, returns=True)
        if found.state not in LIVES:
            return self._why(number, found)
        if time.monotonic() - since < ENDS_S:
            return None  # it takes a moment until an ended process is an ended job
        with suppress(HoldfastError):  # its node does not answer
            self._execute(["scancel", task])
        del self._seats[number]
        return Ending(f"job {task} did not end ({found.state.lower()})", counted=False)

    def close(self) -> None:
        """See `remote.Jobs`."""
        self._seats.clear()
        with suppress(HoldfastError):  # else the next run cancels them
            if self._jobs:
                self._execute(["scancel", *self._jobs])
            self._jobs.clear()
            self._note.unlink(missing_ok=True)


def _refused(reason: str) -> Ending:
    """Why a worker will not come, however long it is waited for."""
    error = UsageError(
        f"keeps a worker waiting for what will not come: {reason}", where="Slurm",
        remedy="ask for what the partition has (`scontrol show partition`) in hardware.slurm",
    )  # fmt: skip
    return Ending(reason, final=error)


def _exit(text: str) -> tuple[int, int]:
    """Exit code and signal, as Slurm writes them (``1:0``); zeros for what is not there."""
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


def _execute(command: Sequence[str]) -> str:
    """What one of Slurm's programs says; see `remote.said`."""
    try:
        return said(command)
    except UsageError as error:
        if command[0] == "sbatch" and "partition" in error.message.lower():
            error.remedy = f"set hardware.slurm.partition to one of: {_partitions()}"
        raise


def _partitions() -> str:
    with suppress(HoldfastError):
        return ", ".join(_execute(["sinfo", "--noheader", "--format", "%R"]).split())
    return "those that `sinfo` shows"
