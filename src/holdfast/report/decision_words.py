"""The decision in words: what may be shipped, who came second, and what would decide."""

from __future__ import annotations

from holdfast.analysis.results import Choice, Decision
from holdfast.report.words import factor


def candidate(choice: Choice) -> str:
    """A candidate for shipping: ``replay, seed 1127, step 160, λ = 0.8``."""
    seed = "" if choice.seed is None else f"seed {choice.seed}"
    step = f"step {choice.step:,}" if choice.step else ""
    return ", ".join(filter(None, (choice.arm, seed, step, factor(choice.scale))))


def headline(decision: Decision) -> str:
    """The answer, and which checkpoint it is about: ``Ship replay, seed 1127, step 160``."""
    answer = decision.answer.capitalize()
    if decision.chosen is None:
        return answer
    between = " " if decision.answer == "ship" else ": "
    return f"{answer}{between}{candidate(decision.chosen)}"


def halves(decision: Decision) -> str:
    """How the items were halved."""
    parts = [f"{task}: {a:,} and {b:,}" for task, (a, b) in decision.items.items()]
    if not parts:
        return ""
    return (
        "Chosen on one half of the items, reported on the other, which played no part in the "
        f"choice ({'; '.join(parts)} items)."
    )


def more(decision: Decision) -> str:
    """How many more items would decide, where that is known."""
    if decision.more_items is None or "would decide" in decision.reason:
        return ""
    return f"About {decision.more_items:,} more items would decide."


def runner_up(decision: Decision) -> str:
    """Who came second, or next to being allowed, and why it lost."""
    if decision.runner_up is None:
        return ""
    name, why = candidate(decision.runner_up), decision.why_not
    if not why or why.startswith(name):
        return why or f"{name}."
    return f"{name}: {why}"


def second(decision: Decision) -> str:
    """What the second candidate is called: there is no runner-up where nothing won."""
    return "runner-up" if decision.chosen else "nearest miss"
