"""What a coordinator and its workers say to each other, and how either proves that it belongs here.

Messages are JSON over a `multiprocessing` connection: a socket that a worker of this machine
inherits, or TCP for one elsewhere. A secret of this run lies in the run folder, for its user's
eyes alone; a worker that reads it there sees the same folder, and with it it is let in.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import socket
import threading
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, cast

from holdfast.runs import run_folder

FOLDER = run_folder.WORKERS
SECRET = "secret"
NOT_SHARED = 78
"""Exit code of a worker that does not see this run's folder (EX_CONFIG)."""
NOBODY_THERE = 69
"""Exit code of a worker that finds no coordinator (EX_UNAVAILABLE)."""
SILENT_S, ASKED_EVERY_S, ASKED, LOST_MS = 30, 10, 3, 60_000
"""After so long without a word the other end is asked, so often; unheard words get no longer."""


def send(link: Connection, what: str, **values: object) -> None:
    """Say something; an OSError where nobody is there any more."""
    link.send_bytes(json.dumps({"what": what, **values}, ensure_ascii=False).encode())


def received(link: Connection) -> dict[str, Any]:
    """What was said next.

    Raises:
        EOFError: the other end is gone.
        OSError: so is the way to it.
    """
    try:
        said = json.loads(link.recv_bytes())
    except ValueError as error:
        raise EOFError("no message of Holdfast") from error
    return said if isinstance(said, dict) else {}


def write_secret(folder: Path) -> str:
    """Make this run's secret and leave it in the run folder; workers of an earlier run lose it."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    (place / SECRET).unlink(missing_ok=True)
    value = secrets.token_hex(32)
    handle = os.open(place / SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    return value


def read_secret(folder: Path) -> str:
    """The secret of the run that is under way; "" where there is none to be seen."""
    with suppress(OSError):
        return (folder / FOLDER / SECRET).read_text(encoding="ascii").strip()
    return ""


def forget_secret(folder: Path, value: str) -> None:
    """Remove the secret of a run that has ended, unless it is another's by now."""
    if read_secret(folder) == value:
        (folder / FOLDER / SECRET).unlink(missing_ok=True)


def kept_alive(link: Connection) -> None:
    """Let the system notice within a minute that the machine at the other end is gone."""
    with suppress(OSError, AttributeError), socket.socket(fileno=os.dup(link.fileno())) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ASKED_EVERY_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, ASKED)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MS)


class Door:
    """Where workers of other machines come in; whoever does not know the secret stays outside.

    Attributes:
        address: ``host:port``, as the other machines reach it.
    """

    def __init__(self, secret: str, host: str = "") -> None:
        """Listen on a free port.

        Args:
            secret: see `write_secret`.
            host: under which the other machines know this one; "": its own name.
        """
        self._key = secret.encode()
        loopback = host in ("localhost", "127.0.0.1")
        self._listener = Listener((host if loopback else "0.0.0.0", 0), backlog=64)
        self._port, self._closed = cast(tuple[str, int], self._listener.address)[1], False
        self.address = f"{host or socket.gethostname()}:{self._port}"
        self._entered = queue.SimpleQueue[tuple[int, Connection]]()
        self._thread = threading.Thread(target=self._listen, name="door", daemon=True)
        self._thread.start()

    def entered(self) -> list[tuple[int, Connection]]:
        """Number of the seat, and connection, of each worker that has come in since."""
        found = []
        with suppress(queue.Empty):
            while True:
                found.append(self._entered.get_nowait())
        return found

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        with suppress(OSError):  # which ends the wait for the next one
            socket.create_connection(("127.0.0.1", self._port), 1.0).close()
        self._thread.join(1.0)
        self._listener.close()
        for _, link in self.entered():
            link.close()

    def _listen(self) -> None:
        while not self._closed:
            try:
                link = self._listener.accept()
            except OSError:
                continue  # it had gone again
            if self._closed:
                link.close()
                return
            threading.Thread(target=self._greet, args=(link,), daemon=True).start()

    def _greet(self, link: Connection) -> None:
        try:
            deliver_challenge(link, self._key)
            answer_challenge(link, self._key)
            kept_alive(link)
            self._entered.put((int(received(link)["seat"]), link))
        except (AuthenticationError, EOFError, OSError, KeyError, TypeError, ValueError):
            link.close()
