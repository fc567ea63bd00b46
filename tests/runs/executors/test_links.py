"""Who is let in, and does an error survive the way?"""

from __future__ import annotations

import socket
import stat
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from holdfast import errors
from holdfast.errors import DoesNotFit, EndpointError, HoldfastError, OutOfMemory, TrainingError
from holdfast.runs.executors import links


def test_a_secret_is_its_users_alone_and_the_newest_counts(tmp_path: Path) -> None:
    first = links.write_secret(tmp_path)
    file = tmp_path / links.FOLDER / links.SECRET
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and links.read_secret(tmp_path) == first
    second = links.write_secret(tmp_path)
    assert second != first
    links.forget_secret(tmp_path, first)
    assert links.read_secret(tmp_path) == second, "another run's is left alone"
    links.forget_secret(tmp_path, second)
    assert links.read_secret(tmp_path) == ""


def test_only_those_who_know_the_secret_come_in(tmp_path: Path) -> None:
    secret = links.write_secret(tmp_path)
    door = links.Door(secret, "127.0.0.1")
    host, port = door.address.split(":")
    silent = socket.create_connection((host, int(port)))  # keeps nobody else out
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client((host, int(port)), authkey=b"guessed")
    with Client((host, int(port)), authkey=secret.encode()) as link:
        links.send(link, "here", seat=3, machine="node1")
        until = time.monotonic() + 10
        while not (entered := door.entered()) and time.monotonic() < until:
            time.sleep(0.01)
        (seat, other), *more = entered
        assert seat == 3 and not more
        links.send(other, "make", stage="ü")
        assert links.received(link) == {"what": "make", "stage": "ü"}
        other.close()
        with pytest.raises(EOFError):
            links.received(link)
    silent.close()
    door.close()
    with pytest.raises(OSError):
        Client((host, int(port)), authkey=secret.encode())


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("a", where="b", remedy="c"),
        DoesNotFit("a"),
        OutOfMemory("a", phase="step", where="b"),
        EndpointError("a", fault="busy", remedy="c"),
    ],
)
def test_errors_survive_the_way(error: HoldfastError) -> None:
    error.exit_code = 7
    found = errors.from_json(errors.as_json(error))
    assert type(found) is type(error) and found.args == error.args
    assert vars(found) == vars(error)


@pytest.mark.parametrize("kind", ["Path", "annotations", "NoSuchError", None])
def test_a_stranger_among_errors_is_the_plain_one(kind: object) -> None:
    assert type(errors.from_json({"type": kind, "message": "a"})) is HoldfastError
