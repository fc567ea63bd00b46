"""Ctrl-C: what is worth finishing is finished, and the second ends a process that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from holdfast.progress.stopping import Stop, listen


def _never() -> None:
    raise AssertionError("it ended by itself")


def _press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def test_it_interrupts_where_nothing_is_worth_finishing() -> None:
    with listen(lambda line: None, _never) as stop, pytest.raises(KeyboardInterrupt):
        _press()
        threading.Event().wait(5)
    assert stop.code == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_waits_for_the_safe_point_and_says_so(number: int, code: int) -> None:
    said: list[str] = []
    told = threading.Event()
    before = signal.getsignal(number)

    def say(line: str) -> None:
        said.append(line)
        told.set()

    done = []
    with listen(say, _never) as stop:
        stop.hold("step 3")
        _press(number)
        assert told.wait(5)
        done.append(3)
        with pytest.raises(KeyboardInterrupt):
            stop.release()
    assert said == ["Stopping: finishing step 3; press Ctrl-C again to stop at once"]
    assert done == [3] and stop.code == code
    assert signal.getsignal(number) is before


def test_twice_it_does_not_wait() -> None:
    with listen(lambda line: None, _never) as stop:
        stop.hold("step 3")
        _press()
        with pytest.raises(KeyboardInterrupt):
            _press()
            threading.Event().wait(5)


HANGS = """
import ctypes, os, signal, sys, threading
from holdfast.progress import stopping
stopping.GRACE_S = stopping.TOLD_AFTER_S = 0.1
tell = lambda line: print(line, flush=True)
with stopping.listen(tell, lambda: tell("last words")) as stop:
    if len(sys.argv) > 1:
        stop.hold("this")
    libc = ctypes.CDLL(None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a call that nothing interrupts
    threading.Timer(0.5, tell, ["here"]).start()  # once the main thread is in the call
    libc.sleep(30)
"""


@pytest.mark.parametrize("held", [True, False])
def test_twice_it_ends_a_call_that_does_not_return(held: bool) -> None:
    code = [sys.executable, "-c", HANGS, *["held"] * held]
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        first = process.stdout.readline()
        assert first.startswith("Stopping: finishing this" if held else "Stopping as soon as")
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "last words\n"
        assert process.wait(10) == 130


def test_elsewhere_than_in_the_main_thread_nobody_listens() -> None:
    found: list[Stop] = []

    def run() -> None:
        with listen(lambda line: None, _never) as stop:
            found.append(stop)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not found[0].asked and signal.getsignal(signal.SIGINT) is before
