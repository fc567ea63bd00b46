"""Workers as tasks of Ray: it finds them GPUs or cores, on nodes of which any may be lost.

A Ray task holds the resources and starts one worker, which comes to the coordinator and keeps its
model from stage to stage, so weights are read once for each worker. To a worker that does not see
the run folder Ray brings what its stages read, once, and fetches back what they make (`carried`).

Ray itself needs a quarter of a minute and more until it takes a node for dead; that a worker has
gone with its node is known sooner, by its connection.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from holdfast import environment
from holdfast.config.hardware import RaySpec
from holdfast.errors import MissingDependency, UsageError, WorkerLost, first_line
from holdfast.runs.executors import AGAIN, carried, links
from holdfast.runs.executors.carried import Depot
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.remote import Remote, why_ended
from holdfast.runs.executors.seats import Ending, Seat

LOOK_EVERY_S = 1.0
ENDS_S = 10.0
"""A task whose worker has gone ends in less, unless its node is gone too."""
LAST_S = 3.0
"""As above, where all end."""
REACHED_S = 10.0
"""Longest wait for a cluster that is named by its address."""
LOST_S = 120.0
"""So long a cluster without any node that has room for a worker is waited for."""


class Ray(Remote):
    """A Ray cluster; see `Starter`.

    Attributes:
        room: workers that it holds at a time.
        words: it in words.
        gpus: of each worker.
    """

    def __init__(
        self, folder: Path, spec: RaySpec, here: Machine, say: Callable[[str], None]
    ) -> None:
        """Join the cluster; start nothing yet.

        Raises:
            MissingDependency: Ray is not installed.
            UsageError: there is no such cluster, or it has no room.
        """
        cluster = Cluster(folder, spec, say)
        self.room: int | None = cluster.room
        self.words, self.gpus = f"Ray ({cluster.device})", cluster.gpus
        super().__init__(folder, cluster, here, spec.host or cluster.host)


class Cluster:
    """What runs in the cluster, by seat; see `remote.Jobs`."""

    def __init__(self, folder: Path, spec: RaySpec, say: Callable[[str], None]) -> None:
        """See `Ray`."""
        self._folder, self._spec = folder, spec
        self._tasks: dict[int, Any] = {}
        self._depot: object = None
        self._looked, self._roomy = 0.0, time.monotonic()
        with _own_signals():
            self._ray = _ray()
            self._joined = not self._ray.is_initialized()
            if self._joined:
                self._join(say)
        has_gpus = self._ray.cluster_resources().get("GPU", 0) > 0
        self.gpus = spec.gpus if has_gpus else 0
        if spec.gpus and not has_gpus:
            say("Ray has no GPU: the workers use its cores")
        self.device = f"{self.gpus} GPUs each" if self.gpus else f"{spec.cpus} cores each"
        self.room = self._room()
        if not self.room:
            self.close()
            raise UsageError(
                f"no node of the cluster has room: a worker wants {self._wants}", where="--on ray",
                remedy="add a node, or set hardware.ray.cpus or hardware.ray.gpus lower",
            )  # fmt: skip
        self.host = self._ray.util.get_node_ip_address()

    def _join(self, say: Callable[[str], None]) -> None:
        address = self._spec.address
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        try:
            _reached(address)
            try:
                self._ray.init(address=address, **options)
            except ConnectionError:
                if address != "auto":
                    raise
                say("There is no Ray cluster here: one of this machine alone is started")
                self._ray.init(address="local", include_dashboard=False, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"cannot join {address}: {error}", where="hardware.ray.address",
                remedy="start one with `ray start --head`, or set it to local",
            ) from error  # fmt: skip

    @property
    def _wants(self) -> str:
        gpus = f"{self.gpus} GPUs and " if self.gpus else ""
        return f"{gpus}{self._spec.cpus} cores"

    def _room(self) -> int:
        """Workers that the nodes hold which live: each lies on one node as a whole."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        wanted = {"CPU": self._spec.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        return sum(
            min(int(node.get(kind, 0) // each) for kind, each in wanted.items()) for node in alive
        )

    def submit(self, seats: Sequence[Seat], command: Sequence[str]) -> None:
        """See `remote.Jobs`."""
        secret = links.read_secret(self._folder)
        self._depot = self._depot or self._served()
        hold = self._ray.remote(_hold).options(
            num_gpus=self.gpus, num_cpus=self._spec.cpus, max_retries=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        if not self._tasks:
            self._roomy = time.monotonic()
        for seat in seats:
            own = [*command[1:], "--seat", str(seat.number)]
            self._tasks[seat.number] = hold.remote(
                own, self._log(seat.number), self.gpus, str(self._folder), secret, self._depot
            )

    def _served(self) -> object:
        """The run folder, as an actor on the node of this process, which sees it."""
        here = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=False
        )
        options = {"num_cpus": 0, "scheduling_strategy": here}
        served: object = self._ray.remote(Depot).options(**options).remote(str(self._folder))
        return served

    def _log(self, number: int) -> str:
        return str(self._folder / links.FOLDER / f"ray-{number}.log")

    def ended(self) -> Iterable[tuple[int, Ending]]:
        """See `remote.Jobs`."""
        if not self._tasks or time.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = time.monotonic()
        every = {task: number for number, task in self._tasks.items()}
        found = [(every[task], self._why(every[task])) for task in self._done(list(every))]
        return found or self._lost()

    def _lost(self) -> list[tuple[int, Ending]]:
        """All workers, when there has been no room for any of them for long."""
        with suppress(Exception):  # which says nothing of its nodes now
            if self._room():
                self._roomy = time.monotonic()
        if time.monotonic() - self._roomy < LOST_S:
            return []
        error = WorkerLost(
            f"no node has been left for {LOST_S:.0f} s that has room for a worker, which wants "
            f"{self._wants}",
            where="--on ray", remedy=f"add a node; {AGAIN}",
        )  # fmt: skip
        return [(number, Ending("its node is lost", final=error)) for number in self._tasks]

    def _done(self, tasks: Sequence[object]) -> list[object]:
        """Those that have ended; waits for none.

        Raises:
            WorkerLost: the connection to Ray is gone.
        """
        try:
            if not self._ray.is_initialized():  # else it would join a cluster anew
                raise RuntimeError("this process has left the cluster")
            return list(self._ray.wait(tasks, num_returns=len(tasks), timeout=0)[0])
        except Exception as error:
            raise WorkerLost(
                f"Ray does not answer: {_first_line(error)}", where="--on ray", remedy=AGAIN
            ) from error

    def _why(self, number: int) -> Ending:
        """Why a task has ended that has."""
        task = self._tasks.pop(number)
        try:
            code, machine = self._ray.get(task, timeout=ENDS_S)
        except Exception as error:
            return Ending(f"Ray says: {_first_line(error)}", counted=not _is_loss(error))
        words = f"its process on {machine} ended with code {code}"
        return why_ended(code, self._folder, machine, words, self._log(number))

    def end(self, number: int, since: float) -> Ending | None:
        """See `remote.Jobs`."""
        task = self._tasks.get(number)
        if task is None:
            return Ending("its task is gone")
        if self._done([task]):
            return self._why(number)
        if time.monotonic() - since < ENDS_S:
            return None
        del self._tasks[number]
        with suppress(Exception):
            self._ray.cancel(task, force=True)
        return Ending("its node does not answer", counted=False)

    def close(self) -> None:
        """See `remote.Jobs`."""
        tasks = [*self._tasks.values()]
        with suppress(Exception):  # their workers end by themselves, and are cleared up after
            tasks = self._ray.wait(tasks, num_returns=len(tasks), timeout=LAST_S)[1]
        for task in tasks:
            with suppress(Exception):
                self._ray.cancel(task, force=True)
        self._tasks.clear()
        if self._joined:
            self._ray.shutdown()


class _Called:
    """A `Depot` that is an actor of Ray's."""

    def __init__(self, call: Callable[[str, Sequence[object]], object]) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *given: self._call(name, given)


def _hold(
    arguments: Sequence[str], log: str, gpus: int, folder: str, secret: str, depot: object
) -> tuple[int, str]:
    """Run one worker to its end on a node; its exit code, and the node."""
    ray = _ray()
    called = _Called(lambda name, given: ray.get(getattr(depot, name).remote(*given)))
    return carried.hold(arguments, log, gpus, folder, secret, cast(Depot, called))


def _is_loss(error: Exception) -> bool:
    """Whether the node is to blame, and not the work; a crash may be the work's, by its memory."""
    return type(error).__name__ in (
        "NodeDiedError", "TaskCancelledError", "LocalRayletDiedError", "ObjectLostError",
    )  # fmt: skip


def _first_line(error: Exception) -> str:
    return first_line(error)[:300]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what Ctrl-C and SIGTERM do: Ray, when it is imported, takes SIGTERM for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


def _reached(address: str) -> None:
    """Find somebody at a HOST:PORT: Ray itself tries for minutes.

    Raises:
        OSError: nobody answers there.
    """
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), REACHED_S).close()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(
            "--on ray needs Ray",
            where="--on ray",
            remedy=f"{environment.install_command('ray')}; {AGAIN}",
        ) from error
    return ray
