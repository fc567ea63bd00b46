"""Results as GitHub markdown.

Names and texts of the user's are made harmless by `clean`; every other cell is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.analysis import budget, recommend
from holdfast.analysis.lookup import final, final_gains, find, group_names, scales_of, steps_of
from holdfast.analysis.results import Cell, Choice, Results, Share, TaskInfo
from holdfast.methods import METHODS
from holdfast.report import decision_words, equal_gain, language, stage_texts, tables, words
from holdfast.report.figures import Figure
from holdfast.report.harmless import clean, table, title
from holdfast.report.headline import headline
from holdfast.report.html.pictures import aim_said
from holdfast.report.words import (
    NONE,
    UNMEASURED,
    amount,
    difference,
    interval,
    noise_line,
    plain,
    points,
    probability,
    shown,
    spelled,
    unscored,
)

KEPT = "Kept, after ÷ before"


def write(results: Results) -> str:
    """The whole study as GitHub markdown."""
    seeds = ", ".join(map(str, results.seeds))
    seeds = f", seed{'s' if len(results.seeds) != 1 else ''} {seeds}" if seeds else ""
    noise = noise_line(results)
    scaled, stepped = _scaled(results), any(cell.step for cell in results.cells)
    parts = [
        f"# {clean(results.name)}\n",
        f"**{clean(headline(results).en)}**\n",
        f"{clean(results.verdict)}\n",
        f"Model {clean(results.model)}{seeds}.\n",
        *_decision(results),
        *(f"> [!WARNING]\n> {clean(one)}\n" for one in results.warnings),
        *stage_texts.markdown(results),
        f"## {_said(results, 'final.title')}\n",
        _finals(results),
        *_mean_gain(results),
        "Each figure with its 95 % interval; below it the paired difference to base in "
        "percentage points (pts), of a measure in its own unit.\n",
        *([clean(noise) + "\n"] if noise else []),
        *(["With only a part λ of the training's change applied:\n", scaled] if scaled else []),
        *_fronts(results),
        *(["## Along the way\n", *(_along(results, t) for t in results.tasks)] if stepped else []),
        *_outcomes(results),
        *_sides(results),
        *_dose(results),
        *_equal_gain(results),
        *_next(results),
    ]
    grouped = [task for task in results.tasks if group_names(results, task.name)]
    if grouped:
        parts += ["## Group by group\n", *(_groups(results, task) for task in grouped)]
    parts += [
        *_costs(results),
        f"## {_said(results, 'training.title')}\n",
        _training(results),
    ]
    notes = [f"- {clean(a.name)}: {clean(note)}" for a in results.arms for note in a.notes]
    parts += ["\n".join(notes) + "\n"] if notes else []
    parts += _meters(results)
    parts += ["## How it was measured\n", _measured(results), _said(results, "statistics") + "\n"]
    parts += _ways(results) + _judges(results)
    conditions = [[clean(k), clean(v)] for k, v in results.conditions.items()]
    parts += [table(["Condition", "Value"], conditions)] if conditions else []
    return "\n".join(parts)


def _said(results: Results, key: str, **values: language.Said | str) -> str:
    """A text of the page, in English."""
    return language.of(results).say(key, **values).en


def _by_arm(results: Results, head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with an arm, or a model, a row."""
    return table([_said(results, "arm"), *head], rows)


def _figure(share: Share | None, task: TaskInfo) -> str:
    if share is None:
        return UNMEASURED
    turned = shown(share, task)
    text = f"{amount(turned.mean, task)} {interval(turned, task)}".strip()
    return f"{text}<br>{unscored(turned)}" if turned.unscored else text


def _changed(cell: Cell | None, task: TaskInfo) -> str:
    """A figure, and below it its difference to base."""
    text = _figure(cell.score if cell else None, task)
    diff = difference(cell.diff, task) if cell else None
    if diff:
        text += (
            f"<br>{diff.arrow} {diff.points} {diff.unit or 'pts'} {diff.interval} {diff.verdict}"
        )
    return text


