"""Makes stages as a coordinator asks for them: ``python -m holdfast.runs.executors.worker``.

It prepares the study once, and keeps its model loaded from stage to stage. It is in no process
group of the coordinator's and ends by itself when the connection does, whatever ended that: what it
was doing is gone on with as after any crash. While it lives it holds a lock in the run folder, so
that no later run begins beside what is left of an earlier one.
"""

from __future__ import annotations

import argparse
import os
import queue
import secrets
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from holdfast import errors
from holdfast.errors import FolderError, HoldfastError
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop, exit_with_parent, listen
from holdfast.runs import stages
from holdfast.runs.executors import links
from holdfast.runs.executors.arrival import SHARE, has_arrived
from holdfast.runs.executors.carried import Carrier
from holdfast.runs.executors.workers import Workshop
from holdfast.runs.stages import Step


class Relayed(Silent):
    """A `Progress` that says everything to the coordinator."""

    def __init__(self, link: Connection, stop: Stop) -> None:
        """Say it over `link`."""
        self._link, self._speaks = link, threading.Lock()
        self.stop = RelayedStop(stop, lambda words: self.tell("hold", text=words))

    def tell(self, what: str, **values: object) -> None:
        """Say something; threads that ask a server speak, too."""
        with self._speaks, suppress(OSError):  # if nobody hears it the ear ends this process
            links.send(self._link, what, **values)

    def total(self, amount: int, what: str = "") -> None:
        """See `Progress.total`."""
        self.tell("total", amount=amount, unit=what)

    def advance(self, amount: int = 1) -> None:
        """See `Progress.advance`."""
        self.tell("advance", amount=amount)

    def kept(self, amount: int) -> None:
        """See `Progress.kept`."""
        self.tell("kept", amount=amount)

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        """See `Progress.worked`."""
        self.tell("worked", tokens=tokens, loss=None if loss is None else float(loss))

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self.tell("say", line=line)


class RelayedStop(Stop):
    """This process's `Stop`, of which the coordinator hears what is worth finishing."""

    def __init__(self, inner: Stop, tell: Callable[[str], None]) -> None:
        """Follow `inner`, which hears the signals."""
        super().__init__()
        self.signals, self._inner, self._tell = inner.signals, inner, tell

    def hold(self, what: str) -> None:
        """See `Stop.hold`."""
        super().hold(what)
        self._inner.doing = what
        self._tell(what)

    def release(self) -> None:
        """See `Stop.release`."""
        self._inner.doing = ""
        self._tell("")
        super().release()


class Bench:
    """Where one worker makes the stages of one run folder."""

    def __init__(
        self,
        said: Mapping[str, Any],
        held: ExitStack,
        folder: Path | None = None,
        carrier: Carrier | None = None,
    ) -> None:
        """Prepare everything that the stages need.

        Args:
            said: `source` (``module:function``, a `Workshop`), `folder`, `secret`, `given`.
            held: gets the lock that tells the next run that this process still lives.
            folder: the run folder as this machine sees it; None: the same.
            carrier: between that and the run's own, where it is another.

        Raises:
            FolderError: the folder is not the coordinator's.
            HoldfastError: what the workshop raises.
        """
        self.folder, self._secret = folder or Path(said["folder"]), str(said["secret"])
        self._carrier = carrier
        self._check()
        from filelock import FileLock

        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}.lock"
        self.lock = self.folder / links.FOLDER / name
        held.enter_context(FileLock(self.lock))
        module, _, name = str(said["source"]).partition(":")
        made: Workshop = getattr(import_module(module), name)
        bench = made(self.folder, said["given"])
        self.alike, self.notices = bench.alike, [*bench.notices]
        self._stages = {one.name: one for one in bench.stages}
        self._marks = stages.fingerprints([one.planned for one in self._stages.values()])

    def _check(self) -> None:
        if links.read_secret(self.folder) != self._secret:
            raise FolderError(
                f"is not the run folder of the run that this worker on {socket.gethostname()} "
                "belongs to",
                where=str(self.folder),
                remedy=SHARE,
            )

    def make(self, name: str, fingerprint: str, progress: Relayed) -> None:
        """Make one stage.

        Raises:
            HoldfastError: it failed; it is another here; the run is over.
        """
        self._check()
        if self._marks.get(name) != fingerprint:
            raise HoldfastError(
                "is another stage here than where the run was started: data, model or code differ",
                where=f"{name} on {socket.gethostname()}",
                remedy="install the same version of Holdfast and give it the same files everywhere",
            )
        stage = self._stages[name]
        for need in stage.needs:
            if self._carrier is not None:
                self._carrier.ask("fetch", need)
            elif not has_arrived(self.folder, need):
                raise HoldfastError(
                    f"cannot be seen on {socket.gethostname()}, and is made",
                    where=str(self.folder / need),
                    remedy=SHARE,
                )
        stages.make(Step(stage.planned, fingerprint, False), stage, self.folder, progress)
        if self._carrier is not None:
            self._carrier.ask("deliver", name)


