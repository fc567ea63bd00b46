"""The headline of a study: one plain sentence that agrees with the decision, without figures."""

from __future__ import annotations

from dataclasses import replace

from holdfast.analysis.results import Results, Transfer
from holdfast.analysis.story import Story, may_have_lost, story
from holdfast.report import language
from holdfast.report.language import Said, Speech

NAMED = 3
"""Tasks that are named; more are counted."""
ENDS = {
    "kept": "story.kept",
    "not kept": "story.not_kept",
    "not enough evidence": "story.undecided",
}


def headline(results: Results) -> Said:
    """What became of the first model, and what may be shipped, in both languages."""
    found, speech = story(results), language.of(results)
    if not found.arm:
        return speech.say("story.none")
    if results.transfer:
        other = "" if found.ships is None else found.other
        first = _in_stages(results.transfer[0], speech)
        if found.lost:
            lost = _tasks(found.lost, found, speech)
            backward = results.transfer[0].backward
            worse = backward is not None and backward.direction == "worse"
            first = speech.say("story.also_lost" if worse else "story.lost", first=first, lost=lost)
        return _ended(replace(found, lost=(), other=other), first, speech)
    return _ended(found, _first(found, speech), speech)


def _in_stages(one: Transfer, speech: Speech) -> Said:
    """What the first arm kept of the tasks that it learned one after the other."""
    told = {"better": "gained", "worse": "forgot", "no clear change": "kept"}
    how = told[one.backward.direction] if one.backward is not None else "learned"
    if how == "kept" and one.backward is not None and may_have_lost(one.backward):
        how = "may"
    return speech.say(f"story.stages_{how}", arm=one.arm)


def _first(found: Story, speech: Speech) -> Said:
    """What the first model gained and lost."""
    arm, gained = found.arm, _tasks(found.gained, found, speech) if found.gained else None
    lost = _tasks(found.lost, found, speech) if found.lost else None
    doubtful = _tasks(found.doubtful, found, speech) if found.doubtful else None
    if found.gain is None:
        if lost and gained:
            return speech.say("story.gained_lost", arm=arm, gained=gained, lost=lost)
        if lost:
            return speech.say("story.only_lost", arm=arm, lost=lost)
        if doubtful:
            how = "story.may_gained" if gained else "story.may_only"
            return speech.say(how, arm=arm, gained=gained or "", lost=doubtful)
        if gained:
            return speech.say("story.only_gained", arm=arm, gained=gained)
        return speech.say("story.same", arm=arm)
    gain = {"better": "better", "worse": "worse", "no clear change": "unclear"}[found.gain]
    first = speech.say(f"story.{gain}", arm=arm, target=speech.listed(found.targets))
    if lost:
        how = "story.lost" if found.gain == "better" else "story.also_lost"
        return speech.say(how, first=first, lost=lost)
    if doubtful:
        return speech.say("story.may", first=first, lost=doubtful)
    return speech.say("story.no_loss", first=first) if found.tasks else first


def _tasks(names: tuple[str, ...], found: Story, speech: Speech) -> Said:
    if len(names) > NAMED:
        return speech.say("of_tasks", some=len(names), all=found.tasks)
    return speech.listed(names)


def _ended(found: Story, first: Said, speech: Speech) -> Said:
    """The first half, and what the decision adds to it."""
    if found.ships is None:
        if found.other and not found.answer:
            return speech.say("story.other_data", first=first, other=found.other)
        return speech.say(ENDS.get(found.answer, "story.end"), first=first)
    if not found.ships:
        ends = {"do not ship": "story.no", "not enough evidence": "story.open"}
        return speech.say(ends.get(found.answer, "story.end"), first=first)
    if not found.other:
        return speech.say("story.ships_earlier" if found.lost else "story.ships", first=first)
    if found.lost and found.kept == found.lost:
        them = speech.say("them" if len(found.lost) > 1 else "it")
        return speech.say("story.other_kept", first=first, other=found.other, them=them)
    return speech.say("story.other_less", first=first, other=found.other)
