"""What Ctrl-C does: once it waits for what is worth finishing, twice it stops at once.

Whoever does such work says so (`Stop.hold`), looks whether to stop (`Stop.asked`), and says when a
safe point is reached (`Stop.release`). Everywhere else the first Ctrl-C interrupts, since every
file is written as a whole. Python's own handlers wait for a call into C to return, and a backward
pass is one; so a thread reads the signals as well: it says what is waited for, and ends the process
when it does not end by itself. SIGTERM is taken the same way.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

TOLD_AFTER_S = 1.0
"""What has not been interrupted after so long is told of."""
GRACE_S = 5.0
"""Seconds after the second signal in which the process may still tidy up."""
AGAIN = "press Ctrl-C again to stop at once"


class Stop:
    """Whether somebody wants the work to end, and what is worth finishing first.

    Attributes:
        signals: that came, in order.
        doing: what is worth finishing; "": the work may be interrupted anywhere.
    """

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.signals: list[int] = []
        self.doing = ""

    @property
    def asked(self) -> bool:
        """Whether the work should end at the next safe point."""
        return bool(self.signals)

    def by(self, step: int) -> bool:
        """Whether it should end after a step of training, which is done."""
        return self.asked

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signals[0] if self.signals else signal.SIGINT)

    def hold(self, what: str) -> None:
        """What follows is worth finishing, up to `release`; `what` says it in words."""
        self.doing = what

    def release(self) -> None:
        """A safe point: nothing would be lost now.

        Raises:
            KeyboardInterrupt: somebody had asked.
        """
        self.doing = ""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def listen(say: Callable[[str], None], last: Callable[[], None]) -> Iterator[Stop]:
    """Take Ctrl-C and SIGTERM for as long as this lasts; elsewhere than in a main thread, nothing.

    Args:
        say: gets one line.
        last: says the last words of a process that is ended the hard way.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.signals.append(number)
        if len(stop.signals) > 2 or (len(stop.signals) == 1 and stop.doing):
            return  # by the third the thread has taken over
        raise KeyboardInterrupt

    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.getsignal(number)
        if before[number] is not signal.SIG_IGN:  # as below nohup, or in the background
            signal.signal(number, interrupt)
    inside, outside = socket.socketpair()
    outside.setblocking(False)
    woken = signal.set_wakeup_fd(outside.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _deaf(outside))  # its signals are not ours
    ended = threading.Event()
    given = (stop, inside, ended, say, last)
    thread = threading.Thread(target=_watch, args=given, name="stopping", daemon=True)
    thread.start()
    try:
        yield stop
    finally:
        ended.set()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        outside.close()  # which ends the thread
        thread.join(TOLD_AFTER_S)
        inside.close()


def _watch(
    stop: Stop,
    signals: socket.socket,
    ended: threading.Event,
    say: Callable[[str], None],
    last: Callable[[], None],
) -> None:
    """Say what is waited for; after the second signal wait no longer than `GRACE_S`."""
    came = 0
    while data := signals.recv(64):
        for number in data:
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            came += 1
            if came == 1:
                if doing := stop.doing:
                    say(f"Stopping: finishing {doing}; {AGAIN}")
                elif not ended.wait(TOLD_AFTER_S):
                    say(f"Stopping as soon as the work lets itself be interrupted; {AGAIN}")
            elif came == 2 and not ended.wait(GRACE_S):
                with suppress(BaseException):
                    last()
                _leave(128 + number)


def _deaf(outside: socket.socket) -> None:
    with suppress(ValueError, OSError):
        if outside.fileno() >= 0:
            signal.set_wakeup_fd(-1)


def _leave(code: int) -> None:
    """End this process now: files are written as wholes, and the system lets go of locks."""
    with suppress(OSError, ValueError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h")  # bars hide the cursor
    os._exit(code)


def exit_with_parent(parent: int = 0) -> None:
    """End this process when process `parent`, or the one that started this one, is gone.

    A process in a session of its own, as torchrun's workers are, hears no signal to the group.

    Args:
        parent: of the process that started this one, for example; 0: that one alone is watched.
    """
    starter = os.getppid()

    def look() -> None:
        while os.getppid() == starter and (not parent or _alive(parent)):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, name="parent", daemon=True).start()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
