"""What did each arm cost, and was the budget the same for all?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from holdfast.analysis.lookup import reference
from holdfast.analysis.results import ArmInfo, Results
from holdfast.report.words import NONE, duration, scientific

TOLERANCE = 0.05  # supervised tokens that differ by less are called equal

HEAD = (
    "Steps",
    "Examples seen",
    "Supervised tokens",
    "Tokens put through",
    "Tokens generated",
    "Training time",
    "Shared time",
    "FLOPs",
)
EXPLAINED = (
    "Supervised tokens are the ones that bear loss; tokens put through are all that passed the "
    "model in training, prompts and reference passes included; generated ones were written by the "
    "model for its data or in training. Shared time is spent once, before training, on data that "
    "several arms may use. FLOPs are an estimate of all of it, shared work included. Counts and "
    "times of training are means over seeds."
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One arm's cost in words, in the order of `HEAD`, and its multiples of the reference arm's."""

    arm: ArmInfo
    cells: tuple[str, ...]
    tokens: float | None  # supervised, as a multiple
    flops: float | None

    def times(self, number: int) -> str:
        """The multiple that belongs to column `number` of `HEAD`; empty for the other columns."""
        value = {2: self.tokens, 7: self.flops}.get(number)
        return "" if value is None else f"{value:.2f}\u00d7"


def costs(results: Results) -> list[Cost]:
    """Every arm but those that cost nothing at all."""
    against, found = reference(results), []
    for arm in results.arms:
        counts = (arm.steps, arm.examples_seen, arm.supervised_tokens, arm.tokens)
        if not any((*counts, arm.generated_tokens, arm.shared_seconds, arm.flops)):
            continue
        times = (arm.seconds, arm.shared_seconds)
        cells = (
            *(f"{count:,}" if count else NONE for count in (*counts, arm.generated_tokens)),
            *(duration(time) if time else NONE for time in times),
            scientific(arm.flops),
        )
        flops = arm.flops / against.flops if against and against.flops and arm.flops else None
        found.append(Cost(arm, cells, ratio(arm, against), flops))
    return found


def ratio(arm: ArmInfo, against: ArmInfo | None) -> float | None:
    """Supervised tokens of `arm` as a multiple of the reference arm's."""
    if against is None or not arm.supervised_tokens:
        return None
    return arm.supervised_tokens / against.supervised_tokens


def budget(results: Results) -> str:
    """One sentence on whether the arms were trained at the same cost; "" of a comparison."""
    against = reference(results)
    others = [a for a in results.arms if a.supervised_tokens and a is not against]
    if against is None:
        return "Nothing was trained." if results.seeds else ""
    if not others:
        return f"Only {against.name} was trained."
    ratios = {arm.name: ratio(arm, against) or 1.0 for arm in others}
    worst = max(ratios, key=lambda name: abs(math.log(ratios[name])))
    same = {arm.steps for arm in others} == {against.steps}
    steps = "the same number" if same else "different numbers"
    if same and abs(ratios[worst] - 1) <= TOLERANCE:
        within = f"{100 * abs(ratios[worst] - 1):.1f}\u202f%"
        return (
            "Equal budget: all arms took the same number of optimiser steps and saw supervised "
            f"tokens within {within} of {against.name}." + _compute(results)
        )
    return (
        f"The budgets differ: the arms took {steps} of optimiser steps, and {worst} saw "
        f"{ratios[worst]:.2f} times the supervised tokens of {against.name}. Read the arms side by "
        "side with that in mind." + _compute(results)
    )


def _compute(results: Results) -> str:
    """A second sentence: which arm needed most FLOPs, where it is more than a little."""
    against = reference(results)
    known = [arm for arm in results.arms if arm.flops]
    if against is None or not against.flops or len(known) < 2:
        return ""
    most = max(known, key=lambda arm: arm.flops)
    times = most.flops / against.flops
    if times <= 1 + TOLERANCE:
        return ""
    return f" In FLOPs the dearest arm is {most.name}, at {times:.1f} times {against.name}."
