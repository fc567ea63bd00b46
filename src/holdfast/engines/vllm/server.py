"""One vLLM server that Holdfast started: on a free port of the loopback, with a key of its own.

The key goes to the server through its environment and to nowhere else. A warden
(`holdfast.engines.vllm.warden`) ends the server when this process does, however that ends.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import PrivateAttr

from holdfast import endpoint
from holdfast.endpoint.client import Connection
from holdfast.endpoint.faults import brief, own_words, parsed
from holdfast.endpoint.limits import RateLimiter, Spending
from holdfast.endpoint.running import Running
from holdfast.endpoint.settings import Blot
from holdfast.engines.vllm.program import Program, environment_of_its_own
from holdfast.engines.vllm.settings import Settings
from holdfast.errors import EndpointError
from holdfast.progress import Silent

UP_S = 1800.0
"""Longest wait until a server answers: a large model comes slowly from some disks."""
LOOK_S = 0.2
ASIDE_S = 10.0
"""Longest wait for an answer that needs no model."""
ANSWER_S = 86_400.0
"""Longest wait for one answer; whoever asks looks whether any comes."""
PORTS = 5
"""Ports that are tried where another program takes one before the server does."""
WARDEN = Path(__file__).with_name("warden.py")
GRACE_S = 10.0
"""How long a server may take to end before it is killed."""
END_S = GRACE_S + 10
"""Longest wait for the warden."""
TAIL_LINES, LETTERS, CAUSES = 12, 300, 4
"""Of a server's log in a message: the last lines, cut, and before them those that name an error."""
READ_BYTES = 1 << 17
ERROR = re.compile(r"\w(Error|Exception)\b")
TAKEN = re.compile(r"address already in use|Errno 98\b", re.IGNORECASE)
NO_ROOM = re.compile(
    r"out of memory|OutOfMemory|\bOOM\b|No available memory for the cache|KV cache is needed"
    r"|less than (desired|requested) (GPU )?memory|larger than the maximum number of tokens that"
    r"|Cannot allocate memory|bad_alloc|MemoryError|not enough memory|kv cache allocation"
    r"|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
KILLED = -9
"""The status of a process that was killed, as the system does for want of memory."""


class NoRoom(Exception):
    """A server did not start because memory does not hold what it was to have."""


class Died(Exception):
    """A server that ran is gone, or does not answer as it should.

    Attributes:
        forgotten: it runs, but does not know the model any more that it was asked for.
    """

    def __init__(self, why: str, forgotten: bool = False) -> None:
        """Say why."""
        super().__init__(why)
        self.forgotten = forgotten


class _Local(endpoint.Server):
    """The server's address, with a key that no variable of this process's environment holds."""

    _key: str = PrivateAttr("")

    def key(self) -> str:
        """See `endpoint.Server.key`."""
        return self._key


class Server:
    """A running server; `start` before anything else, `stop` whatever happens.

    Attributes:
        settings: what it was started with.
        name: under which it serves the model; no other server has it.
        endpoint: for adapters.
    """

    def __init__(self, program: Program, settings: Settings) -> None:
        """Take both; nothing is started."""
        self.program, self.settings = program, settings
        self.name = f"holdfast-{secrets.token_hex(6)}"
        self._secret = secrets.token_urlsafe(24)
        self._blot = Blot(self._secret)
        self._warden: subprocess.Popen[bytes] | None = None
        self._ended, self._pid, self._code = threading.Event(), 0, 0
        self._log: Path | None = None
        self._open = ExitStack()

    def start(self, say: Callable[[str], None]) -> None:
        """Start it and wait until it answers.

        Raises:
            NoRoom: memory does not hold it.
            EndpointError: it did not start for another reason; with the end of its log.
        """
        began = time.monotonic()
        for last in (*[False] * (PORTS - 1), True):
            say(f"starting vLLM {self.program.version}: {self.settings.words}")
            try:
                self._begin()
                if self._up():
                    say(f"vLLM answers after {time.monotonic() - began:.0f} s")
                    return
            except BaseException:
                self.stop()
                raise
            said, code, kept = self.tail(), self._code, self._log
            if TAKEN.search(said) and not last:
                self.stop()
                continue
            if NO_ROOM.search(said) or code == KILLED:
                self.stop()
                raise NoRoom(_last_line(said, NO_ROOM) or "it was killed while it started")
            ended = f"ended with status {code}" if not self.alive else "does not answer"
            self.stop(keep=True)
            raise EndpointError(
                f"vLLM {self.program.version} was started and {ended}. The end of its log:\n"
                f"{said or 'it said nothing'}",
                fault="down",
                where="answer.engine: vllm",
                remedy=f"the whole log: {kept}; or let the models answer here: answer.engine: hf",
            )

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._warden is not None and not self._ended.is_set()

    @property
    def where(self) -> str:
        """For messages."""
        return f"vLLM {self.program.version} at {self.endpoint.server.url}"

    def ask(self, body: dict[str, object]) -> dict[str, Any]:
        """Put one question to it; for several threads.

        Raises:
            Died: it is gone.
            EndpointError: it refuses the question.
        """
        try:
            status, text = self._connection.call("POST", "completions", body, ANSWER_S)
        except EndpointError as error:
            raise Died(error.message) from None
        if status == 200:
            with suppress(ValueError):
                data = parsed(text)
                if isinstance(data, dict):
                    return data
        if status >= 500 or status in (200, 404):
            raise Died(f"it says {status}: {own_words(text)}", forgotten=status == 404)
        raise EndpointError(
            f"the server says {status}: {own_words(text)}",
            fault="refused",
            where=self.where,
            remedy="please report this; answer.engine: hf asks here",
        )

    def ended(self, seconds: float) -> bool:
        """Whether its process ends within so many seconds."""
        return self._ended.wait(seconds)

    def tail(self) -> str:
        """The last lines of its log, and the last errors above them, without the key."""
        if self._log is None or not self._log.is_file():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - READ_BYTES))
            every = file.read().decode("utf-8", "replace").splitlines()
        lines = [one[:LETTERS].rstrip() for one in every if one.strip()]
        above, last = lines[:-TAIL_LINES], lines[-TAIL_LINES:]
        memory = [one for one in above if NO_ROOM.search(one)][-1:]
        causes = [one for one in above if ERROR.search(one) and one not in memory][-CAUSES:]
        return self._blot.message("\n".join([*memory, *causes, *last]))

    def stop(self, keep: bool = False) -> None:
        """End it, and all processes that it began; returns when they are gone.

        Args:
            keep: its log.
        """
        warden, self._warden = self._warden, None
        if warden is not None and (pipe := warden.stdin) is not None:
            with suppress(OSError):
                os.write(pipe.fileno(), b"keep" * keep)
            with suppress(OSError):
                pipe.close()
            try:
                warden.wait(END_S)
            except subprocess.TimeoutExpired:
                warden.kill()
                warden.wait()
            self._reader.join()
            if self._pid and not self._told_end:  # the warden itself was killed
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, signal.SIGKILL)
        self._open.close()
        if self._log is not None and not keep:
            shutil.rmtree(self._log.parent, ignore_errors=True)
        elif self._log is not None and self._log.is_file():
            text = self._log.read_text(encoding="utf-8", errors="replace")
            self._log.write_text(self._blot(text), encoding="utf-8")

    def _begin(self) -> None:
        """Start the warden, and it the server."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._ended, self._pid, self._code, self._told_end = threading.Event(), 0, 0, False
        self._log = Path(tempfile.mkdtemp(prefix="holdfast-vllm-")) / "server.log"
        own = {**environment_of_its_own(), **self.settings.variables()}
        command = self.settings.command(self.program, self.name, port)
        self._warden = warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WARDEN), str(self._log), str(GRACE_S), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, env=own | {"VLLM_API_KEY": self._secret}, bufsize=0,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._listen, args=(warden.stdout,), daemon=True)
        self._reader.start()
        server = _Local(url=f"http://127.0.0.1:{port}/v1", model=self.name, concurrency=256)
        server._key = self._secret
        self.endpoint = endpoint.Endpoint(server)
        self._open = ExitStack()
        self._connection = self._open.enter_context(
            Connection(server, Spending(server), RateLimiter(None), 0.0, Silent())
        )

    def _listen(self, told: IO[bytes]) -> None:
        """Read what the warden says: the server's process, and its end."""
        for line in told:
            words = line.split()
            if words[0] == b"ended":
                self._code, self._told_end = int(words[1]), True
            else:
                self._pid = int(words[0])
        told.close()
        self._ended.set()

    def _up(self) -> bool:
        """Wait until it answers by its own name; False: it ended, or took too long."""
        until = time.monotonic() + UP_S
        while time.monotonic() < until:
            if self._ended.wait(LOOK_S):
                return False
            with suppress(EndpointError):
                status, _ = self._connection.call("GET", "/health", None, ASIDE_S)
                if status == 200:
                    Running(self._connection, self.endpoint.server).check_model()
                    return True
        return False


def _last_line(text: str, pattern: re.Pattern[str]) -> str:
    """The last line in which something is found, in short."""
    lines = [one for one in text.splitlines() if pattern.search(one)]
    return brief(lines[-1]) if lines else ""
