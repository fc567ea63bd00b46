"""A real Ray of several nodes on this machine; one of them is killed in the middle."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures.side_by_side import begun, carry, made, none_left, records_of, variables

from holdfast.config.hardware import RaySpec
from holdfast.errors import UsageError
from holdfast.progress import Silent
from holdfast.runs import stages
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.seats import Starter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # Ray's own, of its processes and sockets
]
ROWS = [("a", (), ""), ("b", ("a",), "sleep 0.1"), ("c", ("a",), "sleep 0.1"),
        ("light", ("b", "c"), "")]  # fmt: skip


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of a head that has no room, and nodes that a test adds."""
    ray = pytest.importorskip("ray")
    utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("PYTHONPATH", variables(())["PYTHONPATH"])
    found = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    yield found
    ray.shutdown()
    found.shutdown()


def _on_ray(told: Lines, **options: object) -> Callable[[Path], Starter]:
    from holdfast.runs.executors.ray import Ray

    spec = RaySpec.model_validate({"host": "127.0.0.1", **options})
    return lambda folder: Ray(folder, spec, Machine(folder, variables), told.say)


def _asks(name: str) -> tuple[int, str]:
    return int(name != "light"), ""


def test_a_run_on_two_nodes_of_which_one_is_killed(tmp_path: Path, cluster: Any) -> None:
    """It is lost for good: what it had is made on the other.

    The head is joined before there are others: Ray removes no node that this process has joined. No
    node is added from the thread, where Ray could not take SIGTERM for itself and so would fail.
    """
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    run, told, go = tmp_path / "r", Lines(), tmp_path / "go"
    rows = [("a", (), f"wait {go}"), ("b", (), f"wait {go}"), ("c", ("a", "b"), "")]

    def kill() -> None:
        until = time.monotonic() + 120
        while not (begun(run, "a").exists() and begun(run, "b").exists()):
            if time.monotonic() > until:
                return
            time.sleep(0.05)
        try:
            cluster.remove_node(nodes[0], allow_graceful=False)
            while not any("begun again" in line for line in told.lines):
                if time.monotonic() > until:
                    return
                time.sleep(0.05)
        finally:
            go.touch()  # whatever happens, or the stages never end

    watch = threading.Thread(target=kill, daemon=True)
    watch.start()
    carry(run, rows, 2, told, starter=_on_ray(told))
    watch.join(30)
    found = records_of(run, rows)
    assert any("it is begun again" in line for line in told.lines), told.lines
    assert sorted(found[name]["sittings"] for name in "ab") == [1, 2], "one of them alone is lost"
    assert none_left(run)


@pytest.fixture
def blind(cluster: Any, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Adds a node that sees another folder than this process where the runs are."""
    apart = ["unshare", "--mount", "--propagation", "private"]
    if os.getuid():
        apart += ["--user", "--map-root-user"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("a folder cannot be hidden from a process here (unshare --mount)")
    (tmp_path / "runs").mkdir()
    nodes: list[subprocess.Popen[bytes]] = []

    def add() -> None:
        start = shlex.join(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
             f"--address={cluster.address}"]
        )  # fmt: skip
        script = f"mount -t tmpfs none {tmp_path / 'runs'} && exec {start}"
        nodes.append(
            subprocess.Popen([*apart, "sh", "-c", script], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        )  # fmt: skip

    yield add
    for one in nodes:
        one.terminate()
    for one in nodes:
        one.wait(30)


def test_nodes_that_do_not_see_the_run_folder(
    tmp_path: Path, cluster: Any, blind: Callable[[], None]
) -> None:
    """What stages read is brought through Ray, what they make is fetched back."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    for _ in range(2):
        blind()
    until = time.monotonic() + 60
    while ray.cluster_resources().get("CPU", 0) < 2:
        assert time.monotonic() < until
        time.sleep(0.2)
    run, told = tmp_path / "runs" / "r", Lines()
    carry(run, ROWS, 2, told, _asks, _on_ray(told))
    records_of(run, ROWS)
    assert all(step.done for step in stages.schedule(made(ROWS), run)), "whole, and in order"
    assert any("does not see the run folder" in line for line in told.lines), told.lines
    assert none_left(tmp_path)


def test_without_gpus_its_cores_are_used_and_that_is_said(tmp_path: Path, cluster: Any) -> None:
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    told = Lines()
    carry(tmp_path / "r", ROWS, 2, told, _asks, _on_ray(told))
    records_of(tmp_path / "r", ROWS)
    assert "Ray has no GPU: the workers use its cores" in told.lines
    assert none_left(tmp_path / "r")


def test_a_cluster_without_room_is_refused(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(UsageError, match="a worker wants 4"):
        carry(tmp_path / "r", ROWS, 2, Lines(), _asks, _on_ray(Lines(), cpus=4))


def test_an_address_where_nobody_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="cannot join") as caught:
        carry(tmp_path / "r", ROWS, 2, Lines(), _asks, _on_ray(Lines(), address="127.0.0.1:1"))
    assert "ray start --head" in caught.value.remedy


def test_one_of_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", variables(())["PYTHONPATH"])
    told = Lines()
    carry(tmp_path / "r", ROWS, min(2, os.cpu_count() or 1), told, _asks,
          _on_ray(told, address="local"))  # fmt: skip
    records_of(tmp_path / "r", ROWS)
    assert none_left(tmp_path / "r")