def _finals(results: Results) -> str:
    rows = [
        [clean(arm.name), *(_changed(final(results, arm.name, t.name), t) for t in results.tasks)]
        for arm in results.arms
    ]
    return table([_said(results, "arm"), *map(title, results.tasks)], rows)


def _mean_gain(results: Results) -> list[str]:
    """The mean over several targets; nothing of a single one."""
    rows = [[clean(arm), points(gain)] for arm, gain in final_gains(results)]
    if not rows:
        return []
    return [_by_arm(results, [_said(results, "mean_gain.title")], rows)]


def _scaled(results: Results) -> str:
    """Points at which only a part of the training's change was applied; empty without them."""
    rows: list[Sequence[str]] = []
    for arm in results.arms:
        for step, scales in scales_of(results, arm.name).items():
            for scale in scales:
                found = [find(results, arm.name, step, task.name, scale) for task in results.tasks]
                pairs = zip(found, results.tasks, strict=True)
                texts = [_changed(cell, task) for cell, task in pairs]
                rows.append([clean(arm.name), f"{step:,}", f"{scale:g}", *texts])
    head = ("Step", "λ", *map(title, results.tasks))
    return _by_arm(results, head, rows) if rows else ""


def _along(results: Results, task: TaskInfo) -> str:
    steps = sorted({s for arm in results.arms for s in steps_of(results, arm.name, task.name)})
    rows = []
    for arm in results.arms:
        cells = [find(results, arm.name, step, task.name) for step in steps]
        rows.append([clean(arm.name), *(_figure(c.score, task) if c else "" for c in cells)])
    return f"{title(task)}\n\n" + _by_arm(results, [f"step {step}" for step in steps], rows)


def _groups(results: Results, task: TaskInfo) -> str:
    names = [arm.name for arm in results.arms]
    finals = [final(results, name, task.name) for name in names]
    rows = []
    for name in group_names(results, task.name):
        shares = [cell.groups.get(name) if cell else None for cell in finals]
        rows.append([clean(name), *(_figure(share, task) for share in shares)])
    return f"{title(task)}\n\n" + table(["Group", *map(clean, names)], rows)


def _training(results: Results) -> str:
    rows = []
    for arm in results.arms:
        sources = ", ".join(f"{clean(k)} {v:,}" for k, v in arm.by_source.items())
        count = f"{arm.examples:,}" if arm.examples else NONE
        rows.append([clean(arm.name), clean(arm.recipe), count, sources or NONE])
    return table([_said(results, "arm"), "Recipe", "Examples", "By source"], rows)


def _measured(results: Results) -> str:
    rows = []
    for task in results.tasks:
        judge = f"<br>Judge: {clean(spelled(task.judge))}" if task.judge else ""
        about = (task.name, task.role, f"{task.n:,}", task.label)
        rows.append([*map(clean, about), clean(task.how) + judge])
    return table(["Task", "Role", "Items", "Figure", "How"], rows)


def _decision(results: Results) -> list[str]:
    """Which checkpoint to ship, and why; nothing if it was not asked."""
    made = results.decision
    if made is None:
        return []
    candidates = [one for one in (made.chosen, made.runner_up) if one is not None]
    named = [one.arm for one in candidates]
    if made.runner_up is not None:
        named[-1] = f"{decision_words.second(made)} {named[-1]}"
    parts = [
        f"## Decision: {clean(decision_words.headline(made))}\n",
        clean(made.reason) + "\n",
    ]
    if candidates:
        head = ["Change against base", *map(clean, named)]
        rows = [[title(t), *(_effect(c, t) for c in candidates)] for t in results.tasks]
        parts.append(table(head, rows))
    told = (
        ("Next", made.next_step),
        ("Rule", made.rule),
        (decision_words.second(made).capitalize(), decision_words.runner_up(made)),
        *(("Passed over", why) for why in decision_words.passed(made)),
        ("Items", decision_words.items(made)),
        ("Intervals", decision_words.intervals(made)),
    )
    parts.append("\n".join(f"- {name}: {clean(text)}" for name, text in told if text) + "\n")
    return parts


