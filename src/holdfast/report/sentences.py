"""What do decision, noise and dose-response say, in sentences for every kind of report?"""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.analysis.results import Decision, Dose, Noise, Results, Share
from holdfast.report.words import candidate, difference, percent, plain, points

FLIPS = (
    "Lost: good before, bad after (1 → 0); won: bad before, good after (0 → 1); with several seeds "
    "an item counts by its net change. p is exact and two-sided (McNemar’s test; with several "
    "seeds its form for one base against these very runs), Holm’s correction is over all arms and "
    "all retained tasks. Kept is the good share after training over the one before."
)
GROUP_FLIPS = (
    "Lost / won per group, with Holm’s p over the groups of one breakdown in brackets; bold where "
    "it is below 0.05."
)
DOSE = (
    "Does more gain go with more forgetting? Every model measured, "
    "checkpoints and parts λ of their change, is a point: what it gained "
    "on the target, and what it lost on a retained task, both against base. ρ is Spearman's rank "
    "correlation within arms (1: the more gain, the more loss), the fit is the best line that "
    "never falls. Each seed is a point of the test; the picture shows means over seeds. "
    "Supported: the intervals of ρ and of the rise both lie above 0."
)
METERS = (
    "Drift from base while training, read on the target’s own prompts, so that it needs no data of "
    "the retained tasks. KL: how far the model’s next-token predictions moved. Cross-entropy: how "
    "unlikely base’s own answers became. Both in nats per token, the mean over seeds; the band "
    "spans the seeds."
)
FRONT = (
    "The part of the plane (gain on the target, worst change of a retained task) that an arm’s "
    "points reach, counted from no gain and everything lost: 1 would be everything gained and "
    "nothing lost, more is better. It grows with every point measured, so compare arms with "
    "equally many. A point is on the frontier if no other, base included, is at least as good on "
    "every task and better on one."
)
SIGNIFICANT = 0.05  # a Holm-corrected p below this is set in bold


def headline(decision: Decision) -> str:
    """The answer, and which checkpoint it is about: ``Ship replay, seed 1127, step 160``."""
    answer = decision.answer.capitalize()
    if decision.chosen is None:
        return answer
    between = " " if decision.answer == "ship" else ": "
    return f"{answer}{between}{candidate(decision.chosen)}"


def effects(results: Results, diffs: Mapping[str, Share]) -> str:
    """Paired differences as they are shown, task by task, in one line."""
    parts = []
    for task in results.tasks:
        one = difference(diffs.get(task.name), task.inverted)
        if one:
            parts.append(f"{task.name} {one.points} points {one.interval} {one.verdict}")
    return "; ".join(parts)


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


def noise(one: Noise) -> str:
    """What asking again changes on one task."""
    if not one.flipped:
        return "asked again, no item changed"
    moved = f"means moved by up to {100 * one.floor:.1f} points"
    return f"asked again, {percent(one.flipped)} of items changed, {moved}"


def noise_line(results: Results) -> str:
    """The noise floor of every task that has one, in a sentence."""
    if not results.noise:
        return ""
    repeats = ", ".join(sorted({str(one.repeats) for one in results.noise}))
    told = "; ".join(f"{one.task}: {noise(one)}" for one in results.noise)
    return f"Noise floor, the untouched model asked {repeats} times: {told}."


def dose(one: Dose) -> str:
    """One dose-response in words, the sign of the finding first."""
    if one.words == "too little data" or one.rho is None:
        return f"{one.words} ({one.points} points)"
    text = f"{one.words}: ρ = {plain(one.rho)} over {one.points} points"
    if one.rise is not None and one.rise.mean is not None:
        text += f"; from the least gain to the most, the loss rises by {points(one.rise)} points"
    return text