class Ear:
    """Hears the coordinator beside the work, and ends this process when the connection ends."""

    def __init__(self, link: Connection) -> None:
        """Begin to listen; busy until somebody says otherwise."""
        self._link, self.busy = link, True  # it prepares
        self.orders = queue.SimpleQueue[dict[str, Any]]()
        threading.Thread(target=self._listen, name="ear", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                said = links.received(self._link)
            except (EOFError, OSError):
                os._exit(int(self.busy))  # a queue calls all else than 0 a failure
            what = said.get("what")
            if what == "make":
                self.busy = True  # from now on, so that the next word can stop it
            elif what == "stop" and self.busy:
                os.kill(os.getpid(), signal.SIGTERM)  # Ctrl-C may be ignored, as below nohup
            self.orders.put(said)


def serve(
    link: Connection,
    stop: Stop,
    held: ExitStack,
    folder: Path | None = None,
    carrier: Carrier | None = None,
) -> int:
    """Do what is asked for until there is no more; returns the exit code.

    Args:
        link: to the coordinator.
        stop: hears the signals.
        held: see `Bench`, as for the others.
        folder: the run folder as this machine sees it.
        carrier: between that and the run's own.
    """
    ear, progress, doing = Ear(link), Relayed(link, stop), ""
    try:
        bench = Bench(ear.orders.get(), held, folder, carrier)
        ear.busy = False
        about = {"machine": socket.gethostname(), "lock": str(bench.lock),
                 "carried": carrier is not None}  # fmt: skip
        progress.tell("ready", alike=bench.alike, notices=bench.notices, **about)
        while (said := ear.orders.get()).get("what") == "make":
            doing = str(said["stage"])
            bench.make(doing, str(said["fingerprint"]), progress)
            ear.busy = False
            progress.tell("done", stage=doing)
            doing = ""
    except KeyboardInterrupt:  # asked for, at a safe point; or the queue wants this machine back
        progress.tell("stopped", stage=doing)
        return stop.code
    except HoldfastError as error:
        progress.tell("failed", stage=doing, error=errors.as_json(error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        what = HoldfastError(
            f"{type(error).__name__}: {error}",
            where=f"{doing or 'preparing'} on {socket.gethostname()}",
            remedy=f"the traceback is in the worker's output, in {links.FOLDER}/ of the run "
            "folder; everything finished is kept",
        )
        progress.tell("failed", stage=doing, error=errors.as_json(what))
        return 1
    return 0


def _knock(address: str, folder: Path, seat: int) -> Connection | int:
    """Go to a coordinator on another machine; an exit code where it is of no use."""
    secret = links.read_secret(folder)
    if not secret:
        print(f"{folder} on {socket.gethostname()} is not the folder of a run that is under way: "
              "is it shared?", flush=True)  # fmt: skip
        return links.NOT_SHARED
    host, _, port = address.rpartition(":")
    try:
        link = Client((host, int(port)), authkey=secret.encode())
    except AuthenticationError:
        print(f"{folder} on {socket.gethostname()} is of another run: is it shared?", flush=True)
        return links.NOT_SHARED
    except OSError as error:
        print(f"nobody answers at {address}: {error}", flush=True)
        return links.NOBODY_THERE
    links.kept_alive(link)
    links.send(link, "here", seat=seat, machine=socket.gethostname())
    return link


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, find the coordinator, and serve it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--link", type=int, help="a socket that was inherited")
    parser.add_argument("--knock", help="host:port of the coordinator")
    parser.add_argument("--folder", type=Path, help="the run folder")
    parser.add_argument("--seat", type=int, default=0, help="which worker this is")
    parser.add_argument("--carrier", type=int, help="a socket to whoever carries the run folder")
    given = parser.parse_args(arguments)
    exit_with_parent()
    link: Connection | int
    if given.link is not None:
        link = Connection(given.link)
    else:
        link = _knock(given.knock, given.folder, given.seat)
    if isinstance(link, int):
        return link
    with ExitStack() as held, listen(lambda line: None, lambda: None) as stop:
        carrier = None if given.carrier is None else Carrier(Connection(given.carrier))
        code = serve(link, stop, held, given.folder, carrier)
    return code


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads that wait for a server are not waited for
    os._exit(1)
