"""Is every stage begun once, after its needs, the longest way first, and quickly?"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

from fixtures.timing import worked
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runs.executors.graph import Graph
from holdfast.runs.stages import PlannedStage, Step


def _steps(*rows: tuple[str, Sequence[str]], done: Sequence[str] = ()) -> list[Step]:
    return [
        Step(PlannedStage(name, {}, tuple(needs)), f"mark of {name}", name in done)
        for name, needs in rows
    ]


DIAMOND = _steps(("a", ()), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"]))


def _all(graph: Graph, size: int = 1) -> list[str]:
    found = []
    while order := graph.take(size):
        found.append(order.stage)
    return found


def test_what_waits_comes_when_the_last_need_is_done() -> None:
    graph = Graph(DIAMOND)
    order = graph.take(1)
    assert order is not None and (order.stage, order.fingerprint) == ("a", "mark of a")
    assert graph.take(1) is None and graph.sizes() == []
    graph.done("a")
    assert _all(graph) == ["b", "c"]
    graph.done("c")
    assert graph.take(1) is None
    graph.done("b")
    assert _all(graph) == ["d"] and graph.left == 1
    graph.done("d")
    assert graph.left == 0


def test_the_longest_way_is_first_and_the_plan_decides_between_equals() -> None:
    steps = _steps(("x", ()), ("y", ()), ("z", ()), ("after y", ["y"]), ("w", ()))
    seconds = {"x": 5.0, "y": 2.0, "z": 1.0, "after y": 4.0, "w": 1.0}
    assert _all(Graph(steps, seconds=seconds)) == ["y", "x", "z", "w"]
    assert _all(Graph(steps, seconds=seconds, first=["w"])) == ["w", "y", "x", "z"]


def test_finished_needs_are_not_waited_for() -> None:
    steps = _steps(("a", ()), ("b", ["a"]), done=["a"])
    graph = Graph(steps)
    assert graph.left == 1 and _all(graph) == ["b"]


def test_a_worker_gets_more_of_the_model_that_it_has() -> None:
    steps = _steps(*((name, ()) for name in ("b1", "j1", "b2", "j2", "long")))
    seconds = {"b1": 3.0, "j1": 2.9, "b2": 2.0, "j2": 1.0, "long": 60.0}

    def asks(name: str) -> tuple[int, str]:
        return 1, {"b": "base", "j": "judge", "l": "other"}[name[0]]

    graph = Graph(steps, asks, seconds, load_s=10.0)
    taken = [graph.take(1, model) for model in ("judge", "judge", "judge", "", "base")]
    names = [order.stage for order in taken if order]
    assert names == ["long", "j1", "j2", "b1", "b2"], "what is much longer comes first all the same"


def test_sizes_are_told_apart_and_what_was_lost_comes_again() -> None:
    steps = _steps(("light", ()), ("one", ()), ("two", ()))
    graph = Graph(steps, lambda name: ({"light": 0, "one": 1, "two": 2}[name], ""),
                  {"light": 0.0, "one": 1.0, "two": 9.0})  # fmt: skip
    assert graph.sizes() == [2, 1, 0] and graph.waiting(2) == 1
    order = graph.take(2)
    assert order is not None and order.slots == 2 and graph.waiting(2) == 0
    graph.again("two")
    assert graph.waiting(2) == 1 and _all(graph, 2) == ["two"] and graph.left == 3


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 4))
def test_any_graph_is_done_once_and_in_order(seed: int, count: int, workers: int) -> None:
    chance = random.Random(seed)
    needs = {n: {chance.randrange(n) for _ in range(chance.randrange(4))} if n else set()
             for n in range(count)}  # fmt: skip
    steps = _steps(*((str(n), [str(one) for one in needs[n]]) for n in needs))
    graph, done, under_way = Graph(steps), set[int](), list[int]()
    while graph.left:
        while len(under_way) < workers and (order := graph.take(1)):
            assert needs[int(order.stage)] <= done
            under_way.append(int(order.stage))
        one = under_way.pop(chance.randrange(len(under_way)))
        if chance.random() < 0.1:
            graph.again(str(one))
            continue
        assert one not in done
        done.add(one)
        graph.done(str(one))
    assert done == set(needs)


def test_ten_thousand_stages_are_no_work() -> None:
    trained = [(f"train/{n}", ()) for n in range(100)]
    asked = [(f"replies/{n}/{m}", [f"train/{n}"]) for n in range(100) for m in range(49)]
    graded = [(f"readings/{name}", [name]) for name, _ in asked]
    steps = _steps(*trained, *asked, *graded, ("stats", [name for name, _ in graded]))
    assert len(steps) > 9900
    order = []

    def run() -> None:
        graph = Graph(steps, lambda name: (1, name.split("/")[1] if "/" in name else ""))
        under_way: list[str] = []
        while graph.left:
            while len(under_way) < 8 and (found := graph.take(1, "7")):
                under_way.append(found.stage)
            order.append(under_way.pop(0))
            graph.done(order[-1])

    tracemalloc.start()
    seconds = worked(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(order) == len(steps) and order[-1] == "stats"
    assert seconds < 10 and peak < 64 << 20
