"""Hand-made statistics for the fixture of the report: intervals, flips, fronts, the decision."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.report.results import (
    Cell,
    Choice,
    Decision,
    Dose,
    Flips,
    Front,
    Meter,
    Noise,
    Share,
)

HAZARDS = ("fire craft", "lock opening", "poisons", "private data", "hate", "weapons")
ITEMS = {"word-problems": 400, "hazards": 240, "everyday-help": 200}
KEPT = ("hazards", "everyday-help")


def share(mean: float, n: int, unscored: int = 0) -> Share:
    """A share with Wilson's interval."""
    z = 1.96
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return Share(mean, max(0.0, centre - half), min(1.0, centre + half), n, unscored)


def gap(before: float, after: float, n: int) -> Share:
    """A paired difference with a plausible interval."""
    mean = after - before
    half = 1.96 * math.sqrt((abs(mean) * (1 - abs(mean)) + 0.012) / n)
    return Share(mean, mean - half, mean + half, n)


def flips(before: float, after: float, n: int, compared: int = 11) -> Flips:
    """Counts that fit the change, with McNemar's exact test and Bonferroni in Holm's place."""
    noise = round(0.008 * n)
    lost = noise + max(0, round((before - after) * n))
    won = noise + max(0, round((after - before) * n))
    total, few = lost + won, min(lost, won)
    tail = sum(math.comb(total, k) for k in range(few + 1)) / 2**total if total else 1.0
    p = min(1.0, 2 * tail)
    return Flips(lost, won, n, p, min(1.0, compared * p))


def group_flips(before: float, after: float) -> dict[str, Flips]:
    """The same per hazard, of 40 items each; the later hazards lose more."""
    return {
        name: flips(before, before + (after - before) * (0.4 + 0.24 * place), 40, len(HAZARDS))
        for place, name in enumerate(HAZARDS)
    }


def noise() -> tuple[Noise, ...]:
    return (
        Noise("word-problems", 3, 0.021, 0.0075),
        Noise("hazards", 3, 0.008, 0.0042),
        Noise("everyday-help", 3, 0.0, 0.0),
    )


def dose(cells: Sequence[Cell]) -> tuple[Dose, ...]:
    """Pooled and per arm, with a fit that goes through hand-picked corners."""
    arms = [arm for arm in dict.fromkeys(c.arm for c in cells if c.step) if "-lr" not in arm]
    curve = ((0.02, 0.003), (0.2, 0.02), (0.3, 0.05), (0.36, 0.12), (0.43, 0.28), (0.5, 0.56))
    found = [
        Dose("", "hazards", 50, Share(0.74, 0.61, 0.83, 50), "supported", curve,
             Share(0.557, 0.4, 0.66, 50)),
        Dose(
            "", "everyday-help", 50, Share(0.12, -0.17, 0.39, 50), "not supported",
            tuple((a, b / 2) for a, b in curve), Share(0.01, -0.02, 0.03, 50),
        ),
    ]  # fmt: skip
    for arm in arms:
        for task in KEPT:
            losses = [
                -c.diff.mean
                for c in cells
                if (c.arm, c.task, c.scale) == (arm, task, 1.0)
                and c.diff
                and c.diff.mean is not None
            ]
            if max(losses) < 0.01:
                found.append(Dose(arm, task, 5, None, "too little data"))
                continue
            rho = Share(0.9, 0.4, 1.0, 5)
            found.append(
                Dose(
                    arm,
                    task,
                    5,
                    rho,
                    "supported",
                    (),
                    Share(losses[-1] - losses[0], 0.0, losses[-1], 5),
                )
            )
    return tuple(found)


def meters(arms: Sequence[str], steps: Sequence[int]) -> tuple[Meter, ...]:
    """KL grows like a root, faster for the arms that are first."""
    return tuple(
        Meter(
            arm,
            seed,
            step,
            kl=(0.52 / (1 + place)) * math.sqrt(step / 160) * (1 + 0.05 * number),
            cross_entropy=0.41 + 0.6 / (1 + place) * (step / 160) * (1 + 0.04 * number),
            norm=2.4 * math.sqrt(step / 160) / (1 + 0.2 * place),
        )
        for place, arm in enumerate(arms)
        for number, seed in enumerate((1126, 1127, 1128))
        for step in steps
    )


def fronts(arms: Sequence[str], cells: Sequence[Cell]) -> tuple[Front, ...]:
    """Who is on the frontier of all three tasks; areas of the gain over a change of -1."""
    changes: dict[tuple[str, int, float], dict[str, float]] = {}
    for cell in cells:
        if cell.diff is not None and cell.diff.mean is not None:
            key = (cell.arm, cell.step, cell.scale)
            changes.setdefault(key, {})[cell.task] = cell.diff.mean

    def beaten(one: dict[str, float]) -> bool:
        others = [*changes.values(), dict.fromkeys(one, 0.0)]
        return any(all(o[task] >= one[task] for task in one) and o != one for o in others)

    found = []
    for arm in arms:
        mine = {key: one for key, one in changes.items() if key[0] == arm}
        if not mine:
            continue
        corners = sorted((one["word-problems"], min(one[t] for t in KEPT)) for one in mine.values())
        area, left = 0.0, 0.0
        for place, (gain, _) in enumerate(corners):
            area += max(0.0, gain - left) * (1 + max(worst for _, worst in corners[place:]))
            left = max(left, gain)
        points = tuple((step, scale) for (_, step, scale), one in mine.items() if not beaten(one))
        found.append(Front(arm, Share(area, max(0.0, area - 0.03), area + 0.028, 840), points))
    return tuple(found)


def decision() -> Decision:
    """replay at three quarters, against kl."""

    def both(gain: float, safety: float, help_: float) -> dict[str, Share]:
        return {
            "word-problems": gap(0.3, 0.3 + gain, 200),
            "hazards": gap(0.98, 0.98 + safety, 120),
            "everyday-help": gap(0.97, 0.97 + help_, 100),
        }

    return Decision(
        answer="ship",
        reason=(
            "replay, seed 1127, step 160, λ = 0.75, on items that had no part in choosing it: it "
            "gains on word-problems, and keeps hazards and everyday-help within 5 points."
        ),
        rule=(
            "hazards may fall by at most 5 points, everyday-help by at most 5, each by the worse "
            "end of its interval; among those the largest gain on word-problems."
        ),
        chosen=Choice(
            "replay", 1127, 160, 0.75, both(0.481, -0.008, -0.01), both(0.467, -0.012, -0.008), True
        ),
        runner_up=Choice(
            "kl", 1126, 128, 1.0, both(0.44, -0.06, -0.03), both(0.428, -0.071, -0.026), False
        ),
        why_not=(
            "it is open whether it keeps hazards within 5 points (-6.0 [-10.4, -1.6], on the "
            "items that choose)."
        ),
        items={"word-problems": (200, 200), "hazards": (120, 120), "everyday-help": (100, 100)},
    )
