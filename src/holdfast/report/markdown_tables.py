"""How do budget, flips, dose-response, meters and the frontier read as GitHub markdown tables?

Names and texts of the user's are made harmless by `clean`; every other cell is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.analysis.lookup import reference
from holdfast.analysis.results import Choice, Results, TaskInfo
from holdfast.report import cost_table, sentences
from holdfast.report.html import judges as panels
from holdfast.report.html import outcomes as sections
from holdfast.report.html.courses import meters as read_meters
from holdfast.report.html.figures import Figure
from holdfast.report.html.sides import flipped, responses
from holdfast.report.html.ways import EXPLAINED
from holdfast.report.html.ways import ways as read_ways
from holdfast.report.words import NONE, difference, plain, points, probability


def clean(text: str) -> str:
    """`text` fit for one cell of a markdown table: no pipe, no line break, no live HTML."""
    flat = " ".join(text.split())
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        flat = flat.replace(mark, harmless)
    return flat


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A GitHub markdown table; cells must be `clean` already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def title(task: TaskInfo) -> str:
    """A task's name, role and literal label, for the head of a table column."""
    hint = "; lower is better" if task.inverted else ""
    return f"{clean(task.name)} ({task.role}): {clean(task.label)}{hint}"


def decision(results: Results) -> list[str]:
    """Which checkpoint to ship, and why; nothing if it was not asked."""
    made = results.decision
    if made is None:
        return []
    candidates = [one for one in (made.chosen, made.runner_up) if one is not None]
    named = [one.arm for one in candidates]
    if made.runner_up is not None:
        named[-1] = f"{sentences.second(made)} {named[-1]}"
    parts = [
        f"## Decision: {clean(sentences.headline(made))}\n",
        clean(f"{made.reason} {sentences.more(made)}".strip()) + "\n",
    ]
    if candidates:
        head = ["Change against base, on the untouched half", *map(clean, named)]
        rows = [[title(t), *(_effect(c, t) for c in candidates)] for t in results.tasks]
        parts.append(table(head, rows))
    told = (
        ("Rule", made.rule),
        (sentences.second(made).capitalize(), sentences.runner_up(made)),
        ("Items", sentences.halves(made)),
    )
    parts.append("\n".join(f"- {name}: {clean(text)}" for name, text in told if text) + "\n")
    return parts


def _effect(choice: Choice, task: TaskInfo) -> str:
    one = difference(choice.reported_on.get(task.name), task.inverted)
    other = difference(choice.chosen_on.get(task.name), task.inverted)
    if one is None:
        return NONE
    text = f"{one.arrow} {one.points} pts {one.interval} {one.verdict}, n = {one.n:,}"
    return text + (f"<br>half that chose: {other.points} {other.interval}" if other else "")


def fronts(results: Results) -> list[str]:
    """The area that each arm dominates, and which of its points lie on the frontier."""
    if not results.fronts:
        return []
    rows = []
    for one in results.fronts:
        on = [
            f"step {step:,}" + (f" λ = {scale:g}" if scale != 1 else "") if step else "untrained"
            for step, scale in one.points
        ]
        rows.append([clean(one.arm), plain(one.volume, 3), "; ".join(on) or NONE])
    head = ["Arm", "Area dominated (more is better)", "On the frontier"]
    return ["## The frontier\n", sentences.FRONT + "\n", table(head, rows)]


def outcomes(results: Results) -> list[str]:
    """The four outcomes of every arm, and of every group."""
    parts = []
    for one in sections.four(results):
        cells = [[clean(arm.name), *map(_share, row)] for arm, row in one.rows]
        parts += [f"{title(one.task)}\n", table(["Arm", *one.names], cells)]
        rows = [
            [clean(group), clean(arm.name), *map(_share, row)]
            for group, several in one.groups
            for arm, row in several
        ]
        parts += [table(["Group", "Arm", *one.names], rows)] if rows else []
    return ["## Four outcomes\n", sections.EXPLAINED + "\n", *parts] if parts else []


def _share(figure: Figure) -> str:
    text = f"{figure.text} {figure.interval}".strip()
    return f"{text}<br>{figure.unscored}" if figure.unscored else text


