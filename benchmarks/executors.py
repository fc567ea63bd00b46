"""Stages side by side: how near to the ideal, what each costs beside its work, and ten thousand.

The first table is of stages that sleep and so share no core: 8 arms x 3 seeds, a training and two
measurements each, on 1, 2 and 4 workers. *Efficiency* is the time by the scheduler's own reckoning
(the ideal of that many workers) over the time that passed since all workers were ready. The second
is a study of the lab's model, which computes: there two workers on two cores share the memory's
bandwidth and the machine. The third is what one stage costs beside its work; the last, a plan of
10,000 stages, planned, scheduled and handed out without doing any of it.

    python benchmarks/executors.py            # sleeping stages, overhead, ten thousand: minutes
    python benchmarks/executors.py --lab      # a study of 8 arms x 3 seeds as well
    python benchmarks/executors.py --ray      # overhead on a Ray of this machine, too
    python benchmarks/executors.py --small    # any of them with little to do: does it still run?
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from fixtures import side_by_side
from fixtures.side_by_side import Row

from holdfast.memory.hardware.cpu import cores
from holdfast.progress import Silent
from holdfast.runs import run_folder, stages
from holdfast.runs.executors import carry_out, links
from holdfast.runs.executors.graph import Graph, makespan
from holdfast.runs.executors.machine import Machine
from holdfast.runs.executors.seats import Starter
from holdfast.runs.executors.workers import Workers

TRAIN_S, ASK_S = 1.2, 0.4
EFFICIENT, LOCAL_MS, RAY_MS, PLANNED_S, PLANNED_GIB = 0.85, 50, 500, 10, 1
"""Goals: at least so much of the ideal; at most so much for a stage; so much for ten thousand."""


@dataclass(frozen=True)
class Size:
    """How much there is to do."""

    arms: int = 8
    seeds: int = 3
    empty: int = 200
    large: int = 12  # seeds of the study of ten thousand stages
    items: int = 24
    steps: int = 20


SMALL = Size(2, 1, 10, 1, 4, 2)


class Timed(Silent):
    """Notes when the first stage began and the last ended."""

    def __init__(self) -> None:
        """Note nothing yet."""
        self.times: list[float] = []

    def enter(self, stage: str) -> None:
        """See `Progress.enter`."""
        self.times.append(time.monotonic())

    def leave(self, stage: str) -> None:
        """See `Progress.leave`."""
        self.times.append(time.monotonic())

    @property
    def took(self) -> float:
        """Seconds between."""
        return self.times[-1] - self.times[0]


def verdict(is_met: bool, goal: str) -> None:
    """Say whether a goal is met."""
    print(f"\ngoal: {goal}: {'met' if is_met else 'MISSED'}", flush=True)


def sleeping(size: Size) -> list[Row]:
    """Arms x seeds: a training, and two measurements of it with their readings."""
    rows: list[Row] = []
    for arm in range(size.arms):
        for seed in range(size.seeds):
            train = f"train/arm{arm}/seed{seed}"
            rows.append((train, (), f"sleep {TRAIN_S}"))
            for task in ("target", "safety"):
                said = f"replies/arm{arm}/seed{seed}/{task}"
                rows += [(said, (train,), f"sleep {ASK_S}")]
                rows += [(f"readings/arm{arm}/seed{seed}/{task}", (said,), "sleep 0")]
    return [*rows, ("stats", tuple(name for name, _, _ in rows), "sleep 0")]


def carried(folder: Path, rows: Sequence[Row], slots: int, starter: Starter) -> float:
    """Seconds of a whole run once its workers are ready."""
    plan, timed = side_by_side.made(rows), Timed()
    todo = stages.announce(stages.schedule(plan, folder), folder, timed)
    secret = links.read_secret(folder)
    brief = {"source": side_by_side.SOURCE, "folder": str(folder), "secret": secret,
             "given": {"rows": rows}}  # fmt: skip
    workers = Workers(starter, slots, 0, lambda seat: brief)
    workers.want(1, slots)
    while len(workers.idle(1)) < slots:
        workers.wait(1.0)
    carry_out(Graph(todo), workers, timed, lambda name: (folder / name / "record.json").is_file())
    return timed.took


def a_run(rows: Sequence[Row], slots: int, ray: bool = False) -> float:
    """`carried` in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve() / "run"
        run_folder.open_run(folder)
        with run_folder.lock(folder):
            links.write_secret(folder)
            here = Machine(folder, side_by_side.variables)
            starter: Starter = here
            if ray:
                from holdfast.config.hardware import RaySpec
                from holdfast.runs.executors.ray import Ray

                spec = RaySpec(address="local", gpus=0, host="127.0.0.1")
                starter = Ray(folder, spec, here, print)
            return carried(folder, rows, slots, starter)


def efficiency(size: Size) -> None:
    """Sleeping stages on 1, 2 and 4 workers."""
    rows, found = sleeping(size), list[float]()
    seconds = {name: float(does.partition(" ")[2]) for name, _, does in rows}
    planned = stages.schedule(side_by_side.made(rows), Path("nowhere"))
    print(f"{len(rows)} stages that sleep {sum(seconds.values()):.0f} s in all\n")
    print("| workers | ideal, s | took, s | efficiency |\n|---|---|---|---|")
    for slots in (1, 2, 4):
        ideal, took = makespan(Graph(planned, seconds=seconds), seconds, slots), a_run(rows, slots)
        found.append(ideal / took)
        print(f"| {slots} | {ideal:.1f} | {took:.1f} | {ideal / took:.0%} |", flush=True)
    verdict(min(found) >= EFFICIENT, f"at least {EFFICIENT:.0%} of the ideal")


