"""The decision: which model may be shipped, that none may, or that there is too little to say.

Every model is judged on all items. Models stand in line by one task, the target unless the rule
names another, and of those that meet the rule the first is shipped. The items of that task say
nothing of the other tasks' items, so the place in line is no luck on those, and the first in line
needs next to no correction for having been chosen; the weights are those of a fallback procedure
(Wiens 2003, Pharm. Stat. 2:211-215). What a need may err, `ERROR`, is spent like this:

- The task that orders was looked at for all models: each is judged on it at ``ERROR / models``
  (Bonferroni), and only those that meet its need stand in line.
- A model that any other need speaks against (its interval at the error `DOUBT` lies wholly below
  the margin) gives up its place to the next; that is what an adaptive discarding procedure does
  (Tian & Ramdas 2019, ADDIS).
- On all other needs the first that is left is judged at `FIRST`, those behind it share `OTHERS`.

So a model that misses a need of the ordering task is shipped in 2.5 % at most, and so is one that
misses any other need; `benchmarks/decision.py` tries both, and the power.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from holdfast.analysis.selection.evaluator import UNKNOWN, Choice, RuleEvaluator, Tasks
from holdfast.analysis.selection.frontier import Candidate
from holdfast.analysis.selection.rule import (
    ERROR,
    FULL,
    Need,
    State,
    Target,
    change_text,
    confidence,
    error_of,
    listed,
    names_of,
    percent_of,
    span,
    told,
)
from holdfast.analysis.stats import Interval, Values
from holdfast.config import ShipSpec
from holdfast.types import Point

Answer = Literal["ship", "do not ship", "not enough evidence"]
SHIP: Answer = "ship"
NO: Answer = "do not ship"
UNSURE: Answer = "not enough evidence"
HOW_BAD: tuple[State, ...] = ("missed", "unscored", "open", "met")


@dataclass(frozen=True, slots=True)
class Decision:
    """Which model may be shipped, and why.

    Attributes:
        answer: one of three.
        summary: the answer and the model that it is about, in one sentence; why, `reason` says.
        reason: the answer in a sentence or two, with the figures that it rests on.
        next_step: what to do now; without a model to ship it names the nearest, and its task.
        rule: in words.
        chosen: None where no model was allowed.
        runner_up: the next best; where none was allowed, the nearest miss.
        why_not: why the runner-up lost.
        more_items: of every task that leaves a need of the nearest miss open, about so many more
            would settle it; empty where one of them cannot be settled so.
        passed: by arm that has no model shipped, why the model of it that stands first is not.
        items: number by task.
    """

    answer: Answer
    summary: str
    reason: str
    rule: str
    next_step: str = ""
    chosen: Choice | None = None
    runner_up: Choice | None = None
    why_not: str = ""
    more_items: tuple[tuple[str, int], ...] = ()
    passed: Mapping[str, str] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)


def decide(
    candidates: Sequence[Candidate],
    base: Mapping[str, Values],
    rule: ShipSpec,
    target: Target,
    tasks: Tasks | None = None,
) -> Decision:
    """Choose a model, and say whether to ship it.

    Of the models that meet the rule, the one with the highest mean of ``rule.maximize`` is chosen;
    equal ones by fewer steps, then a smaller scale.

    Args:
        candidates: all trained models.
        base: the untouched model's readings by task.
        rule: of the study, checked by `check_rule`.
        target: the task that training is for, or several; a model must gain on each.
        tasks: what else is known of them.
    """
    evaluator = RuleEvaluator(base, rule, target, len(candidates), tasks or Tasks())
    if not candidates:
        text = "Nothing was trained."
        return Decision(NO, text, text, evaluator.words, items=evaluator.items)
    judged: list[tuple[Candidate, Choice]] = []
    waiting: list[tuple[Candidate, Choice]] = []
    for one in sorted(candidates, key=evaluator.order):
        stands = len(candidates) == 1 or evaluator.in_line(one)
        error = error_of(len(waiting) if stands else 0, len(candidates))
        judged.append((one, evaluator.choice(one, evaluator.levels(error))))
        waiting += judged[-1:] if stands else []
    allowed = [pair for pair in waiting if pair[1].allowed]
    if not allowed:
        return _none_allowed(evaluator, judged, waiting)
    chosen = allowed[0][1]
    if len(allowed) > 1:
        second = allowed[1][1]
        why = _lost(evaluator, chosen, second)
    else:
        second, why = None, ""
        if others := [pair[1] for pair in judged if pair[1] is not chosen]:
            second = max(others, key=evaluator.slack)
            why = _not_allowed(evaluator, second)
    name, verdict = name_of(chosen.point), _verdict(evaluator, *allowed[0])
    todo = verdict.next_step
    if (ahead := waiting[0])[1] is not chosen:  # it gained more, and is not surely worse
        todo += f" {name_of(ahead[1].point)} is ahead on {evaluator.aim}, but still open. "
        todo += _verdict(evaluator, *ahead).next_step
    return Decision(
        SHIP,
        f"{name} may be shipped.",
        f"{name}: it {verdict.why} ({verdict.figures}).",
        evaluator.words,
        todo,
        chosen,
        second,
        why,
        passed=_passed(evaluator, judged, chosen),
        items=evaluator.items,
    )


def confirm(
    candidate: Candidate,
    base: Mapping[str, Values],
    rule: ShipSpec,
    target: Target,
    models: int,
    levels: Mapping[str, float] | None = None,
    tasks: Tasks | None = None,
) -> Decision:
    """Put the rule to one model alone: to what was exported, or to a model that somebody named.

    Args:
        candidate: its readings.
        base: see `decide`.
        rule: see `decide`.
        target: see `decide`.
        models: how many there were to choose from.
        levels: at which the model was chosen, by task; None: it was named by somebody who may have
            seen all figures, so that every one of them could have been.
        tasks: see `decide`.
    """
    evaluator = RuleEvaluator(base, rule, target, models, tasks or Tasks())
    if levels is None:
        levels = evaluator.levels(ERROR / max(1, models))
    choice = evaluator.choice(candidate, levels)
    verdict = _verdict(evaluator, candidate, choice)
    return Decision(
        verdict.answer,
        f"It {verdict.why}.",
        f"It {verdict.why} ({verdict.figures}).",
        evaluator.words,
        verdict.next_step,
        choice,
        more_items=verdict.more,
        items=evaluator.items,
    )


def name_of(point: Point) -> str:
    """A model in words: ``sft, seed 1, step 6, λ = 0.6``."""
    words = [point.arm]
    words += [f"seed {point.seed}"] if point.seed is not None else []
    words += [f"step {point.step:,}"] if point.step else []
    words += [f"λ = {point.scale:g}"] if point.scale != 1 else []
    return ", ".join(words)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One model by the rule: the answer, why (after "it"), its figures, and what to do."""

    answer: Answer
    why: str
    figures: str
    next_step: str
    more: tuple[tuple[str, int], ...] = ()


