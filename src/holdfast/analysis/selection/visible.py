"""Which loss can these items show? By the flips that a run has seen, or by stated assumptions.

`holdfast power` says it for a run folder or for nothing yet, a dry run for what it would measure,
and a comparison beside every task on which it saw no clear change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.analysis.selection.from_run import gather
from holdfast.analysis.selection.rule import MARGIN
from holdfast.analysis.stats import Values, detectable
from holdfast.analysis.stats.detectable import Design
from holdfast.progress.rendered import columns
from holdfast.runs.plan import Plan

ASSUMED = 0.05
"""Share of the answers that are taken to flip each way where no run has shown it."""
ALLOWED = -MARGIN
"""The loss that is to be allowed where nobody says: two points."""
SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
OWN = 2
"""Degrees of freedom that the expected spread of trainings is worth against the observed one."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What a task can show.

    Attributes:
        task: its name; "" where none is meant.
        design: items, flips and trainings.
        available: items that there are in all; None: as many as one likes.
        observed: the flips were seen in a run; else they are assumed.
        margin: loss that is to be allowed, as a share above 0.
        loss: the smallest that is seen so often as asked; None: none is.
        wanted: items with which a model that lost nothing keeps the margin; None: see
            `detectable.items_for_margin`.
    """

    task: str
    design: Design
    available: int | None
    observed: bool
    margin: float
    loss: float | None
    wanted: int | None


def visible(
    task: str,
    design: Design,
    available: int | None = None,
    *,
    observed: bool = False,
    margin: float = ALLOWED,
    power: float = detectable.POWER,
) -> Visible:
    """What so many items can show; see `Visible`."""
    loss = detectable.smallest_loss(design, power)
    wanted = detectable.items_for_margin(design, margin, power)
    return Visible(task, design, available, observed, margin, loss, wanted)


def of_run(
    plan: Plan,
    margin: float | None = None,
    power: float = detectable.POWER,
    *,
    items: int | None = None,
    churn: float | None = None,
    seeds: int | None = None,
) -> list[Visible]:
    """What the tasks of a finished run can show, by its own flips.

    Args:
        plan: of a study or comparison whose readings are there.
        margin: loss allowed, above 0; None: what the rule allows, or two points.
        power: how often a loss is to be seen.
        items: measured, where others than the run's are asked about; `churn` and `seeds` likewise.
        churn: see `Design`.
        seeds: trainings.

    Raises:
        DataError: readings are missing.
    """
    evidence, rule, found = gather(plan), plan.study.ship.retain, []
    last: dict[str, int] = {}
    for one in evidence.candidates:
        last[one.point.arm] = max(one.point.step, last.get(one.point.arm, 0))
    for name, task in plan.tasks.items():
        if task.unit:  # no answers flip in a measure
            continue
        base = evidence.base[name]
        tables: dict[str, list[Values]] = {}
        for one in evidence.candidates:
            if one.point.step == last[one.point.arm]:
                tables.setdefault(one.point.arm, []).append(one.readings[name])
        seen = observed(base, list(tables.values()))
        trainings = len(plan.study.seeds) if plan.trained else 1
        design = Design(
            items or seen.items,
            seen.churn if churn is None else churn,
            seeds or trainings,
            seen.spread,
        )
        own = margin or abs(min(0.0, rule.get(name, MARGIN))) or ALLOWED
        found.append(
            visible(name, design, task.available, observed=churn is None, margin=own, power=power)
        )
    return found


def observed(base: Values, arms: Sequence[Sequence[Values]]) -> Design:
    """How much a task's answers flip, and how much trainings differ.

    The smaller one of lost and won is what flips although nothing is lost on the whole; one flip
    more is counted, so that none seen is not none.

    Args:
        base: shape (items,).
        arms: of each, the values of its trainings, each of the same items.
    """
    shares, squares, freedom = [], OWN * detectable.SPREAD**2, OWN
    for tables in arms:
        means = []
        for tuned in tables:
            change = (tuned - base)[~np.isnan(tuned - base)]
            if len(change):
                few = min(-change[change < 0].sum(), change[change > 0].sum())
                shares.append((few + 1) / (len(change) + 2))
                means.append(float(change.mean()))
        if len(means) > 1:
            squares += (len(means) - 1) * float(np.var(means, ddof=1))
            freedom += len(means) - 1
    churn = float(np.mean(shares)) if shares else ASSUMED
    items = int((~np.isnan(base)).sum())
    return Design(max(1, items), min(0.5, churn), spread=(squares / freedom) ** 0.5)


def of_flips(lost: int, won: int, n: int) -> float | None:
    """The smallest loss that a task would have shown in one training with these flips."""
    churn = (min(lost, won) + 1) / (n + 2)
    return detectable.smallest_loss(Design(n, churn)) if n else None


def ahead(items: Mapping[str, int], seeds: int) -> list[str]:
    """A line for each number of items that is measured: what it can show, by assumption."""
    sizes: dict[int, list[str]] = {}
    for name, n in items.items():
        sizes.setdefault(n, []).append(name)
    several = f" over {seeds} trainings" if seeds > 1 else ""
    found = []
    for n, names in sizes.items():
        loss = detectable.smallest_loss(Design(n, ASSUMED, seeds))
        what = "no loss is seen" if loss is None else f"a loss of {100 * loss:.1f} points is seen"
        which = f" ({', '.join(names)})" if len(sizes) > 1 else ""
        found.append(f"Power: with {n:,} items{several} {what} in 8 of 10 cases{which}")
    if found:
        found[-1] += (
            f", if {100 * ASSUMED:g} % of the answers flip each way (assumed; see `holdfast power`)"
        )
    return found


def table(found: Iterable[Visible], power: float) -> list[str]:
    """As lines of at most 80 characters, the assumptions below."""
    every = list(found)
    rows = [("task", "items", "flips", "seeds", "loss seen", "margin", "takes items")]
    for one in every:
        short = one.wanted is None or (one.available or one.wanted) < one.wanted
        rows.append((
            one.task or "-",
            f"{one.design.items:,}",
            f"{100 * one.design.churn:.1f}%",
            f"{one.design.seeds}",
            "none" if one.loss is None else f"{100 * one.loss:.1f}",
            f"{100 * one.margin:g}",
            "no number" if one.wanted is None else f"{one.wanted:,}" + "*" * short,
        ))  # fmt: skip
    lines = columns(rows)
    how = "as this run's did" if all(one.observed for one in every) else "(assumed)"
    lines += [
        "",
        f"loss seen: the smallest true loss, in points, that is seen in {100 * power:g} % of cases",
        f"flips: share of the answers that flip each way {how} though nothing is lost",
        f"takes items: with so many, a model that loses nothing keeps the margin in "
        f"{100 * power:g} %",
    ]
    if any(one.available is not None and (one.wanted or 0) > one.available for one in every):
        lines.append("*: more than the task has")
    if any(one.design.seeds > 1 for one in every):
        spread = max(one.design.spread for one in every)
        lines.append(f"trainings are taken to differ by {100 * spread:.1f} points, at most")
    else:
        lines.append("one training: the answer speaks of that training alone")
    return lines
