"""Workers that are processes of this machine, each with GPUs or a share of the cores of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from holdfast.runs.executors import links
from holdfast.runs.executors.seats import Ending, Seat

COMMAND = ("-m", "holdfast.runs.executors.worker")
ENDS_S = 5.0
"""A worker whose connection is closed is gone in less."""
Variables = Callable[[tuple[int, ...]], Mapping[str, str]]
"""The whole environment of a worker that holds some slots."""


class Machine:
    """Starts processes here; a socket that only the two of them have joins each to this one."""

    def __init__(self, folder: Path, variables: Variables) -> None:
        """Start nothing yet.

        Args:
            folder: the run folder.
            variables: see `Variables`.
        """
        self._folder, self._variables = folder, variables
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._new: list[tuple[int, Connection]] = []

    def begin(self, seats: Sequence[Seat]) -> None:
        """See `Starter.begin`."""
        for seat in seats:
            ours, theirs = socket.socketpair()
            number = theirs.fileno()
            with theirs, self._log(seat).open("ab") as output:
                self._processes[seat.number] = subprocess.Popen(
                    [sys.executable, *COMMAND, "--link", str(number)],
                    env=dict(self._variables(seat.slots)),
                    pass_fds=[number],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C comes to the coordinator alone
                )
            self._new.append((seat.number, Connection(ours.detach())))

    def entered(self) -> Iterable[tuple[int, Connection]]:
        """See `Starter.entered`: whoever was started is there, and hears once it can."""
        new, self._new = self._new, []
        return new

    def absent(self) -> Iterable[tuple[int, Ending]]:
        """See `Starter.absent`: the end of a process is heard over its socket."""
        return ()

    def end(self, seat: Seat) -> Ending:
        """See `Starter.end`."""
        process = self._processes.pop(seat.number, None)
        if process is None:  # Ctrl-C came while it was ended
            return Ending("it is gone", str(self._log(seat)))
        killed = False
        try:
            process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            killed = True
        finally:  # itself, and what it has started
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Ending(_words(process.returncode, killed), str(self._log(seat)))

    def close(self) -> None:
        """See `Starter.close`."""
        for number in list(self._processes):
            self.end(Seat(number))

    def _log(self, seat: Seat) -> Path:
        folder = self._folder / links.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"worker-{seat.number}.log"


def _words(code: int, killed: bool) -> str:
    if killed:
        return "it closed its connection, and did not end"
    if code < 0:
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with code {code}"
