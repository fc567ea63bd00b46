"""Workers of other machines: started by a cluster's own program, they come to the coordinator.

Slurm and Ray only place processes and look after them (`Jobs`); each process is the same worker as
here, which proves by the run folder that it sees the same storage, and is let in. Stages that take
no slot are made on the coordinator's machine, beside the others.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from holdfast.errors import FolderError, HoldfastError, UsageError
from holdfast.runs.executors import AGAIN, links
from holdfast.runs.executors.arrival import SHARE
from holdfast.runs.executors.machine import COMMAND, Machine
from holdfast.runs.executors.seats import Ending, Seat

ANSWERS_S = 60.0
"""Longest wait for a cluster's program."""


class Jobs(Protocol):
    """A cluster's program, as far as workers care."""

    def submit(self, seats: Sequence[Seat], command: Sequence[str]) -> None:
        """Have `command` executed once for each seat, ``--seat NUMBER`` added.

        Args:
            seats: numbered one after another.
            command: the same for all of them.

        Raises:
            HoldfastError: the cluster will not.
        """

    def ended(self) -> Iterable[tuple[int, Ending]]:
        """Numbers of seats whose process ended, and why, each once; asks the cluster at times."""

    def end(self, number: int, since: float) -> Ending | None:
        """See to it that the process of a seat is gone, unless it is queued again by itself.

        Waits for nothing: None says that it is not known yet.

        Args:
            number: of the seat.
            since: when its connection ended, by the clock of `time.monotonic`.
        """

    def close(self) -> None:
        """End all that was submitted."""


class Remote:
    """Starts workers elsewhere; see `Starter`."""

    def __init__(self, folder: Path, jobs: Jobs, here: Machine, host: str = "") -> None:
        """Open the door.

        Args:
            folder: the run folder, with this run's secret in it.
            jobs: the cluster.
            here: for stages that take no slot.
            host: under which the other machines know this one; "": its own name.
        """
        self._jobs, self._here = jobs, here
        self._door = links.Door(links.read_secret(folder), host)
        place = ["--knock", self._door.address, "--folder", str(folder)]
        self._command = [sys.executable, *COMMAND, *place]
        self._elsewhere: set[int] = set()

    def begin(self, seats: Sequence[Seat]) -> None:
        """See `Starter.begin`."""
        if light := [seat for seat in seats if not seat.slots]:
            self._here.begin(light)
        if others := [seat for seat in seats if seat.slots]:
            self._jobs.submit(others, self._command)
            self._elsewhere |= {seat.number for seat in others}

    def entered(self) -> Iterable[tuple[int, Connection]]:
        """See `Starter.entered`."""
        return [*self._here.entered(), *self._door.entered()]

    def absent(self) -> Iterable[tuple[int, Ending]]:
        """See `Starter.absent`."""
        return self._jobs.ended()

    def end(self, seat: Seat) -> Ending | None:
        """See `Starter.end`."""
        if seat.number not in self._elsewhere:
            return self._here.end(seat)
        return self._jobs.end(seat.number, seat.gone or 0.0)  # it may come back, and end again

    def close(self) -> None:
        """See `Starter.close`."""
        try:
            self._door.close()
            self._here.close()
        finally:
            with suppress(KeyboardInterrupt):
                self._jobs.close()


def said(command: Sequence[str]) -> str:
    """What one of a cluster's programs says.

    Raises:
        UsageError: it is not there; it does not take what it was given.
        HoldfastError: it does not answer.
    """
    if shutil.which(command[0]) is None:
        raise UsageError(
            f"there is no {command[0]} here", where="--on",
            remedy="give the command on a machine of the cluster, or leave --on out",
        )  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_S)
    except subprocess.TimeoutExpired as error:
        raise HoldfastError(
            f"has not answered in {ANSWERS_S:.0f} s", where=command[0],
            remedy=AGAIN,
        ) from error  # fmt: skip
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[:500]
        raise UsageError(
            words or f"ended with {done.returncode}", where=command[0],
            remedy="see hardware.slurm in `holdfast schema`",
        )  # fmt: skip
    return done.stdout


def why_ended(code: int, folder: Path, machine: str, words: str, log: str) -> Ending:
    """Why a worker's process ended on another machine, by its exit code.

    Args:
        code: of the worker.
        folder: the run folder.
        machine: where it was; "" where that is not known.
        words: what the cluster says of it.
        log: where its output is.
    """
    if code == links.NOT_SHARED:
        there = machine or "another machine"
        final = FolderError(
            f"is not the same folder on {there}", where=str(folder),
            remedy=f"{SHARE}, and run the same command again: everything finished is kept",
        )  # fmt: skip
        return Ending(words, log, final=final)
    if code == links.NOBODY_THERE:
        words += (
            "; it does not reach this machine: say under which name the others know it "
            "(`host` of hardware.slurm or hardware.ray)"
        )
    return Ending(words, log)
