"""How far the supervised tokens of short and long runs are from the plain arm's budget.

Every case is dealt with ten seeds, in random order and by length; shown is the largest miss. The
lengths of answers are drawn from a log-normal distribution, prompts are longer where answers are.

    python benchmarks/budget.py
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.data.batching import Cost, deal, plain_budget

SEEDS = range(10)


@dataclass(frozen=True, slots=True)
class Case:
    """An arm and the plain arm whose budget it is given.

    Attributes:
        name: what is unusual about it.
        plain: examples of the plain arm.
        steps: optimiser steps.
        batch: micro-batches per step and examples in each.
        own: examples of the arm; None: the plain arm itself.
        length: how many times as long as the plain arm's the arm's answers are.
        spread: standard deviation of the logarithm of lengths.
        replayed: examples of a second kind, with short answers.
    """

    name: str
    plain: int
    steps: int
    batch: tuple[int, int] = (1, 16)
    own: int | None = None
    length: float = 1.0
    spread: float = 0.5
    replayed: int = 0


CASES = (
    Case("1,000 examples", 1000, 10),
    Case("1,000 examples, accumulated", 1000, 10, (4, 4)),
    Case("replay", 600, 20, replayed=60),
    Case("several rounds, the last incomplete", 600, 60),
    Case("longer answers, fewer examples", 600, 60, own=500, length=2.2),
    Case("answers ten times as long", 600, 10, own=300, length=10),
    Case("answers a tenth as long", 600, 10, own=300, length=0.1),
    Case("very uneven answers", 1000, 10, own=2000, spread=1.5),
    Case("forty examples, three steps", 40, 3, (1, 8)),
    Case("one round, its last step incomplete", 1000, 63),
    Case("the course's recipe", 7473, 468, (8, 4), own=7473, length=1.3),
)


def answers(count: int, length: float, spread: float, seed: int) -> list[Cost]:
    """Examples whose answers have about `length` tokens."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        size = rng.gauss(0, 1)
        supervised = max(3, round(length * math.exp(spread * size)))
        found.append(Cost(supervised + round(50 * math.exp(0.2 * size)), supervised))
    return found


def miss(case: Case, by_length: bool, seeds: Sequence[int] = SEEDS) -> float:
    """The largest share by which a run's supervised tokens differ from the budget."""
    plain = answers(case.plain, 100, 0.5, 1)
    budget = plain_budget(plain, case.steps, *case.batch)
    own = plain
    if case.own is not None:
        own = answers(case.own, 100 * case.length, case.spread, 2)
    rows = own + answers(case.replayed, 30, 0.5, 3)
    kinds = ["task"] * len(own) + ["replay"] * case.replayed
    shares = []
    for seed in seeds:
        slots = deal(rows, kinds, budget, seed, by_length)
        spent = sum(rows[index].supervised for slot in slots for index in slot)
        shares.append(abs(spent / budget.supervised_tokens - 1))
    return max(shares)


def main() -> None:
    """Print the table."""
    print("| case | examples, steps x batch | largest miss in random order | by length |")
    print("|---|---|---|---|")
    for case in CASES:
        size = f"{case.own or case.plain:,}, {case.steps} x {math.prod(case.batch)}"
        found = " | ".join(f"{miss(case, by_length):.2%}" for by_length in (False, True))
        print(f"| {case.name} | {size} | {found} |")


if __name__ == "__main__":
    main()