def _effect(choice: Choice, task: TaskInfo) -> str:
    change = difference(choice.changes.get(task.name), task)
    if change is None:
        return NONE
    text = (
        f"{change.arrow} {change.points} {change.unit or 'pts'} {change.interval} {change.verdict}"
    )
    return ", ".join(
        filter(None, (text, decision_words.level(choice, task.name), f"n = {change.n:,}"))
    )


def _fronts(results: Results) -> list[str]:
    """The area that each arm dominates, and which of its points lie on the frontier."""
    if not results.fronts:
        return []
    rows = []
    for front in results.fronts:
        on = [
            f"step {step:,}" + (f" λ = {scale:g}" if scale != 1 else "") if step else "untrained"
            for step, scale in front.points
        ]
        rows.append([clean(front.arm), plain(front.volume, 3), "; ".join(on) or NONE])
    head = [_said(results, "arm"), "Area dominated (more is better)", "On the frontier"]
    return ["## The frontier\n", _said(results, "trade.front") + "\n", table(head, rows)]


def _outcomes(results: Results) -> list[str]:
    """The four outcomes of every arm, and of every group."""
    parts = []
    for four in tables.four(results):
        cells = [[clean(arm.name), *map(_figure_text, row)] for arm, row in four.rows]
        parts += [f"{title(four.task)}\n", table([_said(results, "arm"), *four.names], cells)]
        rows = [
            [clean(group), clean(arm.name), *map(_figure_text, row)]
            for group, several in four.groups
            for arm, row in several
        ]
        parts += [table(["Group", _said(results, "arm"), *four.names], rows)] if rows else []
    return ["## Four outcomes\n", _said(results, "four.lede") + "\n", *parts] if parts else []


def _figure_text(figure: Figure) -> str:
    text = f"{figure.text} {figure.interval}".strip()
    return f"{text}<br>{figure.unscored}" if figure.unscored else text


def _sides(results: Results) -> list[str]:
    """Items that changed sides, a table per retained task and one per breakdown."""
    parts = []
    for flipped in tables.flipped(results):
        rows = [
            [
                clean(arm.name),
                *(f"{count:,}" for count in (found.lost, found.won, found.n)),
                clean(probability(found.p)),
                _weighed(found.p_holm),
                kept,
            ]
            for arm, found, kept in flipped.rows
        ]
        head = ["Lost (1 → 0)", "Won (0 → 1)", "Items", "p, exact", "p, Holm", KEPT]
        parts += [f"{title(flipped.task)}\n", _by_arm(results, head, rows)]
        if flipped.groups:
            names = [clean(arm.name) for arm, _, _ in flipped.rows]
            cells = [
                [clean(group), *(_both(found.lost, found.won, found.p_holm) if found else NONE
                                 for found in row)]
                for group, row in flipped.groups
            ]  # fmt: skip
            parts += [_said(results, "sides.groups_lede") + "\n", table(["Group", *names], cells)]
    return ["## What changed sides\n", _said(results, "sides.lede") + "\n", *parts] if parts else []


def _dose(results: Results) -> list[str]:
    """Whether more gain goes with more forgetting, a sentence and a table per retained task."""
    found = tables.responses(results)
    if not found:
        return []
    parts = ["## Gain and forgetting\n", _said(results, "dose.lede") + "\n"]
    for response in found:
        said = f": all arms together, {response.sentence}." if response.sentence else "."
        parts.append(f"{title(response.task)}{said}\n")
        rows = []
        for dose in response.rows:
            rise = points(dose.rise) if dose.rise else NONE
            told = (f"{dose.points}", plain(dose.rho), rise, clean(dose.words))
            rows.append([clean(dose.arm), *told])
        if rows:
            head = ("Points", "ρ", "Fitted rise, points", "In words")
            parts.append(_by_arm(results, head, rows))
    return parts


