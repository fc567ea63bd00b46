"""Joins the trainings of a run that another machine carries out.

``python -m holdfast.train.launch.follow RUN`` is given on every further machine of a run with
``hardware.nodes``, by hand or by ``srun``. It waits for a training to begin, starts the same
processes for it here, and waits for the next one; it ends when the run does. A killed run falls
silent: whoever holds a run folder touches its lock. The run folder is on storage that all see.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from holdfast.errors import HoldfastError, WorkerLost
from holdfast.progress import Silent
from holdfast.runs import run_folder
from holdfast.train.job import FOLDER, read_job
from holdfast.train.launch.process import run_process
from holdfast.train.launch.torchrun import PARENT, command, environment

LOOK_EVERY_S = 1.0
SILENT_S = 180.0
"""After so long without a sign of it the run is over; a network's disk is up to a minute late."""


def follow(folder: Path, wait_s: float = LOOK_EVERY_S, silent_s: float = SILENT_S) -> int:
    """Join every training of the run in `folder` until it ends; returns how many there were.

    Raises:
        FolderError: no run folder.
        WorkerLost: whoever carries the run out has not been heard of for `silent_s`.
    """
    run_folder.check_run(folder, must_exist=True)
    begun, joined, seen = False, 0, set[tuple[Path, int]]()
    beat, heard = run_folder.last_beat(folder), -1.0  # what is there now may be of a killed run
    while True:
        if (last := run_folder.last_beat(folder)) != beat:
            beat, heard = last, time.monotonic()
        held = (folder / run_folder.HOLDER).is_file()
        if begun and not held:
            return joined
        begun = held and heard > 0
        if begun and time.monotonic() - heard > silent_s:
            raise WorkerLost(
                f"the process that carries the run out has not been heard of for {silent_s:.0f} s",
                where=str(folder),
                remedy="give its command again on the first machine, and this one here",
            )
        for file, state in _jobs(folder) if begun else ():
            if (file, state) in seen:
                continue
            seen.add((file, state))
            plan = read_job(file).plan
            if plan is None or plan.nodes < 2:
                continue
            joined += 1
            variables = environment(plan, os.environ) | {PARENT: str(os.getpid())}
            log = file.with_name(f"output-{socket.gethostname()}-{os.getpid()}.log")
            ended = run_process(
                command(plan, file), variables, log, log.with_suffix(".none"), Silent()
            )
            print(f"{file.parent.parent.name}: ended with {ended.code}", flush=True)
        time.sleep(wait_s)


def _jobs(folder: Path) -> Iterator[tuple[Path, int]]:
    """Each job that this run has written for a training that is not finished, and its state."""
    try:
        since = (folder / run_folder.HOLDER).stat().st_mtime_ns
        found = (folder.glob(f"train/*/{deep}*.tmp/{FOLDER}/job.json") for deep in ("", "*/"))
        for file in sorted(chain(*found)):
            if (written := file.stat().st_mtime_ns) >= since:
                yield file, written
    except FileNotFoundError:  # it has just been finished
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Follow the run that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    given = parser.parse_args(arguments)
    try:
        print(f"{follow(given.folder.absolute())} trainings joined", flush=True)
    except HoldfastError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
