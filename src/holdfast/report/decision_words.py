"""The decision in words: what may be shipped, who came second, and what would decide."""

from __future__ import annotations

from holdfast.analysis.results import Choice, Decision
from holdfast.analysis.selection.decision import name_of
from holdfast.analysis.selection.rule import FIRST, confidence, percent_of
from holdfast.types import Point


def candidate(choice: Choice) -> str:
    """A candidate for shipping: ``replay, seed 1127, step 160, λ = 0.8``."""
    return name_of(Point(choice.arm, choice.seed, choice.step, choice.scale))


def headline(decision: Decision) -> str:
    """The answer, and which checkpoint it is about: ``Ship replay, seed 1127, step 160``."""
    answer = decision.answer.capitalize()
    if decision.chosen is None:
        return answer
    between = " " if decision.answer == "ship" else ": "
    return f"{answer}{between}{candidate(decision.chosen)}"


def items(decision: Decision) -> str:
    """How many items decide."""
    parts = [f"{task}: {count:,}" for task, count in decision.items.items()]
    return f"All items decide ({'; '.join(parts)})." if parts else ""


def intervals(decision: Decision) -> str:
    """Why the intervals of the decision are wider than those of the other tables."""
    shown = [one for one in (decision.chosen, decision.runner_up) if one is not None]
    if all(round(level, 6) == 0.95 for one in shown for level in one.levels.values()):
        return ""
    return (
        "Wider than the 95 % elsewhere in this report. The best of many looks better than it is: "
        "the more models there are, the higher is the level on the task that orders them; on the "
        f"others the first in line is judged at {percent_of(confidence(FIRST))}, those behind it "
        "higher."
    )


def level(choice: Choice, task: str) -> str:
    """The level of one interval, where it is not the usual one: ``96.1 % interval``."""
    found = choice.levels.get(task, 0.95)
    return "" if round(found, 6) == 0.95 else f"{percent_of(found)} interval"


def runner_up(decision: Decision) -> str:
    """Who came second and why it lost; of the nearest miss the reason speaks."""
    if decision.runner_up is None or not decision.why_not:
        return ""
    name, why = candidate(decision.runner_up), decision.why_not
    return why if why.startswith(name) else f"{name}: {why}"


def second(decision: Decision) -> str:
    """What the second candidate is called: there is no runner-up where nothing won."""
    return "runner-up" if decision.chosen else "nearest miss"


def passed(decision: Decision) -> tuple[str, ...]:
    """Why the first model of every other arm is not shipped; the runner-up has its own line."""
    told = runner_up(decision) or decision.reason
    arm = decision.runner_up.arm if decision.runner_up else ""
    return tuple(why for name, why in decision.passed.items() if name != arm and why not in told)