def sides(results: Results) -> list[str]:
    """Items that changed sides, a table per retained task and one per breakdown."""
    parts = []
    for one in flipped(results):
        rows = [
            [
                clean(arm.name),
                *(f"{count:,}" for count in (found.lost, found.won, found.n)),
                clean(probability(found.p)),
                _weighed(found.p_holm),
                kept,
            ]
            for arm, found, kept in one.rows
        ]
        head = ["Arm", "Lost (1 → 0)", "Won (0 → 1)", "Items", "p, exact", "p, Holm"]
        parts += [f"{title(one.task)}\n", table([*head, "Kept, after ÷ before"], rows)]
        if one.groups:
            names = [clean(arm.name) for arm, _, _ in one.rows]
            cells = [
                [clean(group), *(_both(found.lost, found.won, found.p_holm) if found else NONE
                                 for found in row)]
                for group, row in one.groups
            ]  # fmt: skip
            parts += [sentences.GROUP_FLIPS + "\n", table(["Group", *names], cells)]
    return ["## What changed sides\n", sentences.FLIPS + "\n", *parts] if parts else []


def dose(results: Results) -> list[str]:
    """Whether more gain goes with more forgetting, a sentence and a table per retained task."""
    found = responses(results)
    if not found:
        return []
    parts = ["## Gain and forgetting\n", sentences.DOSE + "\n"]
    for one in found:
        said = f": all arms together, {one.sentence}." if one.sentence else "."
        parts.append(f"{title(one.task)}{said}\n")
        rows = [
            [
                clean(dose.arm),
                f"{dose.points}",
                plain(dose.rho),
                points(dose.rise) if dose.rise else NONE,
                clean(dose.words),
            ]
            for _, dose in one.rows
        ]
        parts += [table(["Arm", "Points", "ρ", "Fitted rise, points", "In words"], rows)] * bool(
            rows
        )
    return parts


def costs(results: Results) -> list[str]:
    """Budget and cost of every arm, with the multiples of the reference arm's."""
    against, rows = reference(results), []
    if not cost_table.budget(results):
        return []
    for one in cost_table.costs(results):
        texts = [
            text + (f" ({one.times(number)})" if one.times(number) else "")
            for number, text in enumerate(one.cells)
        ]
        rows.append([clean(one.arm.name), *texts])
    times_of = f" (\u00d7 {clean(against.name)})" if against else ""
    head = [name + times_of * (number in (2, 7)) for number, name in enumerate(cost_table.HEAD)]
    parts = ["## Budget and cost\n", clean(cost_table.budget(results)) + "\n"]
    return [*parts, table(["Arm", *head], rows), cost_table.EXPLAINED + "\n"] if rows else parts


def meters(results: Results) -> list[str]:
    """The last readings of the drift meters."""
    found = read_meters(results)
    if found is None:
        return []
    rows = [[clean(arm), f"{step:,}", *rest] for arm, step, *rest in found.rows]
    units = ["KL, nats per token", "Cross-entropy, nats per token", "Norm of the weights' change"]
    return [
        "## Drift meters\n",
        sentences.METERS.removesuffix("; the band spans the seeds.") + ". The last readings:\n",
        table(["Arm", "Step", *units], rows),
    ]


def ways(results: Results) -> list[str]:
    """The same replies under every way of reading them; a way's name is the task's own."""
    parts = []
    for one in read_ways(results):
        rows = [
            [
                clean(arm.name),
                *(_share(figure) if figure else NONE for figure in row),
                spread,
            ]
            for arm, row, spread in one.rows
        ]
        head = ["Arm", *map(clean, one.names), "Spread"]
        parts += [f"### {one.title}\n", f"{title(one.task)}\n", table(head, rows)]
    return [*parts, EXPLAINED + "\n"] if parts else []


def judges(results: Results) -> list[str]:
    """How far the judges of an ensemble agree, a table per task."""
    parts = []
    for one in panels.panels(results):
        head = [
            "Arm",
            "α, all",
            *(f"κ, {clean(name)}" for name in one.pairs),
            "Votes cast, by judge",
        ]
        rows = [[clean(row.arm.name), row.alpha, *row.pairs, row.votes] for row in one.rows]
        parts += [f"### Do the judges agree? {clean(one.task.name)}\n", table(head, rows)]
    return [*parts, panels.EXPLAINED + "\n"] if parts else []


def _weighed(p: float) -> str:
    text = clean(probability(p))
    return f"**{text}**" if p < sentences.SIGNIFICANT else text


def _both(lost: int, won: int, p: float) -> str:
    return f"\u2212{lost} / +{won} ({_weighed(p)})" if lost or won else "none"
