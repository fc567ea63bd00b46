"""The process of a tracker: follows the run folder of a study, and sends what is new.

Its standard input is the study's sign of life: when that ends, it sends what is left and ends too,
within `END_S` whatever hangs. It has less right to the processor than the study.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.report.trackers import END_S, Tracker, build
from holdfast.report.trackers.sending import alone, open_sending, said

LOOK_EVERY_S, PAUSE_S = 2.0, 60.0
"""How often the run folder is looked at; and the longest pause after a failure."""


def follow(
    tracker: Tracker, folder: Path, ended: threading.Event, say: Callable[[str], None]
) -> bool:
    """Send what comes until `ended`, telling a failure once; whether everything has arrived."""
    sending, pause, failed = open_sending(tracker, folder), LOOK_EVERY_S, False
    while True:
        last = ended.wait(pause)
        try:
            try:
                sending.once()
            finally:
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
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # it hangs, and so may what it has started
        os._exit(1)

    with suppress(OSError):
        os.nice(5)
    threading.Thread(target=listen, name="study", daemon=True).start()
    try:
        tracker = build(name, options, folder, "track")
        with alone(tracker, folder, wait_s=-1):  # the one of a study that was killed is ending
            whole = follow(tracker, folder, ended, say)
    except HoldfastError as error:
        say(error.message)
        return error.exit_code
    os._exit(0 if whole else 1)  # libraries that wait for a server at exit have had their time


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
