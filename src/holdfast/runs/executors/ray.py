"""Workers as tasks of Ray: it finds them GPUs or cores, on nodes of which any may be lost.

A Ray task holds the resources and starts one worker, which comes to the coordinator and keeps its
model from stage to stage, so weights are read once for each worker and never sent through Ray. The
run folder is on storage that all nodes see; a worker that does not see it ends the run with words.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast import environment
from holdfast.config.hardware import RaySpec
from holdfast.errors import MissingDependency, UsageError
from holdfast.runs.executors import AGAIN, links
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.remote import Remote, not_shared
from holdfast.runs.executors.workers import Ending, Seat

LOOK_EVERY_S = 1.0
ENDS_S = 10.0
"""A task whose worker has gone ends in less."""


class Ray(Remote):
    """A Ray cluster; see `Starter`.

    Attributes:
        room: workers that it holds at a time.
        words: it in words.
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
        self.words = f"Ray ({cluster.device})"
        super().__init__(folder, cluster, here, spec.host or cluster.host)


class Cluster:
    """What runs in the cluster, by seat; see `remote.Jobs`."""

    def __init__(self, folder: Path, spec: RaySpec, say: Callable[[str], None]) -> None:
        """See `Ray`."""
        self._ray, self._folder, self._spec = _ray(), folder, spec
        self._joined = not self._ray.is_initialized()
        if self._joined:
            self._join(say)
        found = self._ray.cluster_resources()
        self._gpus = spec.gpus if found.get("GPU", 0) >= spec.gpus > 0 else 0
        if spec.gpus and not self._gpus:
            say("Ray has no GPU: the workers use its cores")
        self.device = f"{self._gpus} GPUs each" if self._gpus else f"{spec.cpus} cores each"
        kind, each = ("GPU", self._gpus) if self._gpus else ("CPU", spec.cpus)
        self.room = int(found.get(kind, 0) // each)
        if not self.room:
            raise UsageError(
                f"the cluster has {found.get('CPU', 0):.0f} cores, and a worker wants {spec.cpus}",
                where="--on ray",
                remedy="add a node, or set hardware.ray.cpus lower",
            )
        self.host = self._ray.util.get_node_ip_address()
        self._tasks: dict[int, Any] = {}
        self._looked = 0.0

    def _join(self, say: Callable[[str], None]) -> None:
        address = self._spec.address
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        try:
            try:
                self._ray.init(address=address, **options)
            except ConnectionError:
                if address != "auto":
                    raise
                say("There is no Ray cluster here: one of this machine alone is started")
                self._ray.init(address="local", include_dashboard=False, **options)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise UsageError(
                f"cannot join {address}: {error}", where="hardware.ray.address",
                remedy="start one with `ray start --head`, or set it to local",
            ) from error  # fmt: skip

    def submit(self, seats: Sequence[Seat], command: Sequence[str]) -> None:
        """See `remote.Jobs`."""
        hold = self._ray.remote(_hold).options(
            num_gpus=self._gpus, num_cpus=self._spec.cpus, max_retries=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        for seat in seats:
            log = str(self._folder / links.FOLDER / f"ray-{seat.number}.log")
            own = [*command[1:], "--seat", str(seat.number)]
            self._tasks[seat.number] = hold.remote(own, log)

    def ended(self) -> Iterable[tuple[int, Ending]]:
        """See `remote.Jobs`."""
        if not self._tasks or time.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = time.monotonic()
        every = {task: number for number, task in self._tasks.items()}
        done, _ = self._ray.wait(list(every), num_returns=len(every), timeout=0)
        return [(every[task], self._why(every[task])) for task in done]

    def _why(self, number: int) -> Ending:
        """Why a task has ended that has."""
        task = self._tasks.pop(number)
        try:
            code, machine = self._ray.get(task, timeout=ENDS_S)
        except Exception as error:
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            return Ending(f"Ray says: {first[0][:300]}", counted=not _is_loss(error))
        log = str(self._folder / links.FOLDER / f"ray-{number}.log")
        if code == links.NOT_SHARED:
            return Ending(
                "it does not see the folder", log, final=not_shared(self._folder, machine)
            )
        return Ending(f"its process on {machine} ended with code {code}", log)

    def end(self, number: int) -> Ending:
        """See `remote.Jobs`."""
        task = self._tasks.get(number)
        if task is None:
            return Ending("its task is gone")
        done, _ = self._ray.wait([task], timeout=ENDS_S)
        if done:
            return self._why(number)
        self._tasks.pop(number)
        with suppress(Exception):
            self._ray.cancel(task, force=True)
        return Ending("its node does not answer", counted=False)

    def close(self) -> None:
        """See `remote.Jobs`."""
        for task in self._tasks.values():
            with suppress(Exception):
                self._ray.cancel(task, force=True)
        self._tasks.clear()
        if self._joined:
            self._ray.shutdown()


def _hold(arguments: Sequence[str], log: str) -> tuple[int, str]:
    """Run one worker to its end on a node; its exit code, and the node."""
    with open(log if Path(log).parent.is_dir() else os.devnull, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = process.wait()
        finally:
            process.kill()
    return code, socket.gethostname()


def _is_loss(error: Exception) -> bool:
    """Whether a node or its memory is to blame, and not the work."""
    return type(error).__name__ in ("NodeDiedError", "WorkerCrashedError", "TaskCancelledError",
                                    "LocalRayletDiedError", "ObjectLostError")  # fmt: skip


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
