"""How often does the rule ship a model that it must not ship, and how often one that it may?

Studies are simulated: models in the order of the target, each with a true loss on one or several
retained tasks, flips each way drawn per item, and the rule's margin of two points. The counts go
through the same score as `decide`; `--check` puts whole readings to `decide` itself.

    python benchmarks/decision.py [--quick] [--check]

"False" is the share of studies that ship a model whose true loss is at the margin or beyond; it
must not exceed 2.5 %. The bound is the power of one ordinary 95 % interval over all items on one
model that nobody had to choose.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from holdfast.analysis.selection import Candidate, decide
from holdfast.analysis.selection.rule import DOUBT, ERROR, MARGIN, error_of
from holdfast.config import ShipSpec
from holdfast.types import Point

FLIPS = 0.02
"""Share of items that flip each way, beside the true loss."""
ITEMS = (300, 600, 1000, 1500, 2000, 3000)
Counts = NDArray[np.int64]
Values = NDArray[np.float64]
Statistic = Callable[[Counts, Counts, int, float], Values]


@dataclass(frozen=True, slots=True)
class Setting:
    """One kind of study.

    Attributes:
        items: of every retained task.
        losses: true loss of each model on the first retained task, in the order of the target.
        shared: part of the flips that all models have in common.
        tasks: retained tasks; on the others no model loses anything.
        flips: share of items that flip each way.
    """

    items: int
    losses: tuple[float, ...]
    shared: float = 0.0
    tasks: int = 1
    flips: float = FLIPS


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares of studies.

    Attributes:
        shipped: some model.
        false: one that loses as much as the margin, or more.
        agree: in which `decide` says the same; 1 where it was not asked.
    """

    shipped: float
    false: float
    agree: float = 1.0


def simulate(setting: Setting, studies: int, seed: int, whole: bool = False) -> Outcome:
    """Draw studies and put them to the rule.

    Args:
        setting: what they are like.
        studies: how many.
        seed: of the draws.
        whole: put the readings to `decide` as well, item by item.
    """
    rng = np.random.default_rng(seed)
    losses, models = np.array(setting.losses), len(setting.losses)
    scores, drawn = [], []
    for task in range(setting.tasks):
        own = losses if task == 0 else np.zeros(models)
        lost, won = _flips(setting, own, studies, rng)
        scores.append(score(lost, won, setting.items, MARGIN))
        drawn.append((lost, won))
    lowest = np.min(scores, axis=0)  # a model must meet every need
    chosen = _line(lowest, models)
    shipped = chosen >= 0
    false = shipped & (losses[chosen] >= -MARGIN - 1e-12)
    agree = 1.0
    if whole:
        found = [_decided(setting, drawn, study) for study in range(studies)]
        agree = float((np.array(found) == chosen).mean())
    return Outcome(float(shipped.mean()), float(false.mean()), agree)


