"""How often intervals of 95 % cover the truth, and how often forgetting is made up.

Studies are drawn from a known truth: an item has a difficulty that the base and all runs share, a
run has a shift of its own (`seed_sd`), an item may change for good (`item_sd`), and every answer is
drawn anew. The intervals are those of `holdfast.analysis.stats`; a study counts as covered where
its interval holds the true value over all items and all trainings. For "the more is gained, the
more is forgotten", what is forgotten does not depend on the gain in truth: it wanders as a run goes
on.

    python benchmarks/coverage.py [--studies 4000]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from holdfast.analysis.stats import (
    DosePoint,
    Values,
    average_accuracy,
    dose_response,
    forward_transfer,
    holm,
    mean_over_seeds,
    paired_difference,
    paired_p,
    retained_share,
    stage_backward_transfer,
)

ARMS = 6
STAGES = ((0.3, 0.4, 0.5), (0.8, 0.45, 0.5), (0.6, 0.85, 0.5), (0.5, 0.75, 0.9))
"""The true share of three tasks, of the untouched model and after each of three stages."""
LEARNED = (
    (1, (100, 100, 100), 0.0),
    (1, (40, 400, 100), 0.0),
    (2, (300, 300, 300), 0.1),
    (3, (100, 100, 100), 0.1),
    (3, (40, 400, 100), 0.1),
    (5, (300, 300, 300), 0.1),
)
"""Seeds, items of the tasks, and how much trainings differ."""
MEASURES = ("average accuracy", "backward transfer", "forward transfer")


@dataclass(frozen=True, slots=True)
class Scenario:
    """The truth behind a study."""

    seeds: int
    items: int
    share: float = 0.7  # of the base
    drop: float = 0.0  # of the runs, on average
    seed_sd: float = 0.0  # of a run's shift, in probits
    item_sd: float = 0.3  # of an item's lasting change, in probits
    spread: float = 1.5  # of the items' difficulty, in probits

    @property
    def name(self) -> str:
        """In words."""
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        shift = f", seeds differ ({self.points:.1f} points)" if self.seed_sd else ""
        return f"{seeds}, {self.items} items, {self.share:.0%} less {self.drop:.0%}{shift}"

    @property
    def wide(self) -> float:
        """Standard deviation of a run's latent answer."""
        return math.sqrt(1 + self.spread**2 + self.seed_sd**2 + self.item_sd**2)

    @property
    def centres(self) -> tuple[float, float]:
        """Mean latent value of base and runs; their shares are exactly `share`, `share - drop`."""
        inverse = NormalDist().inv_cdf
        before = inverse(self.share) * math.sqrt(1 + self.spread**2)
        return before, inverse(self.share - self.drop) * self.wide

    @property
    def points(self) -> float:
        """How much a run's share differs by its seed: standard deviation, percentage points."""
        height = NormalDist().pdf(NormalDist().inv_cdf(self.share - self.drop))
        return 100 * self.seed_sd / self.wide * height


COVERED = (
    Scenario(1, 100),
    Scenario(1, 100, drop=0.15),
    Scenario(1, 1000, share=0.95, drop=0.02),
    Scenario(2, 300, drop=0.1),
    Scenario(2, 300, drop=0.1, seed_sd=0.1),
    Scenario(3, 100),
    Scenario(3, 100, share=0.97),
    Scenario(3, 300, drop=0.1),
    Scenario(3, 300, drop=0.1, seed_sd=0.1),
    Scenario(3, 1000, drop=0.1, seed_sd=0.2),
    Scenario(3, 1000, share=0.95, drop=0.02, seed_sd=0.1),
    Scenario(5, 100, drop=0.1),
    Scenario(5, 300, drop=0.1, seed_sd=0.1),
    Scenario(5, 1000, drop=0.1, seed_sd=0.2),
)
BLIND = Scenario(1, 1000, drop=0.1, seed_sd=0.2)
"""One run of a training that differs by its seed: an interval from one run cannot see that."""
ALARMS = (
    Scenario(1, 300, item_sd=0.0),
    Scenario(2, 300, seed_sd=0.1),
    Scenario(3, 300),
    Scenario(3, 300, seed_sd=0.1),
    Scenario(3, 1000, share=0.95, seed_sd=0.2),
    Scenario(3, 1000, seed_sd=0.3),
    Scenario(5, 300, seed_sd=0.1),
)


def draw(truth: Scenario, rng: np.random.Generator, arms: int = 1) -> tuple[Values, list[Values]]:
    """The base's values (items,) and those of several arms (seeds, items) on the same items."""
    before, after = truth.centres
    difficulty = rng.normal(0, truth.spread, truth.items)
    base = (rng.normal(before + difficulty) > 0).astype(float)
    tuned = []
    for _ in range(arms):
        shift = rng.normal(0, truth.seed_sd, (truth.seeds, 1))
        lasting = rng.normal(0, truth.item_sd, truth.items)
        latent = rng.normal(after + difficulty + lasting + shift)
        tuned.append((latent > 0).astype(float))
    return base, tuned


