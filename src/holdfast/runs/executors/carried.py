"""A run folder that a node does not see: stages come there to be read, and what is made comes back.

A worker on such a node has a folder of its own for as long as it lives. What its stages need comes
once, however many of them read it; what it has made is in the run's folder before it says so. All
goes through a `Depot`, which is where the run folder is: on Ray an actor on the node of `holdfast`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from holdfast.errors import FolderError, HoldfastError
from holdfast.runs import records, sealed, store, temporary
from holdfast.runs.executors import AGAIN, links

CHUNK_BYTES = 16 << 20
"""So much goes at a time: nothing is held in memory as a whole."""
GIVEN = ("study.yaml", records.MARKER)
"""What of a run folder every worker needs, besides its stages."""


class Depot:
    """Reads and writes the run folder for those who do not see it."""

    def __init__(self, folder: str) -> None:
        """Serve a run folder."""
        self._folder = Path(folder)

    def names(self, stage: str) -> list[str]:
        """The files of a finished stage, its record last."""
        record = records.finished(self._folder / stage)
        return [*(name for name in record["files"] if (self._folder / stage / name).is_file()),
                store.RECORD]  # fmt: skip

    def read(self, name: str, offset: int) -> bytes:
        """At most `CHUNK_BYTES` of a file of the run folder; nothing where it ends or is not."""
        with suppress(FileNotFoundError), self._inside(name).open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)
        return b""

    def begin(self, stage: str) -> str:
        """Where a stage that comes is put together: a name in the run folder."""
        final = self._inside(stage)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = temporary.beside(final)
        part.mkdir()
        return str(part.relative_to(self._folder))

    def write(self, name: str, data: bytes) -> None:
        """Add to a file of the run folder."""
        file = self._inside(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as output:
            output.write(data)

    def finish(self, part: str, stage: str) -> bool:
        """Put a stage that has come as a whole in its place.

        Returns:
            Whether it is the stage of the run; False: another worker's was there first.

        Raises:
            FolderError: it is not what was sent.
        """
        work, final = self._inside(part), self._inside(stage)
        record = records.finished(work)
        for name, (size, digest) in record["files"].items():
            file = work / name
            if not file.is_file() or (file.stat().st_size, sealed.digest_of_file(file)) != (
                size, digest,
            ):  # fmt: skip
                raise FolderError(
                    "is not what the worker has sent", where=str(file),
                    remedy=AGAIN,
                )  # fmt: skip
        if os.path.lexists(final):
            there = records.read(final) or {}
            if all(there.get(key) == record[key] for key in ("fingerprint", "needs")):
                temporary.remove_tree(work)
                return False
            temporary.remove_tree(final)
        os.replace(work, final)
        return True

    def _inside(self, name: str) -> Path:
        found = self._folder / name
        if not name or not found.resolve().is_relative_to(self._folder.resolve()):
            raise ValueError(f"{name!r} is not in the run folder")
        return found


class Copy:
    """The folder of one worker, and the way between it and the run's."""

    def __init__(self, folder: Path, depot: Depot, secret: str) -> None:
        """Bring what every worker needs into an empty folder."""
        self._folder, self._depot = folder, depot
        for name in GIVEN:
            self._bring(name, folder / name)
        (folder / links.FOLDER).mkdir()
        store.write_text(folder / links.FOLDER / links.SECRET, secret)

    def fetch(self, stage: str) -> None:
        """Bring a finished stage, unless it is there."""
        final = self._folder / stage
        if (final / store.RECORD).is_file():
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        part = temporary.beside(final)
        for name in self._depot.names(stage):
            self._bring(f"{stage}/{name}", part / name)
        os.replace(part, final)

    def _bring(self, name: str, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        with to.open("wb") as file:
            while data := self._depot.read(name, file.tell()):
                file.write(data)

    def deliver(self, stage: str) -> None:
        """Send a stage that was made here."""
        final = self._folder / stage
        part = self._depot.begin(stage)
        for name in [*records.finished(final)["files"], store.RECORD]:
            self._depot.write(f"{part}/{name}", b"")  # empty files are files
            for data in _chunks(final / name):
                self._depot.write(f"{part}/{name}", data)
        if not self._depot.finish(part, stage):
            shutil.rmtree(final)  # what others read is another making

    def answer(self, link: Connection) -> None:
        """Do what a worker asks for until its process ends."""
        while True:
            try:
                said = links.received(link)
            except (EOFError, OSError):
                return
            try:
                {"fetch": self.fetch, "deliver": self.deliver}[said["what"]](str(said["stage"]))
                links.send(link, "carried")
            except Exception as error:
                with suppress(OSError):
                    links.send(link, "failed", why=f"{type(error).__name__}: {error}"[-500:])


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as source:
        while data := source.read(CHUNK_BYTES):
            yield data


class Carrier:
    """A worker's end of the way: asks the process that has started it (`Copy.answer`)."""

    def __init__(self, link: Connection) -> None:
        """Ask over `link`."""
        self._link = link

    def ask(self, what: str, stage: str) -> None:
        """`fetch` or `deliver` a stage.

        Raises:
            HoldfastError: it did not come, or go.
        """
        why = "the process that carries it is gone"
        with suppress(EOFError, OSError):
            links.send(self._link, what, stage=stage)
            said = links.received(self._link)
            if said.get("what") == "carried":
                return
            why = str(said.get("why"))
        raise HoldfastError(
            f"could not be carried ({what}) between the run folder and {socket.gethostname()}: "
            f"{why}",
            where=stage,
            remedy="see whether both have room on their disks; or put --runs-dir on storage that "
            "all machines see",
        )


def hold(
    arguments: Sequence[str], log: str, gpus: int, folder: str, secret: str, depot: Depot
) -> tuple[int, str]:
    """Run one worker to its end on a node; its exit code, and the node.

    Args:
        arguments: of Python.
        log: gets its output, on the machine of the run folder.
        gpus: that the node lends it.
        folder: the run folder; where it is another on this node, one of this worker's is used.
        secret: of the run.
        depot: for that.
    """
    own = {**os.environ}
    if gpus:
        own.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as Ray counts them
    else:
        own["CUDA_VISIBLE_DEVICES"] = ""
    if links.read_secret(Path(folder)) == secret:
        with open(log, "ab") as output:
            return _run(arguments, own, output.fileno(), None)
    with tempfile.TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True) as place:
        copy, output_file = Copy(Path(place), depot, secret), Path(place) / Path(log).name
        try:
            with output_file.open("ab") as output:
                return _run([*arguments, "--folder", place], own, output.fileno(), copy)
        finally:
            for data in _chunks(output_file):
                depot.write(f"{links.FOLDER}/{output_file.name}", data)


def _run(
    arguments: Sequence[str], own: dict[str, str], output: int, copy: Copy | None
) -> tuple[int, str]:
    ours, theirs = socket.socketpair()
    with theirs:
        carrying = ["--carrier", str(theirs.fileno())] if copy else []
        process = subprocess.Popen(
            [sys.executable, *arguments, *carrying], stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, env=own, pass_fds=[theirs.fileno()],
        )  # fmt: skip
    link = Connection(ours.detach())
    try:
        if copy is not None:
            copy.answer(link)
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        link.close()
    return code, socket.gethostname()
