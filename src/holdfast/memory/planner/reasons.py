"""Why a plan was chosen, what comes nearest to it and why that was not: codes with sentences."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.choice import SIMPLEST, Comparison, choose
from holdfast.memory.planner.translations import PARTS
from holdfast.memory.planner.ways import Candidate, Reason

FASTER, SLOWER = 1.1, 0.9
"""Modelled speeds within these shares of each other count as equal."""
NEAREST = 2
"""How many alternatives are told."""


def gib(size_bytes: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size_bytes / GIB:.1f}"


def of_choice(comparison: Comparison) -> list[Reason]:
    """Why the choice was made; empty where nothing fits."""
    if comparison.chosen is None:
        return []
    plan = comparison.chosen.plan
    found = [Reason(f"why_{plan.placement}", {})]
    if plan.placement == "cpu" and not plan.checkpointing:
        found.append(Reason("why_kept", {}))
    if plan.quantized:
        plain = next(
            (one.plan for one in comparison.candidates
             if one.plan.placement == plan.placement and not one.plan.quantized), None,
        )  # fmt: skip
        if plain:
            saved = plain.fullest.weights - plan.fullest.weights
            found.append(Reason("why_qlora", {"saved": gib(saved)}))
    if comparison.runner_up is None:
        return [*found, Reason("why_only", {})]
    other = comparison.runner_up.plan
    ratio = plan.tokens_per_s / other.tokens_per_s
    if ratio >= FASTER:
        values = {"ratio": f"{ratio:.1f}", "other": other.strategy}
        return [*found, Reason("why_fast", values)]
    if ratio <= SLOWER:
        values = {"ratio": f"{1 / ratio:.1f}", "other": other.strategy}
        return [*found, Reason("why_proven", values)]
    return [*found, Reason("why_simple", {})]


def verdict(candidate: Candidate) -> Reason:
    """Whether it fits; else why not: what takes most of the memory, or what cannot be at all."""
    if candidate.refused:
        return candidate.refused
    if candidate.fits:
        return Reason("yes", {})
    part = candidate.plan.fullest
    largest = max(PARTS, key=lambda name: getattr(part, name))
    size = gib(getattr(part, largest))
    return Reason(
        "r_memory", {"part": largest, "part_gib": size, "short": gib(candidate.short_bytes)}
    )


def best_of_each(comparison: Comparison) -> list[Candidate]:
    """One candidate per strategy: the fastest that fits, or the one that comes nearest."""
    found = []
    for name in SIMPLEST:
        same = [one for one in comparison.candidates if one.plan.strategy == name]
        fitting = [one for one in same if one.fits]
        if comparison.chosen and comparison.chosen.plan.strategy == name:
            found.append(comparison.chosen)
        elif fitting:
            found.append(max(fitting, key=lambda one: one.plan.tokens_per_s))
        elif same:
            found.append(nearest(same))
    return found


def nearest(several: Sequence[Candidate]) -> Candidate:
    """Of ways that do not fit the one that lacks least."""
    return min(several, key=lambda one: (bool(one.refused), one.short_bytes))


def alternatives(comparison: Comparison) -> list[tuple[Candidate, Reason]]:
    """The two ways of other strategies that come nearest to the choice, and why they were not it.

    Those that fit come first, in the order of choice; then those that lack least.
    """
    if comparison.chosen is None:
        return []
    left = [one for one in best_of_each(comparison) if one is not comparison.chosen]
    fitting = [one for one in comparison.candidates
               if one.fits and one.plan.strategy != comparison.chosen.plan.strategy]  # fmt: skip
    found: list[Candidate] = []
    while (best := choose(fitting)) and len(found) < NEAREST:
        found.append(best)
        fitting = [one for one in fitting if one.plan.strategy != best.plan.strategy]
    lacking = [one for one in left if not one.fits and not one.refused]
    found += sorted(lacking, key=lambda one: one.short_bytes)[: NEAREST - len(found)]
    return [(one, _not_taken(one, comparison.chosen)) for one in found]


def _not_taken(other: Candidate, chosen: Candidate) -> Reason:
    """Why a way is not the choice."""
    if not other.fits:
        return verdict(other)
    share = other.plan.tokens_per_s / chosen.plan.tokens_per_s
    values = {"share": f"{share:.0%}"}
    if other.plan.quantized and not chosen.plan.quantized:
        return Reason("not_quantized", values)
    if share < SLOWER:
        return Reason("not_slower", values)
    if other.plan.placement == "fsdp2" and chosen.plan.placement != "fsdp2":
        return Reason("not_unproven", values)
    return Reason("not_simple", values)
