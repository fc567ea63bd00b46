"""The decision: which model may be shipped, that none may, or that there is too little to say.

One half of the items chooses, the other reports (`split_halves`). Every model is judged on the
first half alone; the rule is then put to the chosen one again, on the second. It is shipped when it
meets the rule there too, by the worse end of every interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from holdfast.analysis.selection.frontier import Candidate, Halves
from holdfast.analysis.selection.rule import (
    CHOOSING,
    REPORTING,
    Choice,
    Need,
    RuleEvaluator,
    State,
    in_points,
    in_words,
    listed,
    mean_of,
)
from holdfast.analysis.stats import Interval, Values
from holdfast.config import ShipSpec
from holdfast.types import Point

Answer = Literal["ship", "do not ship", "not enough evidence"]
Changes = Mapping[str, Interval]
SHIP: Answer = "ship"
NO: Answer = "do not ship"
UNSURE: Answer = "not enough evidence"


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model may be shipped, and why.

    Attributes:
        answer: one of three.
        reason: a sentence or two.
        rule: in words.
        chosen: None where no model was allowed.
        runner_up: the next best; where none was allowed, the nearest miss.
        why_not: why the runner-up lost.
        more_items: about so many more items of one task, both halves together, would decide.
        items: number in each half, by task.
    """

    answer: Answer
    reason: str
    rule: str
    chosen: Choice | None = None
    runner_up: Choice | None = None
    why_not: str = ""
    more_items: int | None = None
    items: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def decide(
    candidates: Sequence[Candidate],
    base: Mapping[str, Values],
    rule: ShipSpec,
    target: str,
    halves: Mapping[str, Halves],
) -> Decision:
    """Choose a model on one half of the items and say of it, on the other, whether to ship it.

    Of the models that meet the rule, the one with the highest mean of ``rule.maximize`` is chosen;
    equal ones by their worst retained change, then fewer steps, then a smaller scale.

    Args:
        candidates: all trained models.
        base: the untouched model's readings by task.
        rule: of the study, checked by `check_rule`.
        target: the task that training is for; a model must gain on it.
        halves: of every task, from `split_halves`.
    """
    evaluator = RuleEvaluator(base, rule, target, halves)
    words = in_words(rule, base, target)
    if not candidates:
        return Decision(NO, "Nothing was trained.", words, items=evaluator.sizes)
    judged = [(model, evaluator.changes(model, CHOOSING)) for model in candidates]
    allowed = [pair for pair in judged if evaluator.allows(pair[1])]
    if not allowed:
        return _none_allowed(evaluator, judged, words)
    allowed.sort(key=lambda pair: evaluator.rank(*pair), reverse=True)
    best = allowed[0][0]
    chosen = evaluator.choice(*allowed[0])
    answer, reason, more = _verdict(evaluator, best, chosen.reported_on, REPORTING)
    second, why = None, ""
    if len(allowed) > 1:
        second = evaluator.choice(*allowed[1])
        why = _lost(evaluator, chosen, second)
    elif others := [pair for pair in judged if pair[0] is not best]:
        second = evaluator.choice(*max(others, key=lambda pair: evaluator.slack(pair[1])))
        why = _not_allowed(evaluator, second)
    reason = f"{name_of(best.point)}, on items that had no part in choosing it: {reason}"
    return Decision(answer, reason, words, chosen, second, why, more, evaluator.sizes)


def confirm(
    candidate: Candidate,
    base: Mapping[str, Values],
    rule: ShipSpec,
    target: str,
    halves: Mapping[str, Halves],
) -> Decision:
    """Put the rule to one model that was chosen before, on the items that report and only there.

    Args:
        candidate: its readings of the items that choose are not looked at; NaN will do.
        base: see `decide`.
        rule: see `decide`.
        target: see `decide`.
        halves: see `decide`.
    """
    evaluator = RuleEvaluator(base, rule, target, halves)
    reported_on = evaluator.changes(candidate, REPORTING)
    answer, reason, more = _verdict(evaluator, candidate, reported_on, REPORTING)
    chosen = Choice(candidate.point, {}, reported_on, True)
    words = in_words(rule, base, target)
    return Decision(answer, _capital(reason), words, chosen, more_items=more, items=evaluator.sizes)