def score(lost: Counts, won: Counts, n: int, margin: float) -> Values:
    """Tango's statistic of "the change is the margin", as in `holdfast.analysis.stats`."""
    b = (2 * n - won + lost) * margin - won - lost
    c = -lost * margin * (1 - margin)
    share = (np.sqrt(np.maximum(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + margin * (1 - margin))
    found: Values = (won - lost - n * margin) / np.sqrt(variance)
    return found


def wald(lost: Counts, won: Counts, n: int, margin: float) -> Values:
    """The same by Wald's interval, whose variance is the one that was seen."""
    mean = (won - lost) / n
    found: Values = (mean - margin) / np.sqrt(np.maximum(1e-12, ((lost + won) / n - mean**2) / n))
    return found


def bound(n: int, flips: float = FLIPS, loss: float = 0.0, statistic: Statistic = score) -> float:
    """Power of one 95 % interval on one model, summed over all counts of flips.

    Args:
        n: items.
        flips: share that flips each way.
        loss: true; at the margin it gives how often the interval errs.
        statistic: of the interval.
    """
    from scipy.stats import binom

    most = [int(n * q + 9 * math.sqrt(n * q) + 12) for q in (flips + loss, flips)]
    lost, won = np.meshgrid(np.arange(most[0]), np.arange(most[1]), indexing="ij")
    chance = binom.pmf(lost, n, flips + loss)
    chance *= binom.pmf(won, n - lost, flips / (1 - flips - loss))
    return float(chance[statistic(lost, won, n, MARGIN) >= quantile(ERROR)].sum())


def normal_bound(n: int, flips: float = FLIPS) -> float:
    """The same by the normal formula with the true variance; no interval that holds reaches it."""
    return NormalDist().cdf(-MARGIN / math.sqrt(2 * flips / n) - quantile(ERROR))


def best_possible(n: int, flips: float = FLIPS) -> float:
    """The power that no rule on these counts can exceed while it errs in `ERROR` at most.

    The lemma of Neyman and Pearson, against the hardest of the models that lose just the margin.
    """
    from scipy.stats import binom

    most = int(n * (flips - MARGIN) + 9 * math.sqrt(n * (flips - MARGIN)) + 12)
    lost, won = np.meshgrid(np.arange(most), np.arange(most), indexing="ij")

    def chance(lose: float, win: float) -> Values:
        found: Values = binom.pmf(lost, n, lose) * binom.pmf(won, n - lost, win / (1 - lose))
        return found.ravel()

    good, least = chance(flips, flips), 1.0
    for win in np.linspace(0.1, 1.5, 57) * flips:
        bad = np.maximum(chance(win - MARGIN, win), 1e-300)
        order = np.argsort(-good / bad)
        spent, power = bad[order].cumsum(), good[order].cumsum()
        least = min(least, float(np.interp(ERROR, spent, power)))
    return least


def quantile(error: float) -> float:
    """How many standard errors leave out `error` on one side."""
    return NormalDist().inv_cdf(1 - error)


def _flips(
    setting: Setting, losses: Values, studies: int, rng: np.random.Generator
) -> tuple[Counts, Counts]:
    """Lost and won answers, shape (studies, models)."""
    n, q, models = setting.items, setting.flips, len(losses)
    common = setting.shared * np.array([q + losses.min(), q])
    lost0, won0 = _pair(n, common[0], common[1], (studies, 1), rng)
    lost, won = _pair(n, q + losses - common[0], np.full(models, q - common[1]), (studies, models),
                      rng)  # fmt: skip
    return lost + lost0, won + won0


def _pair(
    n: int, lose: Values | float, win: Values | float, size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Counts, Counts]:  # fmt: skip
    lost = rng.binomial(n, lose, size=size)
    return lost, rng.binomial(n - lost, win / (1 - np.asarray(lose)), size=size)


def _line(scores: Values, models: int) -> NDArray[np.int64]:
    """The model that each study ships, -1 for none; `decide`, all studies at once."""
    stands = scores >= quantile(1 - DOUBT) if models > 1 else np.ones_like(scores, dtype=bool)
    place = np.clip(np.cumsum(stands, axis=1) - 1, 0, models - 1)
    wanted = np.array([quantile(error_of(i, models)) for i in range(models)])
    met = stands & (scores >= wanted[place])
    return np.where(met.any(axis=1), met.argmax(axis=1), -1)


def _decided(setting: Setting, drawn: Sequence[tuple[Counts, Counts]], study: int) -> int:
    """The model that `decide` ships, -1 for none; the target's gains are large and in order."""
    n, models = setting.items, len(setting.losses)
    base = {"target": np.zeros(400)} | {f"kept{t}": np.repeat([1.0, 0.0], [n // 2, n - n // 2])
                                        for t in range(setting.tasks)}  # fmt: skip
    found = []
    for i in range(models):
        readings = {"target": np.repeat([1.0, 0.0], [300 - 4 * i, 100 + 4 * i])}
        for t, (lost, won) in enumerate(drawn):
            readings[f"kept{t}"] = base[f"kept{t}"].copy()
            readings[f"kept{t}"][: lost[study, i]] = 0
            readings[f"kept{t}"][n - won[study, i] :] = 1
        found.append(Candidate(Point(f"m{i}", 1, 1), readings))
    chosen = decide(found, base, ShipSpec(), "target").chosen
    return -1 if chosen is None else int(chosen.point.arm[1:])


def kinds(models: int) -> dict[str, tuple[float, ...]]:
    """What the models of a study may be like."""
    good, rest = (0.0,), models - 1
    found = {"all good": good * models}
    if rest:
        found |= {
            "the best good, the rest lose 6 points": good + (0.06,) * rest,
            "the best loses 6 points, the rest good": (0.06,) + good * rest,
            "the best loses 4 points, the rest good": (0.04,) + good * rest,
            "the best loses 3 points, the rest good": (0.03,) + good * rest,
            "half, the better ones, lose 6 points": (0.06,) * (models // 2)
            + good * (models - models // 2),
        }
    return found


def bad(models: int) -> dict[str, tuple[float, ...]]:
    """Studies with models at the margin, which must not be shipped."""
    at = (-MARGIN,)
    found = {"all at the margin": at * models}
    if models > 1:
        found |= {
            "the best at the margin, the rest good": at + (0.0,) * (models - 1),
            "half, the better ones, at the margin": at * (models // 2)
            + (0.0,) * (models - models // 2),
            "the best lose 3 points, the rest at the margin": (0.03,) * (models // 2)
            + at * (models - models // 2),
        }
    return found


def gains(studies: int, seed: int, models: int, n: int = 400, flips: float = 0.1) -> float:
    """How often one of so many models that gain nothing is found to gain; nothing is forgotten."""
    rng = np.random.default_rng(seed)
    lost, won = _pair(n, flips, flips, (studies, models), rng)
    best = score(lost, won, n, 0.0).max(axis=1)
    return float((best > quantile(ERROR / models)).mean())


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few studies")
    parser.add_argument("--check", action="store_true", help="put studies to decide itself")
    given = parser.parse_args()
    studies = 2_000 if given.quick else 40_000
    many = (1, 5, 20) if given.quick else (1, 2, 5, 10, 20)
    items = ITEMS[1:3] if given.quick else ITEMS
    print(f"{studies:,} studies a figure, {FLIPS:.0%} flips each way, margin {-MARGIN:.0%}\n")
    print("## Power: a model is shipped, %\n")
    print("| models, kind | " + " | ".join(f"{n:,} items" for n in items) + " |")
    print("|---|" + "---|" * len(items))
    _row("by the normal formula", [normal_bound(n) for n in items])
    _row("no rule that errs in 2.5 % can do better", [best_possible(n) for n in items])
    _row("bound: one interval, one model", [bound(n) for n in items])
    for models in many:
        for shared in (0.0, 1.0) if models > 1 else (0.0,):
            for name, losses in kinds(models).items():
                part = f", {shared:.0%} of flips in common" if models > 1 else ""
                own = [simulate(Setting(n, losses, shared), studies, 1).shipped for n in items]
                _row(f"{models}: {name}{part}", own)
    for name, statistic in (("Tango's", score), ("Wald's", wald)):
        errs = [bound(n, loss=-MARGIN, statistic=statistic) for n in items]
        _row(f"one model at the margin, by {name} interval: false", errs)
    print("\n## False shipping, % (at most 2.5)\n")
    print("| models, kind | " + " | ".join(f"{n:,} items" for n in items) + " |")
    print("|---|" + "---|" * len(items))
    worst = 0.0
    for models in many:
        for shared in (0.0, 0.8) if models > 1 else (0.0,):
            for tasks in (1, 3):
                for name, losses in bad(models).items():
                    part = f", {shared:.0%} in common" if models > 1 else ""
                    every = [simulate(Setting(n, losses, shared, tasks), studies, 2).false
                             for n in items]  # fmt: skip
                    worst = max(worst, *every)
                    _row(f"{models}: {name}{part}, {tasks} retained", every)
    print("\n## False shipping by flips each way, %, 20 models at the margin, none in common\n")
    print("| flips | " + " | ".join(f"{n:,} items" for n in items) + " |")
    print("|---|" + "---|" * len(items))
    for flips in (0.0, 0.005, 0.01, 0.02, 0.05, 0.1):
        every = [
            simulate(Setting(n, (-MARGIN,) * 20, flips=flips), studies, 3).false for n in items
        ]
        worst = max(worst, *every)
        _row(f"{flips:.1%}", every)
    error = math.sqrt(0.025 * 0.975 / studies)
    print(f"\nWorst: {worst:.2%}, standard error of a figure {error:.2%}")
    print("No gain, nothing lost, yet found to gain, of 1, 5, 20 models: "
          + ", ".join(f"{gains(studies, 4, one):.2%}" for one in (1, 5, 20)))  # fmt: skip
    if given.check:
        for setting in (Setting(400, (0.0, 0.02, 0.05, 0.0)), Setting(600, (0.04, 0.0), 0.5, 3)):
            print(f"decide agrees in {simulate(setting, 400, 5, whole=True).agree:.1%}")


def _row(name: str, shares: Sequence[float]) -> None:
    print(f"| {name} | " + " | ".join(f"{100 * one:.1f}" for one in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
