"""How often the interval of the dominated area covers the true area, and how wide it is.

An arm has eight checkpoints; their true shares are known, and with them the area that they dominate
over all items and all trainings. Studies are drawn from that truth: an item has a difficulty that
the base and all checkpoints share, a training shifts a task as a whole and each of its checkpoints
by itself, and every answer is drawn anew. Beside the interval in use stands what it replaced: the
edge picked on one half of the items and held fixed in a percentile bootstrap over items and seeds.

    python benchmarks/frontier.py [--studies 100]
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from holdfast.analysis.selection import Candidate, fronts, hypervolume, undominated
from holdfast.analysis.stats import Values
from holdfast.types import Point

SPREAD, LASTING = 1.5, 0.3  # of the items' difficulty and of their lasting change, in probits
BASE = {"target": 0.3, "retained": 0.85}
NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Case:
    """The truth behind a study.

    Attributes:
        shape: how gains and losses go along the checkpoints.
        seeds: trainings.
        items: per task.
        shift: standard deviation of a training's shift of a task, as a share.
        wobble: the same of a single checkpoint of a training.
        retained: how many tasks are retained.
        steps: checkpoints of each training.
    """

    shape: str
    seeds: int
    items: int
    shift: float = 0.0
    wobble: float = 0.0
    retained: int = 1
    steps: int = 8

    @property
    def changes(self) -> tuple[Values, Values]:
        """True gain and true change of every retained task, by checkpoint."""
        way = np.linspace(0, 1, self.steps)
        gain, change = {
            "trade-off": (0.05 + 0.35 * way, -0.02 - 0.4 * way),
            "flat": (0.3 + 0 * way, -0.1 + 0 * way),
            "saturating": (0.15 + 0.2 * np.sqrt(way), -0.05 - 0.1 * way),
            "close": (0.28 + 0.04 * way, -0.08 - 0.04 * way),
            "small gain": (0.03 + 0 * way, -0.02 + 0 * way),
        }[self.shape]
        return gain, change

    @property
    def truth(self) -> float:
        """The area that the true means dominate."""
        return float(hypervolume(np.stack(self.changes, axis=-1)))

    @property
    def name(self) -> str:
        """In words."""
        said = [self.shape, f"{self.seeds} seed{'s' * (self.seeds > 1)}", f"{self.items} items"]
        said += [f"{self.steps} checkpoints"] * (self.steps != 8)
        said += [f"{self.retained} retained tasks"] * (self.retained > 1)
        if self.shift or self.wobble:
            said.append(f"seeds differ by {100 * self.shift:.0f} + {100 * self.wobble:.0f}")
        return ", ".join(said)


CASES = (
    *(Case(shape, seeds, items, shift, wobble)
    for shape in ("trade-off", "flat", "saturating", "close")
    for seeds, items, shift, wobble in (
        (1, 100, 0.0, 0.0), (1, 300, 0.0, 0.0), (1, 300, 0.03, 0.0), (1, 600, 0.03, 0.0),
        (2, 100, 0.03, 0.0), (2, 300, 0.0, 0.0), (2, 300, 0.03, 0.0), (2, 300, 0.02, 0.02),
        (3, 100, 0.0, 0.0), (3, 100, 0.03, 0.0), (3, 300, 0.02, 0.02), (3, 600, 0.03, 0.0),
    )),
    Case("flat", 1, 300, steps=20), Case("saturating", 2, 300, 0.02, 0.02, steps=20),
    Case("saturating", 3, 100, 0.03, retained=3), Case("flat", 2, 300, 0.03, retained=3),
    Case("small gain", 1, 300, 0.03), Case("small gain", 3, 300, 0.03),
    Case("saturating", 2, 300, 0.06),
)  # fmt: skip


def draw(case: Case, rng: np.random.Generator) -> tuple[dict[str, Values], dict[str, Values]]:
    """The base's readings (items,) and the arm's (seeds, steps, items), by task."""
    gain, change = case.changes
    base, arm = {}, {}
    tasks = {"target": (BASE["target"], gain)}
    tasks |= {f"retained {i}": (BASE["retained"], change) for i in range(case.retained)}
    for task, (before, moved) in tasks.items():
        difficulty = rng.normal(0, SPREAD, case.items)
        middle = NORMAL.inv_cdf(before) * math.sqrt(1 + SPREAD**2)
        base[task] = (rng.normal(middle + difficulty) > 0).astype(float)
        centre = np.array([NORMAL.inv_cdf(one) for one in before + moved])
        slope = np.array([NORMAL.pdf(one) for one in centre])  # share per probit of the whole
        shift, wobble = case.shift / slope, case.wobble / slope
        wide = np.sqrt((1 + SPREAD**2 + LASTING**2) / (1 - shift**2 - wobble**2))
        latent = centre * wide + rng.normal(size=(case.seeds, 1)) * shift * wide
        latent = latent + rng.normal(size=(case.seeds, case.steps)) * wobble * wide
        lasting = difficulty + rng.normal(0, LASTING, case.items)
        noise = rng.normal(size=(case.seeds, case.steps, case.items))
        arm[task] = (latent[..., None] + lasting + noise > 0).astype(float)
    return base, arm


def estimated(base: dict[str, Values], arm: dict[str, Values]) -> tuple[float, float, float]:
    """Area, low and high end, as reports show them."""
    seeds, steps, _ = arm["target"].shape
    models = [
        Candidate(Point("arm", s, k), {task: table[s, k] for task, table in arm.items()})
        for s in range(seeds) for k in range(steps)
    ]  # fmt: skip
    (front,) = fronts(models, base, "target")
    area = front.volume
    assert area.mean is not None and area.low is not None and area.high is not None
    return area.mean, area.low, area.high


def replaced(
    base: dict[str, Values], arm: dict[str, Values], rng: np.random.Generator, draws: int = 200
) -> tuple[float, float, float]:
    """The same by the method used before: two halves, edges held fixed, percentile bootstrap."""
    seeds, _, items = arm["target"].shape
    first = rng.permutation(items) % 2 == 0
    weights = np.concatenate([[np.ones(seeds)], rng.multinomial(seeds, [1 / seeds] * seeds, draws)])
    planes = []
    for half in (first, ~first):
        means, n = [], int(half.sum())
        for task, table in arm.items():
            counts = np.concatenate([[np.ones(n)], rng.multinomial(n, [1 / n] * n, draws)])
            change = (table - base[task])[..., half].transpose(2, 0, 1).reshape(n, -1)
            moved = (counts @ change / n).reshape(draws + 1, seeds, -1)
            means.append(np.einsum("ds,dsk->dk", weights / seeds, moved))
        planes.append(np.stack([means[0], np.min(means[1:], axis=0)], axis=-1))
    areas = np.zeros(draws + 1)
    for chooses, measures in (planes, planes[::-1]):
        points = chooses[0]
        edge = np.flatnonzero((points > (0, -1)).all(axis=1) & undominated(points))
        edge = edge[np.lexsort((-points[edge, 1], points[edge, 0]))]
        gain, kept = measures[:, edge, 0], measures[:, edge, 1] + 1
        areas += (np.diff(gain, axis=1, prepend=0.0) * kept).sum(axis=1) / 2
    low, high = np.quantile(areas[1:], [0.025, 0.975])
    return float(areas[0]), float(low), float(high)


def coverage(case: Case, studies: int, seed: int = 0, before: bool = True) -> list[float]:
    """Coverage, mean width and mean error of the interval, and of what it replaced."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(studies):
        study = draw(case, rng)
        both = [estimated(*study)] + ([replaced(*study, rng)] if before else [])
        found.append([
            [low <= case.truth <= high, high - low, mean - case.truth] for mean, low, high in both
        ])  # fmt: skip
    return [float(one) for one in np.mean(found, axis=0).ravel()]


def main() -> None:
    """Print the table, and how long many checkpoints take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=100)
    studies = parser.parse_args().studies
    error = math.sqrt(0.95 * 0.05 / studies)
    print(f"{studies} studies a case; standard error of a coverage of 95 %: {error:.1%}\n")
    print("| case | true area | covered | width | error | before: covered | width | error |")
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        now = coverage(case, studies)
        cells = [f"{one:.1%}" if i % 3 == 0 else f"{one:+.3f}"[i % 3 == 1:]
                 for i, one in enumerate(now)]  # fmt: skip
        print(f"| {case.name} | {case.truth:.3f} | " + " | ".join(cells) + " |", flush=True)
    big = Case("saturating", 3, 1000, retained=3, steps=170)
    study = draw(big, np.random.default_rng(0))
    start = time.perf_counter()
    estimated(*study)
    took = time.perf_counter() - start
    print(f"\n{big.seeds * big.steps} models, 4 tasks of {big.items} items: {took:.1f} s")


if __name__ == "__main__":
    main()