def overhead(size: Size, ray: bool) -> None:
    """Milliseconds of a stage that does nothing, made by one worker and in this process."""
    rows = [(f"shared/{number}", (), "sleep 0") for number in range(size.empty)]
    print("\n| where | a stage beside its work, ms |\n|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        plan, folder = side_by_side.made(rows), Path(scratch).resolve() / "run"
        started = time.monotonic()
        stages.execute(stages.schedule(plan, folder), plan, folder, Silent())
        alone = 1e3 * (time.monotonic() - started) / size.empty
    print(f"| in order, in this process | {alone:.1f} |")
    here = 1e3 * a_run(rows, 1) / size.empty
    print(f"| one worker | {here:.1f} |", flush=True)
    there = 1e3 * a_run(rows, 1, ray=True) / size.empty if ray else 0.0
    if ray:
        print(f"| one worker of Ray's | {there:.1f} |")
    verdict(here <= LOCAL_MS, f"at most {LOCAL_MS} ms of one worker")
    if ray:
        verdict(there <= RAY_MS, f"at most {RAY_MS} ms on Ray")


def ten_thousand(size: Size) -> None:
    """A study of about 10,000 stages: planned, its seconds told, scheduled, handed out."""
    import transformers  # noqa: F401  # which takes longer than all else, and is no planning

    from holdfast import study
    from holdfast.config import load
    from holdfast.study.duration import stage_seconds
    from holdfast.study.speed import by_formula

    tasks = {"lab_math": {"role": "target", "items": 8, "train_items": 24}}
    tasks |= {f"refuse{n}": {"kind": "lab_refuse", "items": 6} for n in range(3)}
    text = {
        "name": "large", "model": "lab", "seeds": list(range(size.large)), "tasks": tasks,
        "train": {"max_steps": 20, "checkpoints": 10}, "answer": {"repeats": 1},
        "arms": {f"arm{n}": {"train": {"learning_rate": (n + 1) * 1e-4}} for n in range(8)},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        parts: dict[str, float] = {}
        loaded = load.load(text)

        def timed(what: str, started: float) -> None:
            parts[what] = time.monotonic() - started

        now = time.monotonic()
        session = study.prepare(loaded, Path(scratch) / "run")
        timed("planned", now)
        now = time.monotonic()
        told = {name: one.seconds for name, one in
                stage_seconds(session, by_formula(session)).items()}  # fmt: skip
        timed("its seconds told", now)
        now = time.monotonic()
        steps = study.schedule(session.plan)
        timed("scheduled", now)
        now = time.monotonic()
        takes = makespan(Graph(steps, lambda name: (1, "base"), told), told, 8)
        timed("handed out to 8 workers", now)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"\n{len(steps):,} stages (the study would take {takes / 3600:.1f} h on 8 workers)\n")
    print("| what | s |\n|---|---|")
    for what, seconds in parts.items():
        print(f"| {what} | {seconds:.2f} |")
    print(f"| all | {sum(parts.values()):.2f} |\n\nresident at most {peak:.2f} GiB, torch included "
          f"if it was loaded ({'torch' in sys.modules})")  # fmt: skip
    verdict(sum(parts.values()) <= PLANNED_S and peak <= PLANNED_GIB,
            f"at most {PLANNED_S} s and {PLANNED_GIB} GiB for {len(steps):,} stages")  # fmt: skip


def lab(size: Size) -> None:
    """A study of the lab's model, arms x seeds, in order and on workers: the same readings."""
    from fixtures.study import readings_of

    from holdfast import study
    from holdfast.config import load

    text: dict[str, Any] = {
        "name": "lab", "model": "lab", "seeds": list(range(size.seeds)),
        "tasks": {"lab_math": {"role": "target", "items": size.items, "train_items": 64},
                  "lab_refuse": {"items": size.items}},
        "train": {"optim": "adamw_torch", "max_steps": size.steps, "checkpoints": 1},
        "arms": {f"arm{n}": {"train": {"learning_rate": (n + 1) * 1e-4}}
                 for n in range(size.arms)},
    }  # fmt: skip
    print(f"\n{size.arms} arms x {size.seeds} seeds of the lab's model, {cores()} cores\n")
    print("| where | s | against one process |\n|---|---|---|")
    first, readings = 0.0, dict[str, str]()
    for workers in (0, 1, 2, 4):
        own = text | ({"hardware": {"workers": workers}} if workers else {})
        with tempfile.TemporaryDirectory() as scratch:
            started, folder = time.monotonic(), Path(scratch) / "run"
            study.run(load.load(own), folder, Silent(), on="workers" if workers else "local")
            took, found = time.monotonic() - started, readings_of(folder)
        first, readings = first or took, readings or found
        words = f"{workers} workers" if workers else "in order"
        same = "" if found == readings else " (READINGS DIFFER)"
        print(f"| {words} | {took:.0f} | {first / took:.2f}{same} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lab", action="store_true", help="a study that computes, as well")
    parser.add_argument("--ray", action="store_true", help="the overhead on a Ray, as well")
    parser.add_argument("--large", action="store_true", help="ten thousand stages only")
    parser.add_argument("--small", action="store_true", help="with little to do, to try it")
    given = parser.parse_args()
    size = SMALL if given.small else Size()
    os.environ["PYTHONPATH"] = side_by_side.variables(())["PYTHONPATH"]  # for Ray's workers, too
    if not given.large:
        efficiency(size)
        overhead(size, given.ray)
    ten_thousand(size)
    if given.lab:
        lab(size)


if __name__ == "__main__":
    main()