def _verdict(evaluator: RuleEvaluator, candidate: Candidate, choice: Choice) -> _Verdict:
    """The answer for one model."""
    states = evaluator.states(choice.changes)
    figures, name = _figures(states, choice), name_of(choice.point)
    if missed := [need for need, state in states if state == "missed"]:
        return _Verdict(NO, told(missed, True), figures, _remedy(missed, evaluator, choice))
    if blind := [need.task for need, state in states if state == "unscored"]:
        todo = f"Read why the replies of {name} to {listed(blind)} could not be scored: below "
        todo += "`readings` in the run folder every reply has its outcome."
        return _Verdict(UNSURE, f"cannot be judged: {_blind(blind)}", figures, todo)
    if opened := [need for need, state in states if state == "open"]:
        wanted = evaluator.wanted(candidate, choice)
        stuck = {one.task for one in wanted if one.more is None}
        todo = f"To decide on {name}, measure {listed(one.words() for one in wanted)}."
        if stuck:
            todo = _remedy([need for need in opened if need.task in stuck], evaluator, choice)
        settled = all(one.enough for one in wanted)
        more = tuple((one.task, one.more) for one in wanted if settled and one.more is not None)
        return _Verdict(UNSURE, f"leaves open whether it {told(opened)}", figures, todo, more)
    todo = f"Export {name} and measure the export: `holdfast ship RUN --to FOLDER`."
    return _Verdict(SHIP, told(need for need, _ in states), figures, todo)


def _remedy(missed: Sequence[Need], evaluator: RuleEvaluator, choice: Choice) -> str:
    """What to try where items settle nothing: the need that it misses by most stands for all."""
    name = name_of(choice.point)
    need = min(missed, key=lambda one: _mean(choice.changes[one.task]) - one.margin)
    short = need.margin - _mean(choice.changes[need.task])
    by = f"{name} misses by {_far(short, need.unit)} on {need.task}"
    if short < 0.0005:
        by = f"{name} stands at its margin on {need.task}, which no number of items settles"
    if need.task in names_of(evaluator.target):
        base = evaluator.base[need.task]
        if not need.unit and float(np.nanmean(base)) > FULL:
            return f"{by}: the untouched model leaves no room to gain there, measure harder items."
        return f"{by}: train for longer or at a higher rate, or use other data."
    return (
        f"{by}: try an earlier checkpoint, a part of its change (`scale`), or a remedy that holds "
        f"more of {need.task}, such as a larger replay share."
    )