def coverage(truth: Scenario, studies: int, seed: int = 0) -> dict[str, float]:
    """Share of studies whose interval holds the truth, by kind of interval."""
    rng = np.random.default_rng(seed)
    after = truth.share - truth.drop
    hits = {"difference": 0, "share": 0, "retained": 0}
    for _ in range(studies):
        base, (tuned,) = draw(truth, rng)
        for kind, found, true in (
            ("difference", paired_difference(base, tuned), -truth.drop),
            ("share", mean_over_seeds(tuned), after),
            ("retained", retained_share(base, tuned), after / truth.share),
        ):
            low, high = found.low, found.high
            hits[kind] += low is None or high is None or low <= true <= high
    return {kind: count / studies for kind, count in hits.items()}


def continual(
    seeds: int, sizes: tuple[int, int, int], seed_sd: float, studies: int, seed: int = 0
) -> dict[str, float]:
    """Share of studies whose interval holds the truth, of tasks learned one after the other.

    Args:
        seeds: trainings.
        sizes: items of each task.
        seed_sd: of a training's shift on a task at a stage, in probits.
        studies: to draw.
        seed: of the drawing.
    """
    rng, last = np.random.default_rng(seed), STAGES[-1]
    true = (
        sum(last) / 3,
        sum(last[j] - STAGES[j + 1][j] for j in range(2)) / 2,
        sum(STAGES[j][j] - STAGES[0][j] for j in (1, 2)) / 2,
    )
    truth = dict(zip(MEASURES, true, strict=True))
    hits = dict.fromkeys(truth, 0)
    for _ in range(studies):
        rows: list[list[Values]] = [[] for _ in STAGES]
        for task, items in enumerate(sizes):
            one = Scenario(seeds, items, seed_sd=seed_sd)
            difficulty = rng.normal(0, one.spread, items)
            for stage, shares in enumerate(STAGES):
                middle = NormalDist().inv_cdf(shares[task])
                if stage == 0:
                    latent = rng.normal(middle * math.hypot(1, one.spread) + difficulty)[None, :]
                else:
                    shift = rng.normal(0, seed_sd, (seeds, 1))
                    lasting = rng.normal(0, one.item_sd, items)
                    latent = rng.normal(
                        middle * one.wide + difficulty + lasting + shift, size=(seeds, items)
                    )
                rows[stage].append((latent > 0).astype(float))
        measured = (
            average_accuracy(rows[-1]),
            stage_backward_transfer(rows[1:]),
            forward_transfer(rows[0], rows[1:]),
        )
        for name, found in zip(MEASURES, measured, strict=True):
            assert found is not None
            low, high = found.low, found.high
            hits[name] += low is None or high is None or low <= truth[name] <= high
    return {name: count / studies for name, count in hits.items()}


def false_alarms(truth: Scenario, studies: int, seed: int = 0) -> tuple[float, float]:
    """Share of studies without any effect in which an arm is said to forget, or to have changed.

    Six arms that share the base, corrected by Holm.
    """
    rng = np.random.default_rng(seed)
    forgets = changed = 0
    for _ in range(studies):
        base, arms = draw(truth, rng, ARMS)
        adjusted = holm([paired_p(base, tuned) for tuned in arms])
        worse = [float(tuned.mean() - base.mean()) < 0 for tuned in arms]
        hits = [p < 0.05 for p in adjusted]
        forgets += any(hit and down for hit, down in zip(hits, worse, strict=True))
        changed += any(hits)
    return forgets / studies, changed / studies


def dose_alarms(
    seeds: int, studies: int, effect: float = 0.0, seed: int = 0
) -> tuple[float, float]:
    """Share of arms, and of pooled answers, that say "supported".

    Three arms of six checkpoints on 300 items each; gains rise by 40 points, losses rise by
    `effect` and wander by 3 points a checkpoint.
    """
    rng = np.random.default_rng(seed)
    items, steps, arms = 300, 6, 3
    by_arm = pooled = 0
    for _ in range(studies):
        skill = rng.random(items) ** 0.3
        base_target, base = np.zeros(items), (rng.random(items) < skill).astype(float)
        points = []
        for arm, run in ((a, s) for a in range(arms) for s in range(seeds)):
            losses = effect * np.arange(1, steps + 1) / steps + rng.normal(0, 0.03, steps).cumsum()
            for step, loss in enumerate(losses, start=1):
                target = (rng.random(items) < 0.4 * step / steps).astype(float)
                retained = (rng.random(items) < np.clip(skill - loss, 0, 1)).astype(float)
                points.append(DosePoint(str(arm), run, target, retained))
        found = dose_response(points, base_target, base, draws=300)
        by_arm += sum(one.words == "supported" for one in found[:-1])
        pooled += found[-1].words == "supported"
    return by_arm / studies / arms, pooled / studies


