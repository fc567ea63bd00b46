"""Follows a study with its trackers: a process for each, so that nothing they do touches the study.

The process reads the run folder every few seconds and sends what is new. Its standard input is the
study's sign of life: when that ends, it sends what is left and ends too, within `END_S` whatever
hangs. It has no GPU, and less right to the processor than the study.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.config.arms import Steps
from holdfast.errors import HoldfastError
from holdfast.progress import Progress
from holdfast.report.trackers import FOLDER, Tracker, build
from holdfast.report.trackers.sending import alone, open_sending, said

LOOK_EVERY_S, PAUSE_S = 2.0, 60.0
"""How often the run folder is looked at; and the longest pause after a failure."""
END_S = 30.0
"""So long a tracker may go on when its study has ended."""


def follow(
    tracker: Tracker, folder: Path, ended: threading.Event, say: Callable[[str], None]
) -> bool:
    """Send what comes until `ended`, telling a failure once; whether everything has arrived."""
    sending, pause, failed = open_sending(tracker, folder), LOOK_EVERY_S, False
    while True:
        last = ended.wait(pause)
        try:
            sending.once()
            if last:
                sending.finish()
            if failed:
                say("is reached again, and has got what was missing")
            pause, failed = LOOK_EVERY_S, False
        except Exception as error:  # whatever a tracker raises, the study goes on
            pause = min(PAUSE_S, 2 * pause)
            if not failed:
                say(f"{said(error)}; the study goes on without it")
            failed = True
        if last:
            return not failed


def main(arguments: Sequence[str]) -> int:
    """Follow the study of a run folder, as a process of its own; returns the exit code.

    Args:
        arguments: the run folder, the tracker's name, its settings as JSON.
    """
    folder, name, options = Path(arguments[0]), arguments[1], json.loads(arguments[2])
    voice = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to the log
    ended = threading.Event()

    def say(line: str) -> None:
        with suppress(OSError):  # a study that was killed hears nothing
            print(line, file=voice, flush=True)

    def listen() -> None:
        while os.read(0, 1 << 12):
            pass
        ended.set()
        time.sleep(END_S)
        os._exit(1)  # it hangs; nothing else would end it

    with suppress(OSError):
        os.nice(5)
    threading.Thread(target=listen, name="study", daemon=True).start()
    try:
        tracker = build(name, options, folder, "track")
        with alone(tracker, folder):
            whole = follow(tracker, folder, ended, say)
    except HoldfastError as error:
        say(error.message)
        return error.exit_code
    os._exit(0 if whole else 1)  # libraries that wait for a server at exit have had their time


@contextmanager
def following(track: Steps, folder: Path, progress: Progress) -> Iterator[None]:
    """Have a study's trackers follow its run folder for as long as this lasts."""
    pairs = [pair for one in track for pair in one.items()]
    started = [_Follower(name, options or {}, folder, progress) for name, options in pairs]
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
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder.absolute()), name, json.dumps(options)],
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
