"""Runs another process, follows its progress, and leaves nothing of it behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from holdfast.memory.hardware.host import SCARCE, host_ram_bytes, host_total_bytes, kills
from holdfast.models.rank import Rank
from holdfast.progress import Progress, Silent
from holdfast.progress.stopping import Stop
from holdfast.runs import sealed, store

LOOK_EVERY_S = 0.1
GRACE_S = 40.0
"""torchrun gives its workers 30 seconds before it kills them."""
STOP, STOP_AT = "stop", "stop-at"
"""Beside the progress file: the work should end; after which step it does."""
TAIL_LINES = 12
TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended.

    Attributes:
        code: its exit code; negative: the signal.
        tail: its last lines.
        starved: while it ran the kernel killed a process for want of memory, or there was next to
            none left.
    """

    code: int
    tail: str
    starved: bool = False


class FiledStop(Stop):
    """Asked by a file that the process which started this one makes.

    The first of several processes sets the step at whose end all of them stop. Their gradients
    meet in every step, so the others have ended that one after it was set.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = lambda what: None) -> None:
        """Look into `folder`; `tell` gets what is worth finishing."""
        super().__init__()
        self._folder, self._tell = folder, tell
        self._due = False

    @property
    def asked(self) -> bool:
        """See `Stop.asked`."""
        return self._due

    def by(self, step: int) -> bool:
        """See `Stop.by`."""
        rank, at = Rank.current(), self._folder / STOP_AT
        if rank.is_first and not at.is_file() and (self._folder / STOP).is_file():
            store.write_text(at, str(step + (rank.world_size > 1)))
        self._due = at.is_file() and step >= int(at.read_text(encoding="utf-8"))
        return self._due

    def hold(self, what: str) -> None:
        """See `Stop.hold`."""
        super().hold(what)
        self._tell(what)

    def release(self) -> None:
        """See `Stop.release`."""
        self._tell("")
        super().release()


class ProgressFile(Silent):
    """A `Progress` that writes what it is told to a file, for the process that started this one."""

    def __init__(self, path: Path) -> None:
        """Append to `path`, one JSON object a line."""
        self._path = path
        self.stop = FiledStop(path.parent, lambda what: self._tell("hold", text=what))

    def _tell(self, what: str, **values: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, **values}, ensure_ascii=False) + "\n")

    def total(self, amount: int, what: str = "") -> None:
        """See `Progress.total`."""
        self._tell("total", amount=amount, unit=what)

    def advance(self, amount: int = 1) -> None:
        """See `Progress.advance`."""
        self._tell("advance", amount=amount)

    def kept(self, amount: int) -> None:
        """See `Progress.kept`."""
        self._tell("kept", amount=amount)

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        """See `Progress.worked`."""
        self._tell("worked", tokens=tokens, loss=loss)

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._tell("say", line=line)


def run_process(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    progress_file: Path,
    progress: Progress,
) -> ProcessEnd:
    """Run a process to its end; when this one is stopped, stop that one first.

    Args:
        arguments: the command.
        environment: all of it.
        log: gets its output, after what is there.
        progress_file: what its `ProgressFile` writes.
        progress: is told the same, and says when the work should end at its next safe point.

    Raises:
        KeyboardInterrupt: on Ctrl-C and on SIGTERM, when nothing of it is left.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, _terminable():
        start = output.tell()
        process = subprocess.Popen(
            list(arguments),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C comes to us alone, and we can end all of it
        )
        heard, killed, least = 0, kills(), 1.0
        try:
            while process.poll() is None:
                heard = _relay(progress_file, heard, progress)
                least = min(least, host_ram_bytes() / max(1, host_total_bytes()))
                if progress.stop.asked:
                    (progress_file.parent / STOP).touch()
                time.sleep(LOOK_EVERY_S)
            _relay(progress_file, heard, progress)
            progress.stop.release()
        finally:
            progress.stop.hold("")
            _stop(process)
    starved = kills() > killed or least < SCARCE
    return ProcessEnd(process.returncode, _tail(log, start), starved)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM arrives as Ctrl-C does, so that it too is cleaned up after."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then make it; a second Ctrl-C makes it at once."""
    try:
        if process.poll() is None:
            process.terminate()  # torchrun passes it on to its workers
            process.wait(GRACE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _relay(path: Path, start: int, progress: Progress) -> int:
    """Pass on the whole lines after byte `start`; returns where the next ones begin."""
    if not path.is_file():
        return start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.splitlines():
        try:
            said = sealed.parse(line)
        except (ValueError, RecursionError):
            continue  # it only says how far the work is
        match said:
            case {"what": "total", "amount": int(amount), "unit": str(unit)}:
                progress.total(amount, unit)
            case {"what": "advance", "amount": int(amount)}:
                progress.advance(amount)
            case {"what": "kept", "amount": int(amount)}:
                progress.kept(amount)
            case {"what": "worked", "tokens": int(tokens), "loss": float() | None as loss}:
                progress.worked(tokens, loss)
            case {"what": "hold", "text": str(words)}:
                progress.stop.hold(words)
            case {"what": "say", "line": str(words)}:
                progress.say(words)
    return start + len(whole)


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(start, file.tell() - TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])