def _none_allowed(
    evaluator: RuleEvaluator,
    judged: Sequence[tuple[Candidate, Choice]],
    waiting: Sequence[tuple[Candidate, Choice]],
) -> Decision:
    """The decision when no model meets the rule."""
    hopeful = [pair for pair in judged if not evaluator.surely_misses(pair[0])]
    head, answer = "No model surely meets the rule.", UNSURE
    if not hopeful:
        head, answer = "Every model breaks the rule.", NO
        usual = dict.fromkeys(evaluator.base, confidence(ERROR))
        judged = [(one, evaluator.choice(one, usual)) for one, _ in judged]
    nearest, miss = max(waiting or hopeful or judged, key=lambda pair: evaluator.slack(pair[1]))
    verdict, name = _verdict(evaluator, nearest, miss), name_of(nearest.point)
    return Decision(
        answer,
        f"No model may be shipped{' yet' if hopeful else ''}; the nearest is {name}.",
        f"{head} The nearest is {name}: it {verdict.why} ({verdict.figures}).",
        evaluator.words,
        verdict.next_step,
        None,
        miss,
        more_items=verdict.more,
        passed=_passed(evaluator, judged, None),
        items=evaluator.items,
    )


def _passed(
    evaluator: RuleEvaluator, judged: Sequence[tuple[Candidate, Choice]], chosen: Choice | None
) -> dict[str, str]:
    """Why the model of every other arm that stands first in it is not shipped."""
    found: dict[str, str] = {}
    for _, choice in judged:
        arm = choice.point.arm
        if arm in found or (chosen is not None and arm == chosen.point.arm):
            continue
        if chosen is not None and choice.allowed:
            found[arm] = _lost(evaluator, chosen, choice)
        else:
            found[arm] = _not_allowed(evaluator, choice)
    return found


def _lost(evaluator: RuleEvaluator, chosen: Choice, second: Choice) -> str:
    """Why the second of two allowed models is not the first."""
    gains = [evaluator.gain(one.changes) for one in (chosen, second)]
    unread = [one for one, gain in zip((chosen, second), gains, strict=True) if gain is None]
    if unread:
        names = listed(name_of(one.point) for one in unread)
        return (
            f"{name_of(second.point)} meets the rule too; {evaluator.aim}, which decides among "
            f"those that do, could not be scored for {names}."
        )
    behind = (gains[0] or 0.0) - (gains[1] or 0.0)
    units = {evaluator.tasks.units.get(aim, "") for aim in evaluator.aims}
    unit = units.pop() if len(units) == 1 else ""
    name = name_of(second.point)
    if round(behind, 9) > 0:
        return f"{name} meets the rule too, but is {_far(behind, unit)} behind on {evaluator.aim}."
    return f"{name} is as good on {evaluator.aim}, but needs more steps or scale."


def _not_allowed(evaluator: RuleEvaluator, choice: Choice) -> str:
    """Why a model is not allowed."""
    failed = [pair for pair in evaluator.states(choice.changes) if pair[1] != "met"]
    need, state = min(failed, key=lambda pair: HOW_BAD.index(pair[1]))
    why = {
        "missed": f"it {told([need], True)}",
        "unscored": _blind([need.task]),
        "open": f"it is open whether it {told([need])}",
    }[state]
    mean, low, high, *_ = choice.changes[need.task]
    if mean is not None and low is not None and high is not None:
        why += f" ({change_text(mean, need.unit)} {need.unit or 'points'}, "
        why += f"{percent_of(choice.levels[need.task])} interval {span(low, high, need.unit)})"
    return f"{name_of(choice.point)} is not allowed: {why}."


def _figures(states: Sequence[tuple[Need, State]], choice: Choice) -> str:
    """The changes, in points and good answers, with the levels of their intervals."""
    levels = [choice.levels[need.task] for need, _ in states]
    usual, parts = max(levels, key=lambda one: (levels.count(one), -one)), []
    for need, _ in states:
        mean, low, high, *_ = choice.changes[need.task]
        if mean is None or low is None or high is None:
            parts.append(f"{need.task}: nothing scored")
            continue
        level = choice.levels[need.task]
        own = "" if level == usual else f" (at {percent_of(level)})"
        own = f" {need.unit}, lower is better{own}" if need.unit else own
        figure = f"{change_text(mean, need.unit)} {span(low, high, need.unit)}"
        parts.append(f"{need.task} {figure}{own}")
    return f"change in good answers, in points, {percent_of(usual)} intervals: {'; '.join(parts)}"


def _far(amount: float, unit: str) -> str:
    """A distance: in points, or in a measure's own unit."""
    return f"{amount:.4f} {unit}" if unit else f"{100 * amount:.1f} points"


def _blind(tasks: Sequence[str]) -> str:
    return f"too many items of {listed(tasks)} could not be scored"


def _mean(change: Interval) -> float:
    return UNKNOWN if change.mean is None else change.mean