def name_of(point: Point) -> str:
    """A model in words: ``sft, seed 1, step 6, λ = 0.6``."""
    words = [point.arm]
    words += [f"seed {point.seed}"] if point.seed is not None else []
    words += [f"step {point.step}"] if point.step else []
    words += [f"λ = {point.scale:g}"] if point.scale != 1 else []
    return ", ".join(words)


def _verdict(
    evaluator: RuleEvaluator, candidate: Candidate, changes: Changes, half: int
) -> tuple[Answer, str, int | None]:
    """The answer for one model by one half's intervals, why, and how many more items would do."""
    states = evaluator.states(changes)
    told = "; ".join(_told(need, changes) for need, _ in states)
    told = f"good answers, in points: {told}"
    if missed := [need for need, state in states if state == "missed"]:
        return NO, f"it {listed(need.broken() for need in missed)} ({told}).", None
    if blind := [need.task for need, state in states if state == "unscored"]:
        return UNSURE, f"{_blind(blind)} ({told}).", None
    if opened := [need for need, state in states if state == "open"]:
        wanted = evaluator.wanted(candidate, changes, half)
        more = f" {_about(*wanted)}" if wanted else ""
        text = f"it is open whether it {listed(need.kept() for need in opened)} ({told}).{more}"
        return UNSURE, text, wanted[0] if wanted else None
    return SHIP, f"it {listed(need.kept() for need, _ in states)} ({told}).", None


def _none_allowed(
    evaluator: RuleEvaluator, judged: Sequence[tuple[Candidate, Changes]], words: str
) -> Decision:
    """The decision when no model meets the rule on the items that choose."""
    hopeful = [
        one for one in judged if all(state != "missed" for _, state in evaluator.states(one[1]))
    ]
    nearest, changes = max(hopeful or judged, key=lambda pair: evaluator.slack(pair[1]))
    _, why, more = _verdict(evaluator, nearest, changes, CHOOSING)
    miss = evaluator.choice(nearest, changes)  # the reason says why it is none
    head = "On the items that choose, every model breaks the rule."
    if hopeful:
        head = "On the items that choose, no model surely meets the rule."
    reason = f"{head} The nearest is {name_of(nearest.point)}: {why}"
    answer = UNSURE if hopeful else NO
    return Decision(answer, reason, words, None, miss, "", more, evaluator.sizes)


def _lost(evaluator: RuleEvaluator, chosen: Choice, second: Choice) -> str:
    """Why the second of two allowed models is not the first."""
    behind = mean_of(chosen.chosen_on[evaluator.aim]) - mean_of(second.chosen_on[evaluator.aim])
    name = name_of(second.point)
    if round(behind, 9) > 0:
        return (
            f"{name} meets the rule too, but is {100 * behind:.1f} points behind on "
            f"{evaluator.aim} (on the items that choose)."
        )
    return f"{name} is as good on {evaluator.aim}, but retains less, or needs more steps or scale."


def _not_allowed(evaluator: RuleEvaluator, choice: Choice) -> str:
    """Why a model is not allowed."""
    failed = [(need, state) for need, state in evaluator.states(choice.chosen_on) if state != "met"]
    order: list[State] = ["missed", "unscored", "open"]
    need, state = min(failed, key=lambda pair: order.index(pair[1]))
    why = {
        "missed": f"it {need.broken()}",
        "unscored": _blind([need.task]),
        "open": f"it is open whether it {need.kept()}",
    }[state]
    where = f"(good answers, in points: {_told(need, choice.chosen_on)}, on the items that choose)"
    return f"{name_of(choice.point)} is not allowed: {why} {where}."


def _told(need: Need, changes: Changes) -> str:
    mean, low, high, *_ = changes[need.task]
    if mean is None or low is None or high is None:
        return f"{need.task}: nothing scored"
    return f"{need.task} {in_points(mean)} [{in_points(low)}, {in_points(high)}]"


def _blind(tasks: Sequence[str]) -> str:
    return f"too many items of {listed(tasks)} could not be scored to judge it"


def _about(count: int, task: str) -> str:
    """A forecast with two figures and no more."""
    power = 10 ** max(0, len(str(count)) - 2)
    return f"About {-(-count // power) * power:,} more examples of {task} would decide."


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
