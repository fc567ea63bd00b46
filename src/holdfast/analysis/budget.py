"""Whether the arms were trained at equal cost: multiples of a reference arm, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.analysis.findings import ArmInfo

TOLERANCE = 0.05
"""Supervised tokens that differ by less are called equal."""


def reference(arms: Sequence[ArmInfo]) -> ArmInfo | None:
    """The arm whose budget the others are held against: `sft`, or else the first trained one."""
    trained = [arm for arm in arms if arm.supervised_tokens > 0]
    return next((arm for arm in trained if arm.name == "sft"), trained[0] if trained else None)


def costly(arms: Sequence[ArmInfo]) -> list[ArmInfo]:
    """Every arm but those that cost nothing at all."""
    return [
        arm
        for arm in arms
        if any((arm.steps, arm.examples_seen, arm.supervised_tokens, arm.tokens))
        or any((arm.generated_tokens, arm.shared_seconds, arm.flops))
    ]


def token_multiple(arm: ArmInfo, against: ArmInfo | None) -> float | None:
    """Supervised tokens of `arm` as a multiple of the reference arm's."""
    if against is None or not arm.supervised_tokens:
        return None
    return arm.supervised_tokens / against.supervised_tokens


def flops_multiple(arm: ArmInfo, against: ArmInfo | None) -> float | None:
    """FLOPs of `arm` as a multiple of the reference arm's."""
    if against is None or not against.flops or not arm.flops:
        return None
    return arm.flops / against.flops


def differs(arms: Sequence[ArmInfo]) -> bool:
    """Whether arms took other numbers of steps, or saw other numbers of supervised tokens."""
    against = reference(arms)
    others = [arm for arm in arms if arm.supervised_tokens and arm is not against]
    return any(
        against is None
        or arm.steps != against.steps
        or abs((token_multiple(arm, against) or 1.0) - 1) > TOLERANCE
        for arm in others
    )


def sentence(arms: Sequence[ArmInfo], seeds: Sequence[int]) -> str:
    """One sentence on whether the arms were trained at the same cost; "" of a comparison.

    Args:
        arms: all of them.
        seeds: of the study; a comparison has none.
    """
    against = reference(arms)
    others = [a for a in arms if a.supervised_tokens and a is not against]
    if against is None:
        return "Nothing was trained." if seeds else ""
    if not others:
        return f"Only {against.name} was trained."
    ratios = {arm.name: token_multiple(arm, against) or 1.0 for arm in others}
    worst = max(ratios, key=lambda name: abs(math.log(ratios[name])))
    same = {arm.steps for arm in others} == {against.steps}
    steps = "the same number" if same else "different numbers"
    if not differs(arms):
        within = f"{100 * abs(ratios[worst] - 1):.1f}\u202f%"
        return (
            "Equal budget: all arms took the same number of optimiser steps and saw supervised "
            f"tokens within {within} of {against.name}." + _compute(arms, against)
        )
    return (
        f"The budgets differ: the arms took {steps} of optimiser steps, and {worst} saw "
        f"{ratios[worst]:.2f} times the supervised tokens of {against.name}. Read the arms side by "
        "side with that in mind." + _compute(arms, against)
    )


def _compute(arms: Sequence[ArmInfo], against: ArmInfo) -> str:
    """A second sentence: which arm needed most FLOPs, where it is more than a little."""
    known = [arm for arm in arms if arm.flops]
    if not against.flops or len(known) < 2:
        return ""
    most = max(known, key=lambda arm: arm.flops)
    times = most.flops / against.flops
    if times <= 1 + TOLERANCE:
        return ""
    return f" In FLOPs the dearest arm is {most.name}, at {times:.1f} times {against.name}."
