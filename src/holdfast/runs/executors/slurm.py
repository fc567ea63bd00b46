"""Workers as tasks of Slurm's job arrays: `sbatch` places them, `squeue` says what became of them.

A worker makes one stage after another for as long as its job lives, so what depends on what is the
coordinator's to see to and no job waits in the queue for another. A job that is taken back for
another (pre-emption), or whose node fails, is queued again by Slurm and comes back as a new worker;
the stage that it had goes to whoever is free. Jobs are noted in the run folder, so that a run which
is begun again cancels what a killed one has left in the queue.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.config.hardware import SlurmSpec
from holdfast.errors import HoldfastError, UsageError
from holdfast.runs import store
from holdfast.runs.executors import AGAIN, links
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.remote import Remote, not_shared
from holdfast.runs.executors.workers import Ending, Seat

JOBS = "slurm-jobs.txt"
"""In the folder of workers: ids of what was submitted and may be in the queue."""
LOOK_EVERY_S = 10.0
"""How often Slurm is asked; its controller serves everybody."""
AGAIN_S, ENDS_S = 1.0, 30.0
"""So often it is looked, and so long at most, until a job ends whose worker has."""
TIMEOUT_S = 60.0
WARNED_S = 120
"""Seconds before the end of its time in which a worker comes to a safe point."""
WAITS = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
LIVES = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "RESIZING",
         "STOPPED"}  # fmt: skip
TAKEN = {"PREEMPTED", "NODE_FAIL", "TIMEOUT", "DEADLINE", "BOOT_FAIL", *WAITS}
"""States in which the stage is not to blame."""
Execute = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Task:
    """What Slurm says of one task of an array."""

    state: str
    reason: str = ""
    node: str = ""
    code: int = 0


class Slurm(Remote):
    """Slurm's queue; see `Starter`."""

    room: int | None = None
    """It has as much as its user asks for."""
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
        (execute or _execute)(["sbatch", "--version"])
        queue = Queue(folder, spec, say, execute or _execute)
        super().__init__(folder, queue, here, spec.host)


