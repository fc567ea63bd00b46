"""What is made of Ray's answers: where there is room, what became of a worker; without a Ray."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.config.hardware import RaySpec
from holdfast.errors import FolderError, UsageError, WorkerLost
from holdfast.runs.executors import links
from holdfast.runs.executors import ray as executor
from holdfast.runs.executors.ray import Cluster
from holdfast.runs.executors.seats import Seat


class NodeDiedError(Exception):
    """Named as Ray's own."""


class WorkerCrashedError(Exception):
    """Named as Ray's own."""


class Answers:
    """Ray, as far as it is asked: its nodes, and what became of tasks (by number, from 0 on)."""

    def __init__(self, *nodes: Mapping[str, float]) -> None:
        self.alive, self.ended = list(nodes), dict[int, object]()
        self.cancelled: list[int] = []
        self.joined, self.count = True, 0
        self.util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")

    def is_initialized(self) -> bool:
        return self.joined

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 64.0}}
        return [dead, *({"Alive": True, "Resources": node} for node in self.alive)]

    def cluster_resources(self) -> dict[str, float]:
        return {kind: sum(node.get(kind, 0) for node in self.alive) for kind in ("CPU", "GPU")}

    def remote(self, function: object) -> Any:
        def begin(*_: object) -> int:
            self.count += 1
            return self.count - 1

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=begin))

    def wait(self, tasks: Sequence[int], **_: object) -> tuple[list[int], list[int]]:
        ended = [one for one in tasks if one in self.ended]
        return ended, [one for one in tasks if one not in ended]

    def get(self, task: int, **_: object) -> object:
        found = self.ended[task]
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self, task: int, **_: object) -> None:
        self.cancelled.append(task)


def _cluster(
    folder: Path, ray: Answers, monkeypatch: pytest.MonkeyPatch, **spec: int
) -> tuple[Cluster, list[str]]:
    monkeypatch.setattr(executor, "_ray", lambda: ray)
    monkeypatch.setattr(Cluster, "_served", lambda _: None)
    monkeypatch.setattr(executor, "LOOK_EVERY_S", 0.0)
    lines: list[str] = []
    return Cluster(folder, RaySpec.model_validate(spec), lines.append), lines


def test_room_is_what_each_node_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"CPU": 8.0, "GPU": 3.0}, {"CPU": 1.0, "GPU": 4.0}, {"CPU": 16.0}
    ray = Answers(*nodes)
    assert _cluster(tmp_path, ray, monkeypatch)[0].room == 4
    two, _ = _cluster(tmp_path, ray, monkeypatch, gpus=2, cpus=1)
    assert two.room == 2 and two.gpus == 2, "what each worker must have"
    assert _cluster(tmp_path, ray, monkeypatch, gpus=0, cpus=4)[0].room == 6
    with pytest.raises(UsageError, match="a worker wants 5 GPUs and 1 cores"):
        _cluster(tmp_path, ray, monkeypatch, gpus=5)
    found, lines = _cluster(tmp_path, Answers({"CPU": 2.0}), monkeypatch)
    assert (
        found.gpus == 0
        and found.room == 2
        and lines == ["Ray has no GPU: the workers use its cores"]
    )


def test_why_a_worker_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Answers({"CPU": 8.0})
    cluster, _ = _cluster(tmp_path, ray, monkeypatch)
    cluster.submit([Seat(number, (number,)) for number in range(1, 6)], ["python", "x"])
    assert list(cluster.ended()) == []
    ray.ended = {
        0: (-9, "n1"), 1: (links.NOT_SHARED, "n2"), 2: (links.NOBODY_THERE, "n3"),
        3: NodeDiedError("its node is dead\n\nand so on"), 4: WorkerCrashedError("crashed"),
    }  # fmt: skip
    found = dict(cluster.ended())
    assert found[1].why == "its process on n1 ended with code -9" and found[1].counted
    assert isinstance(found[2].final, FolderError) and "n2" in str(found[2].final)
    assert "hardware.ray" in found[3].why and found[3].counted
    assert found[4].why == "Ray says: its node is dead" and not found[4].counted
    assert found[5].counted, "it may be the work that needs too much memory"
    assert list(cluster.ended()) == [], "each is told once"


def test_a_node_that_does_not_answer_holds_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Answers({"CPU": 8.0})
    cluster, _ = _cluster(tmp_path, ray, monkeypatch)
    cluster.submit([Seat(1, (1,)), Seat(2, (2,))], ["python", "x"])
    assert cluster.end(1, time.monotonic()) is None
    ending = cluster.end(1, time.monotonic() - 2 * executor.ENDS_S)
    assert ending is not None and not ending.counted and ray.cancelled == [0]
    cluster.close()
    assert ray.cancelled == [0, 1]


def test_nodes_that_are_lost_for_good_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Answers({"CPU": 1.0})
    cluster, _ = _cluster(tmp_path, ray, monkeypatch)
    cluster.submit([Seat(1, (1,))], ["python", "x"])
    ray.alive.clear()
    assert list(cluster.ended()) == [], "another may come"
    monkeypatch.setattr(executor, "LOST_S", 0.0)
    [(number, ending)] = cluster.ended()
    assert number == 1 and isinstance(ending.final, WorkerLost)
    assert "add a node" in ending.final.remedy


def test_a_connection_that_somebody_ended_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Answers({"CPU": 1.0})
    cluster, _ = _cluster(tmp_path, ray, monkeypatch)
    cluster.submit([Seat(1, (1,))], ["python", "x"])
    ray.joined = False
    with pytest.raises(WorkerLost, match="left the cluster"):
        cluster.end(1, time.monotonic())


def test_what_ctrl_c_and_sigterm_do_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def imported() -> Answers:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does when it is imported
        return Answers({"CPU": 1.0})

    monkeypatch.setattr(executor, "_ray", imported)
    Cluster(tmp_path, RaySpec(), print)
    assert signal.getsignal(signal.SIGTERM) is before
