"""Has trackers follow a study: a process for each, so that nothing they do touches the study.

What such a process does is in `holdfast.report.trackers.follower`. It ends when the study does,
however the study ends, and has no GPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.config.arms import Steps
from holdfast.progress import Progress
from holdfast.report.trackers import END_S, FOLDER, named

PROGRAM = "holdfast.report.trackers.follower"


@contextmanager
def following(track: Steps, folder: Path, progress: Progress) -> Iterator[None]:
    """Have a study's trackers follow its run folder for as long as this lasts."""
    started: list[_Follower] = []
    for name, options in named(track).items():
        try:
            started.append(_Follower(name, options, folder, progress))
        except OSError as error:  # no room for a log, or for one more process
            progress.say(f"tracking with {name} cannot begin: {error.strerror}")
    within_s = END_S / 6  # unless the study comes to its end
    try:
        yield
        within_s = END_S
    finally:
        for one in started:
            one.let_go()
        end = time.monotonic() + within_s
        for one in started:
            one.end(max(0.1, end - time.monotonic()))


class _Follower:
    """A tracker's process, as the study sees it."""

    def __init__(
        self, name: str, options: Mapping[str, object], folder: Path, progress: Progress
    ) -> None:
        self._name, self._say = name, progress.say
        (place := folder / FOLDER).mkdir(parents=True, exist_ok=True)
        with (place / "output.log").open("ab") as log:
            given = str(folder.absolute()), name, json.dumps(options)
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", PROGRAM, *given],  # -u: what it prints is not lost
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        self._heard = threading.Thread(target=self._hear, name=f"tracking {name}", daemon=True)
        self._heard.start()

    def _hear(self) -> None:
        for line in self._process.stdout or ():
            self._say(f"tracking with {self._name}: {line.decode('utf-8', 'replace').rstrip()}")

    def let_go(self) -> None:
        """Tell it that the study has ended."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def end(self, within_s: float) -> None:
        """Wait for what it still sends, then make it end; say so where it did not get all."""
        try:
            code = self._process.wait(within_s)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            code = self._process.wait()
        self._heard.join(1.0)
        if not self._heard.is_alive() and self._process.stdout is not None:
            self._process.stdout.close()
        if code:
            self._say(
                f"tracking with {self._name} is not complete: `holdfast track` sends the rest "
                f"(see {FOLDER}/output.log in the run folder)"
            )
