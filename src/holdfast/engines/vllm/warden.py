"""Keeps a server from outliving whoever started it; a script of the standard library alone.

    python -I -S warden.py LOG GRACE_S COMMAND...

Starts COMMAND in a session of its own, with LOG for what it says, and writes its process id. It
ends the command's whole process group, first by SIGTERM and after GRACE_S by SIGKILL, when the
standard input ends, which it does whenever the parent dies, be it by kill -9; when the parent is
another process than at the beginning; or when the command itself ends. What left the group becomes
a child of this process where the system allows that (Linux), and is killed too. Then the folder of
LOG is removed, unless something was written to the standard input.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

LOOKED_S = 1.0
"""How often it looks whether its parent is still there."""
SUBREAPER, DEATH_SIGNAL = 36, 1
"""Numbers of Linux's prctl."""


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def main(log: str, grace_s: float, command: list[str]) -> int:
    """Start the command, wait for the end of either side, leave nothing behind."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends when its parent does
    prctl(SUBREAPER, 1)
    parent = os.getppid()
    with open(log, "ab") as file:
        try:
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, preexec_fn=begun,
            )  # fmt: skip
        except OSError as error:
            file.write(f"{command[0]} cannot be started: {error}\n".encode())
            say("ended 127")
            return 1
    say(str(server.pid))
    keep = wait(server, parent)
    code = end(server, grace_s)
    say(f"ended {code}")
    if not keep:
        shutil.rmtree(os.path.dirname(log), ignore_errors=True)
    return 0


def begun() -> None:
    """In the command's process: usual signals, and none after this process was killed itself."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    prctl(DEATH_SIGNAL, signal.SIGKILL)


def say(line: str) -> None:
    """One line for the parent, if it is still there."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


def wait(server: "subprocess.Popen[bytes]", parent: int) -> bool:
    """Wait until the parent or the server has gone; whether the log is to be kept."""
    ends: list[int] = [0]
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            ends.append(os.pidfd_open(server.pid))
    keep = False
    while not ended(server):
        ready, _, _ = select.select(ends, [], [], LOOKED_S)
        if 0 in ready:
            if not os.read(0, 64):
                break
            keep = True
        if os.getppid() != parent:
            break
    else:
        keep = True  # whoever asks why it ended reads the log
    return keep


def ended(server: "subprocess.Popen[bytes]") -> bool:
    """Whether the server has ended; it is not reaped, so that its group's number stays its own."""
    if not hasattr(os, "waitid"):
        return server.poll() is not None
    try:
        return os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def end(server: "subprocess.Popen[bytes]", grace_s: float) -> int:
    """End the server's group and what left it; the server's exit status."""
    if not ended(server):
        signal_group(server.pid, signal.SIGTERM)
        until = time.monotonic() + grace_s
        while not ended(server) and time.monotonic() < until:
            time.sleep(0.05)
    signal_group(server.pid, signal.SIGKILL)
    code = server.wait()
    while children := [int(one) for one in own_children()]:
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
    return code


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, if there is still one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def own_children() -> list[str]:
    """Processes that became children of this one; [] where the system does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