FEW_FLIPS = ((0.5, 0.005), (0.5, 0.025), (0.5, 0.1), (0.9, 0.025), (0.99, 0.005))
"""Share of the base that is right, and of all items that are lost; none is won."""


def few_flips(
    items: int, right: float, lost: float, draws: int, seed: int = 0
) -> tuple[float, float]:
    """How often the low end lies above the truth when few items are lost: Tango's and Newcombe's.

    Args:
        items: of one study.
        right: share that the base gets right.
        lost: share of all items that go from right to wrong.
        draws: studies.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(items, [right - lost, lost, 1 - right], size=draws)
    ends: dict[tuple[int, int], tuple[float, float]] = {}
    for both, gone, _ in counts:
        if (both, gone) not in ends:
            base = (np.arange(items) < both + gone).astype(float)
            tuned = (np.arange(items) < both).astype(float)
            found = paired_difference(base, tuned[None, :])
            ends[both, gone] = found.low or 0.0, newcombe_low(items, both, gone)
    misses = [[end > -lost for end in ends[both, gone]] for both, gone, _ in counts]
    tango, newcombe = np.mean(misses, axis=0)
    return float(tango), float(newcombe)


def newcombe_low(n: int, both: int, lost: int) -> float:
    """Low end of Newcombe's interval (1998, Stat. Med. 17:2635-2650, method 10); none won."""
    z, neither = NormalDist().inv_cdf(0.975), n - both - lost

    def score(share: float) -> tuple[float, float]:
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return middle - z / (1 + z * z / n) * reach, middle + z / (1 + z * z / n) * reach

    p, q = (both + lost) / n, both / n
    high_p, low_q = score(p)[1], score(q)[0]
    margins = (both + lost) * neither * both * (lost + neither)
    agreement = max(both * neither - n / 2, 0.0)
    phi = agreement / math.sqrt(margins) if margins else 0.0
    a, b = q - low_q, high_p - p
    return q - p - math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


def main() -> None:
    """Simulate all scenarios and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=4000)
    studies = parser.parse_args().studies
    rows = [(truth, coverage(truth, studies)) for truth in (*COVERED, BLIND)]
    alarms = [(truth, *false_alarms(truth, studies)) for truth in (*ALARMS, replace(BLIND, drop=0))]
    few = max(1, studies // 10)
    doses = [(n, e, *dose_alarms(n, few, e)) for e in (0.0, 0.2) for n in (1, 3)]
    print(f"\n{studies} studies each; no effect: {ARMS} arms, Holm's correction\n")
    print("| scenario | difference covered | share covered | retained share covered |")
    print("|---|---|---|---|")
    for truth, found in rows:
        print(f"| {truth.name} | " + " | ".join(f"{one:.1%}" for one in found.values()) + " |")
    print("\nThree tasks learned one after the other\n")
    print("| seeds | items of the tasks | seeds differ | " + " | ".join(MEASURES) + " |")
    print("|---|---|---|---|---|---|")
    for given in LEARNED:
        shares = continual(*given, studies)
        told = f"{given[0]} | {', '.join(map(str, given[1]))} | {'yes' if given[2] else 'no'}"
        print(f"| {told} | " + " | ".join(f"{one:.1%}" for one in shares.values()) + " |")
    print("\n| scenario | an arm is said to forget | an arm is said to have changed |")
    print("|---|---|---|")
    for truth, forgets, changed in alarms:
        print(f"| {truth.name} | {forgets:.1%} | {changed:.1%} |")
    print("\nOne seed, few items lost: the low end lies above the truth (2.5 % promised)\n")
    print("| items | base right | lost | Tango (used) | Newcombe |")
    print("|---|---|---|---|---|")
    for items in (100, 200, 600):
        for right, lost in FEW_FLIPS:
            tango, newcombe = few_flips(items, right, lost, studies)
            print(f"| {items} | {right:.0%} | {lost:.1%} | {tango:.1%} | {newcombe:.1%} |")
    print(f"\n{few} studies each: the more is gained, the more is forgotten\n")
    print("| seeds | true rise of the loss | an arm says supported | pooled says supported |")
    print("|---|---|---|---|")
    for seeds, effect, arm, pooled in doses:
        print(f"| {seeds} | {100 * effect:.0f} points | {arm:.1%} | {pooled:.1%} |")


if __name__ == "__main__":
    main()
