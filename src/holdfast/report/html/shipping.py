"""Which checkpoint may be shipped: what stands in the box at the top?"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.analysis.results import Choice, Results, TaskInfo
from holdfast.report import sentences, words

TONES = {"ship": "better", "do not ship": "worse", "kept": "better", "not kept": "worse"}


@dataclass(frozen=True, slots=True)
class Effect:
    """A candidate's change on one task: on the untouched half, and on the one that chose it."""

    reported: words.Difference | None
    chosen: words.Difference | None


@dataclass(frozen=True, slots=True)
class Box:
    """The decision, ready to print."""

    headline: str
    tone: str  # better, worse, or open
    columns: tuple[str, ...]  # the candidates: the chosen one first
    rows: tuple[tuple[TaskInfo, tuple[Effect, ...]], ...]  # in the order of `columns`
    second: str
    runner_up: str
    halves: str
    more: str


def box(results: Results) -> Box | None:
    """What to show of the decision, if there is one."""
    made = results.decision
    if made is None:
        return None
    named = (("", made.chosen), (f"{sentences.second(made)} ", made.runner_up))
    there = [(prefix, one) for prefix, one in named if one is not None]
    rows = [(task, tuple(_effect(one, task) for _, one in there)) for task in results.tasks]
    return Box(
        headline=sentences.headline(made),
        tone=TONES.get(made.answer, "open"),
        columns=tuple(prefix + one.arm for prefix, one in there),
        rows=tuple((task, effects) for task, effects in rows if any(e.reported for e in effects)),
        second=sentences.second(made),
        runner_up=sentences.runner_up(made),
        halves=sentences.halves(made),
        more=sentences.more(made),
    )


def _effect(choice: Choice, task: TaskInfo) -> Effect:
    reported, chosen = (
        words.difference(half.get(task.name), task.inverted)
        for half in (choice.reported_on, choice.chosen_on)
    )
    return Effect(reported, chosen)