def _equal_gain(results: Results) -> list[str]:
    """What each arm had lost where it had gained as much as the others, and the reverse."""
    parts = []
    for kind, found in (
        ("equal_gain", equal_gain.at_equal_gain(results)),
        ("equal_loss", equal_gain.at_equal_loss(results)),
    ):
        if found:
            parts.append(f"## {_said(results, f'{kind}.title')}\n")
            parts.append(_said(results, f"{kind}.lede") + "\n")
        head = [_said(results, f"{kind}.{name}") for name in ("change", "against")]
        target = aim_said(results).en if found else ""
        for one in found:
            at = _said(results, f"{kind}.at", far=one.far, target=target)
            parts.append(f"{title(one.task)}, {at}\n")
            rows = [[clean(arm), clean(said.en), clean(less)] for arm, said, less in one.rows]
            parts.append(_by_arm(results, head, rows))
    return parts


def _next(results: Results) -> list[str]:
    """Which remedies to try next, by what is recorded of them."""
    asked = recommend.of_results(results)
    found = recommend.recommend(asked, METHODS) if asked else None
    lines = recommend.told(found) if found else []
    if found and found.advice:
        lines.append("which of these the hardware holds: `holdfast recommend` and the run folder")
    return (
        ["## What to try next\n", "\n".join(f"- {clean(o)}" for o in lines) + "\n"] if lines else []
    )


def _costs(results: Results) -> list[str]:
    """Budget and cost of every arm, with the multiples of the reference arm's."""
    against, rows = budget.reference(results.arms), []
    if not budget.sentence(results.arms, results.seeds):
        return []
    for cost in tables.costs(results):
        texts = [
            text + (f" ({cost.times(number)})" if cost.times(number) else "")
            for number, text in enumerate(cost.cells)
        ]
        rows.append([clean(cost.arm.name), *texts])
    times_of = f" (\u00d7 {clean(against.name)})" if against else ""
    head = [_said(results, f"cost.{n}") + times_of * (n in (2, 7)) for n in range(tables.COSTS)]
    parts = ["## Budget and cost\n", clean(budget.sentence(results.arms, results.seeds)) + "\n"]
    more = [_by_arm(results, head, rows), _said(results, "cost.lede") + "\n"] if rows else []
    return [*parts, *more]


def _meters(results: Results) -> list[str]:
    """The last readings of the drift meters."""
    if not results.meters:
        return []
    rows = [[clean(arm), f"{step:,}", *rest] for arm, step, *rest in tables.meters(results)]
    units = ["KL, nats per token", "Cross-entropy, nats per token", "Norm of the weights' change"]
    told = _said(results, "meters.lede") + " The last readings:\n"
    return ["## Drift meters\n", told, _by_arm(results, ["Step", *units], rows)]


def _ways(results: Results) -> list[str]:
    """The same replies under every way of reading them; a way's name is the task's own."""
    parts = []
    for ways in tables.ways(results):
        rows = [
            [clean(arm.name), *(_figure_text(one) if one else NONE for one in row), spread]
            for arm, row, spread in ways.rows
        ]
        head = [_said(results, "arm"), *map(clean, ways.names), "Spread"]
        parts += [f"### {ways.title}\n", f"{title(ways.task)}\n", table(head, rows)]
    return [*parts, _said(results, "measured.readings_lede") + "\n"] if parts else []


def _judges(results: Results) -> list[str]:
    """How far the judges of an ensemble agree, a table per task."""
    parts = []
    for panel in tables.panels(results):
        kappas = (f"κ, {clean(name)}" for name in panel.pairs)
        head = [_said(results, "arm"), "α, all", *kappas, "Votes cast, by judge"]
        rows = [[clean(row.arm.name), row.alpha, *row.pairs, row.votes] for row in panel.rows]
        parts += [f"### Do the judges agree? {clean(panel.task.name)}\n", table(head, rows)]
    return [*parts, _said(results, "measured.agree_lede") + "\n"] if parts else []


def _weighed(p: float) -> str:
    text = clean(probability(p))
    return f"**{text}**" if p < words.SIGNIFICANT else text


def _both(lost: int, won: int, p: float) -> str:
    return f"\u2212{lost} / +{won} ({_weighed(p)})" if lost or won else "none"