class Queue:
    """What was submitted, by seat; see `remote.Jobs`."""

    def __init__(
        self, folder: Path, spec: SlurmSpec, say: Callable[[str], None], execute: Execute
    ) -> None:
        """See `Slurm`."""
        self._folder, self._spec, self._say, self._execute = folder, spec, say, execute
        self._seats: dict[int, str] = {}  # number: id of the task, such as 17_3
        self._looked, self._told = -LOOK_EVERY_S, ""
        self._note = folder / links.FOLDER / JOBS
        left = self._note.read_text(encoding="utf-8").split() if self._note.is_file() else []
        if left := [one for one in left if re.fullmatch(r"\d+", one)]:
            with suppress(HoldfastError):  # none of them is known any more
                execute(["scancel", *left])
        self._jobs: list[str] = []

    def submit(self, seats: Sequence[Seat], command: Sequence[str]) -> None:
        """One array for seats of one size; see `remote.Jobs`."""
        numbers = [seat.number for seat in seats]
        file = self._folder / links.FOLDER / f"slurm-{numbers[0]}.sh"
        store.write_text(file, self.script(numbers, command))
        said = self._execute(["sbatch", "--parsable", str(file)])
        found = re.match(r"(\d+)", said.strip())
        if found is None:
            raise HoldfastError(
                f"did not say which job it made: {said.strip()[:200]!r}", where="sbatch",
                remedy="see whether `sbatch --parsable` works here",
            )  # fmt: skip
        self._jobs.append(found[1])
        store.write_text(self._note, "\n".join(self._jobs) + "\n")
        self._seats |= {number: f"{found[1]}_{number}" for number in numbers}
        self._say(f"Slurm: job {found[1]}, {len(numbers)} workers")

    def script(self, numbers: Sequence[int], command: Sequence[str]) -> str:
        """What `sbatch` is given for some seats."""
        spec, log = self._spec, self._folder / links.FOLDER / "slurm-%A_%a.log"
        asked = {
            "job-name": f"holdfast-{self._folder.name}",
            "array": ",".join(map(str, numbers)),
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
        call = f'exec {shlex.join(command)} --seat "$SLURM_ARRAY_TASK_ID"'
        return "\n".join(["#!/bin/sh", *lines, call, ""])

    def ended(self) -> Iterable[tuple[int, Ending]]:
        """See `remote.Jobs`; says in a line how many run and wait when that has changed."""
        if not self._seats or time.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = time.monotonic()
        queued = self._queued()
        self._tell(queued)
        gone = [number for number, task in self._seats.items() if task not in queued]
        return [(number, self._why(number)) for number in gone]

    def _tell(self, queued: Mapping[str, Task]) -> None:
        own = [queued[task] for task in self._seats.values() if task in queued]
        counts = Counter(
            f"{one.state.lower()} ({one.reason})" if one.state in WAITS and one.reason
            else one.state.lower() for one in own
        )  # fmt: skip
        told = ", ".join(f"{count} {words}" for words, count in counts.most_common())
        if told and told != self._told:
            self._told = told
            self._say(f"Slurm: {told}")

    def _queued(self) -> dict[str, Task]:
        """The tasks that wait or run, by id."""
        if not self._jobs:
            return {}
        command = ["squeue", "--noheader", "--array", "--jobs", ",".join(self._jobs),
                   "--format", "%i|%T|%r|%N"]  # fmt: skip
        try:
            said = self._execute(command)
        except HoldfastError as error:
            if "Invalid job id" in error.message:  # the last of them has been forgotten
                return {}
            self._say(f"Slurm does not answer: {error.message}")
            return {task: Task("RUNNING") for task in self._seats.values()}
        rows = (line.strip().split("|") for line in said.splitlines())
        return {
            row[0]: Task(row[1].split()[0].upper(), row[2].strip("()"), row[3])
            for row in rows
            if len(row) == 4 and row[1].split()[0].upper() in WAITS | LIVES
        }

    def _why(self, number: int) -> Ending:
        """Why a task that is no longer queued has ended."""
        task = self._seats.pop(number)
        found = self._ended(task)
        log = str(self._folder / links.FOLDER / f"slurm-{task}.log")
        if found.code == links.NOT_SHARED:
            return Ending(f"job {task} {found.state}", log,
                          final=not_shared(self._folder, found.node))  # fmt: skip
        where = f" on {found.node}" if found.node else ""
        words = f"Slurm says {found.state} of job {task}{where}"
        if found.code:
            words += f", exit code {found.code}"
        return Ending(words, log, counted=found.state not in TAKEN)

    def _ended(self, task: str) -> Task:
        """What the controller remembers of a task, or else the accounting, where there is any."""
        with suppress(HoldfastError):
            said = self._execute(["scontrol", "--oneliner", "show", "job", task])
            about = dict(re.findall(r"(\w+)=(\S+)", said))
            code = about.get("ExitCode", "0:0").partition(":")[0]
            if "JobState" in about:
                return Task(about["JobState"], "", about.get("NodeList", ""), int(code))
        with suppress(HoldfastError):
            said = self._execute(
                ["sacct", "--noheader", "--parsable2", "--allocations", "--jobs", task,
                 "--format", "State,ExitCode,NodeList"]
            )  # fmt: skip
            rows = [line.split("|") for line in said.splitlines() if line.count("|") == 2]
            if rows:
                state, code, node = rows[-1]
                first = code.partition(":")[0]
                return Task(state.split()[0].upper(), "", node, int(first) if first else 0)
        return Task("GONE")

    def end(self, number: int) -> Ending:
        """See `remote.Jobs`: a task that Slurm has queued again by itself stays there."""
        task = self._seats.get(number)
        if task is None:
            return Ending("its job is gone")
        until = time.monotonic() + ENDS_S
        while (found := self._queued().get(task)) is not None and time.monotonic() < until:
            if found.state in WAITS:
                words = f"Slurm has queued job {task} again"
                return Ending(words, counted=False, returns=True)
            time.sleep(AGAIN_S)  # it takes a moment until an ended process is an ended job
        if found is None:
            return self._why(number)
        with suppress(HoldfastError):  # its node does not answer
            self._execute(["scancel", task])
        self._seats.pop(number)
        return Ending(f"job {task} did not end ({found.state.lower()})", counted=False)

    def close(self) -> None:
        """See `remote.Jobs`."""
        if self._jobs:
            with suppress(HoldfastError):
                self._execute(["scancel", *self._jobs])
        self._seats.clear()
        self._note.unlink(missing_ok=True)


def _execute(command: Sequence[str]) -> str:
    """What one of Slurm's programs says.

    Raises:
        UsageError: it is not there; it does not take what it was given.
    """
    if shutil.which(command[0]) is None:
        raise UsageError(
            f"there is no {command[0]} here", where="--on slurm",
            remedy="give the command on a machine of the cluster; or use --on gpus or --on ray",
        )  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise HoldfastError(
            f"has not answered in {TIMEOUT_S:.0f} s", where=command[0], remedy=AGAIN
        ) from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:500]
        remedy = "see hardware.slurm in `holdfast schema`"
        if command[0] == "sbatch" and "partition" in said.lower():
            remedy = f"set hardware.slurm.partition to one of: {_partitions()}"
        raise UsageError(said or f"ended with {done.returncode}", where=command[0], remedy=remedy)
    return done.stdout


def _partitions() -> str:
    with suppress(HoldfastError):
        return ", ".join(_execute(["sinfo", "--noheader", "--format", "%R"]).split())
    return "those that `sinfo` shows"
