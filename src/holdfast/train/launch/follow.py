"""Joins the trainings of a run that another machine carries out.

``python -m holdfast.train.launch.follow RUN`` is given on every further machine of a run with
``hardware.nodes``, by hand or by ``srun``. It waits for a training to begin, starts the same
processes for it here, and waits for the next one; it ends when the run does. The run folder is on
storage that all machines see.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.progress import Silent
from holdfast.runs import run_folder
from holdfast.train.job import FOLDER, read_job
from holdfast.train.launch.process import run_process
from holdfast.train.launch.torchrun import PARENT, command, environment

LOOK_EVERY_S = 1.0
HOLDER = "lock.json"
"""In a run folder while it is held, and so that a run is under way."""


def follow(folder: Path, wait_s: float = LOOK_EVERY_S) -> int:
    """Join every training of the run in `folder` until it ends; returns how many there were."""
    run_folder.check_run(folder, must_exist=True)
    begun, joined, seen = False, 0, set[tuple[Path, int]]()
    while True:
        held = (folder / HOLDER).is_file()
        if begun and not held:
            return joined
        begun = begun or held
        for file, state in _jobs(folder) if held else ():
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
        since = (folder / HOLDER).stat().st_mtime_ns
        for file in sorted(folder.glob(f"train/*/*.tmp/{FOLDER}/job.json")):
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
