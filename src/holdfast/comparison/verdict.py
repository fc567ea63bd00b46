"""What does a comparison say in words: who gained and lost what, was enough kept, what to know?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from holdfast.analysis.results import Cell, Decision, Results, Share
from holdfast.analysis.selection import Need, attainable
from holdfast.analysis.selection.power import Attainable, forecast
from holdfast.analysis.selection.rule import change_text, listed, span, told
from holdfast.analysis.stats import Interval
from holdfast.models.external import ExternalModel, is_quantised
from holdfast.runs.plan import Plan

LEVEL = 0.95
KEPT, NOT_KEPT, UNSURE = "kept", "not kept", "not enough evidence"
SHOWN = 3
ONE_TRAINING = (
    "Each tuned model is one training: another seed of the same recipe may differ from it by more "
    "than the intervals say."
)
SEEN = (
    "What a tuned model was trained on is not known here: if it has seen these items, its figures "
    "on them say nothing."
)
MIXED = "base and tuned models answered through different engines"


def verdict(results: Results) -> str:
    """What each tuned model gained and lost, one sentence a model."""
    said = [_of_arm(results, arm.name) for arm in results.arms[1:]]
    more = len(said) - SHOWN
    return " ".join(said[:SHOWN] + ([f"{more} more are in the table."] if more > 0 else []))


def _of_arm(results: Results, arm: str) -> str:
    cells = [one for one in results.cells if one.arm == arm]
    units = {task.name: task.unit for task in results.tasks}
    gained, lost, same, blind = [], [], [], []
    for cell in cells:
        diff = cell.diff
        if diff is None or diff.mean is None:
            blind.append(cell.task)
        elif (diff.low or 0.0) > 0:
            gained.append(_moved(diff, cell.task, units[cell.task]))
        elif (diff.high or 0.0) < 0:
            lost.append(_moved(diff, cell.task, units[cell.task]))
        else:
            unit = units[cell.task]
            same.append(f"{cell.task} ({change_text(diff.mean, unit)} {_ends(diff, unit)})")
    said = (
        ("gained", gained),
        ("lost", lost),
        ("showed no clear change on", same),
        ("could not be scored on", blind),
    )
    parts = [f"{what} {listed(tasks)}" for what, tasks in said if tasks]
    return f"{arm} {listed(parts)}."


def _moved(diff: Share, task: str, unit: str) -> str:
    size = abs(diff.mean or 0.0)
    text = f"{size:.4f} {unit}" if unit else f"{100 * size:.1f} points"
    return f"{text} {_ends(diff, unit)} on {task}"


def _ends(share: Share, unit: str = "") -> str:
    return span(share.low, share.high, unit)


def decide(results: Results, retain: Mapping[str, float]) -> Decision | None:
    """Whether every tuned model kept what it had to; None without a rule.

    By the worse end of the ordinary 95 % interval: nothing is chosen here, so that no choice has to
    be allowed for.

    Args:
        results: with their cells.
        retain: least change allowed, by task, as a share.
    """
    if not retain:
        return None
    units = {task.name: task.unit for task in results.tasks}
    needs = [Need(task, margin, False, units[task]) for task, margin in retain.items()]
    answers, said, todo = list[str](), list[str](), list[str]()
    for arm in results.arms[1:]:
        states = [(one, *_state(one, results.cell(arm.name, 0, one.task))) for one in needs]
        missed = [one for one, state, _ in states if state == "missed"]
        blind = [one.task for one, state, _ in states if state == "unscored"]
        opened = [one for one, state, _ in states if state == "open"]
        changes = "; ".join(f"{one.task}: {change}" for one, _, change in states)
        if missed:
            answers.append(NOT_KEPT)
            said.append(f"{arm.name} {told(missed, True)} ({changes}).")
        elif blind or opened:
            answers.append(UNSURE)
            why = [_blind(results.cell(arm.name, 0, one)) for one in blind]
            why += [f"it is open whether it {told(opened)}"] if opened else []
            said.append(f"{arm.name}: {listed(why)} ({changes}).")
            todo += _wanted(
                arm.name, [results.cell(arm.name, 0, one.task) for one in opened], needs
            )
        else:
            answers.append(KEPT)
            said.append(f"{arm.name} {told(needs)} ({changes}).")
    answer = next((one for one in (NOT_KEPT, UNSURE) if one in answers), KEPT)
    rule = (
        f"Every tuned model {told(needs)}, by the worse end of each 95 % interval, over all items."
    )
    return Decision(answer, " ".join(said), rule, next_step=" ".join(todo))


def _wanted(arm: str, cells: Iterable[Cell], needs: Iterable[Need]) -> list[str]:
    """What would settle open needs, if the shares of flips stay as they are."""
    margins = {one.task: one for one in needs}
    words = []
    for cell in cells:
        if cell.flips is None:
            continue
        lost, won, n, *_ = astuple(cell.flips)
        before = np.repeat([1.0, 0.0, 1.0], [lost, won, n - lost - won])
        after = np.repeat([0.0, 1.0, 1.0], [lost, won, n - lost - won])
        words.append(forecast(margins[cell.task], before, after, LEVEL, None).words())
    return [f"To decide on {arm}, measure {listed(words)}."] if words else []


def power(plan: Plan) -> list[Attainable]:
    """What every margin of a comparison that allows a loss takes."""
    tasks = plan.tasks
    return [
        attainable(Need(name, margin), LEVEL, tasks[name].items, tasks[name].available)
        for name, margin in plan.study.ship.retain.items()
        if margin <= 0 and not tasks[name].unit
    ]


def _state(need: Need, cell: Cell) -> tuple[str, str]:
    diff = cell.diff or Share(None, None, None, 0, 0)
    change = Interval(diff.mean, diff.low, diff.high, diff.n, diff.unscored)
    return need.state(change), "nothing scored" if diff.mean is None else _good(diff, need.unit)


def _blind(cell: Cell) -> str:
    count = cell.score.unscored
    return f"too many items of {cell.task} could not be scored ({count} of {count + cell.score.n})"


def _good(diff: Share, unit: str = "") -> str:
    """A change in good answers, so that no sign is left to be guessed."""
    if unit:
        way = "less" if (diff.mean or 0.0) > 0 else "more"
        return f"{abs(diff.mean or 0.0):.4f} {unit} {way} {_ends(diff, unit)}"
    points = 100 * (diff.mean or 0.0)
    way = "more" if points > 0 else "fewer"
    return f"{abs(points):.1f} points {way} good answers {_ends(diff)}"


def about_models(
    base: ExternalModel,
    tuned: Sequence[ExternalModel],
    marks: Mapping[str, Mapping[str, Any]],
    mixed: bool,
) -> list[str]:
    """What a reader must know of the models, before anything is asked.

    Args:
        base: the first.
        tuned: the others.
        marks: the identity of each, by name; the base's is ``base``.
        mixed: base and tuned models answer through different engines.
    """
    notes = [f"{one.name}: {note}." for one in (base, *tuned) for note in one.notes]
    for one in tuned:
        if (
            marks[one.name] == marks["base"]
            and one.source != base.source
            and one.form == "endpoint"
        ):
            notes.append(
                f"{one.name} and base bear one name on two servers; whether they are one model is "
                "not known here."
            )
        elif marks[one.name] == marks["base"]:
            notes.append(
                f"{one.name} and base are the same: what differs between them is noise, and no "
                "smaller difference means anything."
            )
        if is_quantised(one) != is_quantised(base):
            fewer, whole = (one.name, "base") if is_quantised(one) else ("base", one.name)
            notes.append(
                f"{fewer} has quantised weights and {whole} has not: what quantising cost is part "
                "of the difference."
            )
    if mixed:
        notes.append(
            f"{MIXED[0].upper()}{MIXED[1:]}: templates, precision and decoding differ with them, "
            "so that a difference may be theirs and not the training's."
        )
    return [*notes, SEEN, ONE_TRAINING]


def about_looks(looks: Mapping[str, Mapping[str, str]]) -> tuple[str, list[str]]:
    """How the models' chat templates and vocabularies compare: in short, and as notes.

    Args:
        looks: by model, hashes of ``template`` ("" where none is used) and ``vocabulary``;
            ``own_template`` where an adapter brings one that is not used.
    """
    base, notes = looks["base"], []
    others = {name: one for name, one in looks.items() if name != "base"}
    for name in _differing(others, base, "template"):
        notes.append(
            f"{name}: its chat template differs from base's; figures differ by template, so that "
            "a difference may be the template's and not the training's."
        )
    for name in _differing(others, base, "vocabulary"):
        notes.append(f"{name}: its vocabulary differs from base's.")
    for name, one in others.items():
        if one.get("own_template", one["template"]) != one["template"]:
            notes.append(
                f"{name}: the adapter brings a chat template of its own that differs from base's; "
                "it was asked with base's."
            )
    if not base["template"]:
        return "not used", notes
    return ("the same for all" if not notes else "not the same for all"), notes


def _differing(
    others: Mapping[str, Mapping[str, str]], base: Mapping[str, str], key: str
) -> Iterable[str]:
    return [name for name, one in others.items() if one[key] != base[key]]
