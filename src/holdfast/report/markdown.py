"""How does a study read as GitHub markdown?"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.analysis.lookup import final, find, group_names, scales_of, steps_of
from holdfast.analysis.results import Cell, Results, Share, TaskInfo
from holdfast.report import markdown_tables as tables
from holdfast.report import sentences
from holdfast.report.markdown_tables import clean, table, title
from holdfast.report.words import (
    NONE,
    STATISTICS,
    UNMEASURED,
    difference,
    interval,
    percent,
    shown,
    spelled,
    unscored,
)

TRAINED, COMPARED = "What each arm was trained on", "What is compared"


def write(results: Results) -> str:
    """The whole study as GitHub markdown."""
    seeds = ", ".join(map(str, results.seeds))
    seeds = f", seed{'s' if len(results.seeds) != 1 else ''} {seeds}" if seeds else ""
    noise = sentences.noise_line(results)
    scaled, stepped = _scaled(results), any(cell.step for cell in results.cells)
    parts = [
        f"# {clean(results.name)}\n",
        f"**{clean(results.verdict)}**\n",
        f"Model {clean(results.model)}{seeds}.\n",
        *tables.decision(results),
        *(f"> [!WARNING]\n> {clean(one)}\n" for one in results.warnings),
        f"## {'At the final checkpoint' if stepped else 'Before and after'}\n",
        _finals(results),
        "Each figure with its 95 % interval; below it the paired difference to base in "
        "percentage points.\n",
        *([clean(noise) + "\n"] if noise else []),
        *(["With only a part λ of the training's change applied:\n", scaled] if scaled else []),
        *tables.fronts(results),
        *(["## Along the way\n", *(_along(results, t) for t in results.tasks)] if stepped else []),
        *tables.outcomes(results),
        *tables.sides(results),
        *tables.dose(results),
    ]
    grouped = [task for task in results.tasks if group_names(results, task.name)]
    if grouped:
        parts += ["## Group by group\n", *(_groups(results, task) for task in grouped)]
    parts += [
        *tables.costs(results),
        f"## {TRAINED if results.trained else COMPARED}\n",
        _training(results),
    ]
    notes = [f"- {clean(a.name)}: {clean(note)}" for a in results.arms for note in a.notes]
    parts += ["\n".join(notes) + "\n"] if notes else []
    parts += tables.meters(results)
    parts += ["## How it was measured\n", _measured(results), STATISTICS + "\n"]
    parts += tables.ways(results) + tables.judges(results)
    conditions = [[clean(k), clean(v)] for k, v in results.conditions.items()]
    parts += [table(["Condition", "Value"], conditions)] if conditions else []
    return "\n".join(parts)


def _figure(share: Share | None, task: TaskInfo) -> str:
    if share is None:
        return UNMEASURED
    one = shown(share, task.inverted)
    text = f"{percent(one.mean)} {interval(one)}".strip()
    return f"{text}<br>{unscored(one)}" if one.unscored else text


def _changed(cell: Cell | None, task: TaskInfo) -> str:
    """A figure, and below it its difference to base."""
    text = _figure(cell.score if cell else None, task)
    diff = difference(cell.diff, task.inverted) if cell else None
    if diff:
        text += f"<br>{diff.arrow} {diff.points} pts {diff.interval} {diff.verdict}"
    return text


def _finals(results: Results) -> str:
    rows = [
        [clean(arm.name), *(_changed(final(results, arm.name, t.name), t) for t in results.tasks)]
        for arm in results.arms
    ]
    return table(["Arm", *map(title, results.tasks)], rows)


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
    return table(["Arm", "Step", "λ", *map(title, results.tasks)], rows) if rows else ""


def _along(results: Results, task: TaskInfo) -> str:
    steps = sorted({s for arm in results.arms for s in steps_of(results, arm.name, task.name)})
    rows = []
    for arm in results.arms:
        cells = [find(results, arm.name, step, task.name) for step in steps]
        rows.append([clean(arm.name), *(_figure(c.score, task) if c else "" for c in cells)])
    return f"{title(task)}\n\n" + table(["Arm", *(f"step {step}" for step in steps)], rows)


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
    return table(["Arm", "Recipe", "Examples", "By source"], rows)


def _measured(results: Results) -> str:
    rows = []
    for one in results.tasks:
        judge = f"<br>Judge: {clean(spelled(one.judge))}" if one.judge else ""
        rows.append(
            [clean(one.name), one.role, f"{one.n:,}", clean(one.label), clean(one.how) + judge]
        )
    return table(["Task", "Role", "Items", "Figure", "How"], rows)
