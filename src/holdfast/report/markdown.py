"""How are figures put into words, and how does a study read as GitHub markdown?

The wording is shared with the HTML page: one place decides how a share, an interval, a difference
and a budget are written, and which way round an `inverted` task is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from holdfast.report.results import ArmInfo, Cell, Results, Share, TaskInfo

BASE = "base"
NONE = "—"
UNMEASURED = "not measured"

STATISTICS = (
    "All intervals are 95 %. With one training seed the interval of a share is Wilson's score "
    "interval; with several it is a bootstrap that resamples items and seeds. A difference to "
    "base is paired: the same items are compared before and after; its interval is Newcombe's for "
    "paired shares with one seed, and a bootstrap over items and seeds with several. One training "
    "seed says nothing of how much training again would change; two or three say little. A "
    "difference is called better or worse only if its interval excludes 0; otherwise the data do "
    "not tell. Intervals are not corrected for the number of comparisons. Unscored items are "
    "neither right nor wrong: they take no part in a share and are counted beside it."
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference to base, as it is shown."""

    points: str  # "+12.3", in percentage points, the way round in which the task is shown
    interval: str  # "[+10.1, +14.6]"
    verdict: str  # "better", "worse" or "no clear change"
    arrow: str  # which way the shown figure went: ▲ ▼, or ≈ where the interval includes 0


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal; a dash where there is none."""
    return NONE if value is None else f"{100 * value:.1f}\u202f%"


def signed(value: float) -> str:
    """A difference of shares in percentage points, with its sign unless it is exactly 0."""
    sign = "+" if value > 0 else "\u2212" if value < 0 else ""
    return f"{sign}{abs(100 * value):.1f}"


def shown(share: Share, inverted: bool) -> Share:
    """The share as it is shown: `1 - mean` for an inverted task, with its interval turned too."""
    if not inverted or share.mean is None:
        return share
    low = None if share.high is None else 1 - share.high
    high = None if share.low is None else 1 - share.low
    return Share(1 - share.mean, low, high, share.n, share.unscored)


def interval(share: Share) -> str:
    """The interval of a (shown) share, in percent; empty where there is none."""
    if share.low is None or share.high is None:
        return ""
    return f"[{100 * share.low:.1f}, {100 * share.high:.1f}]"


def difference(diff: Share | None, inverted: bool) -> Difference | None:
    """The paired difference as it is shown; whether it is good is judged before turning it."""
    if diff is None or diff.mean is None:
        return None
    turn = -1.0 if inverted else 1.0
    low, high = diff.low, diff.high
    ends = "" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"
    if ends and inverted:
        ends = f"[{signed(-(high or 0.0))}, {signed(-(low or 0.0))}]"
    verdict = "no clear change"
    if low is not None and low > 0:
        verdict = "better"
    elif high is not None and high < 0:
        verdict = "worse"
    arrow = "≈" if verdict == "no clear change" else "▲" if turn * diff.mean > 0 else "▼"
    return Difference(signed(turn * diff.mean), ends, verdict, arrow)


def unscored(share: Share) -> str:
    """How many items could not be scored, or nothing at all if every one could."""
    return f"{share.unscored:,} of {share.n + share.unscored:,} unscored" if share.unscored else ""


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def find(results: Results, arm: str, step: int, task: str) -> Cell | None:
    """The cell, or None where it was not measured."""
    try:
        return results.cell(arm, step, task)
    except KeyError:
        return None


def steps_of(results: Results, arm: str, task: str) -> list[int]:
    """The steps at which one arm was measured on one task, in order."""
    return sorted({c.step for c in results.cells if (c.arm, c.task) == (arm, task)})


def group_names(results: Results, task: str) -> list[str]:
    """The groups of one task that the base or a final checkpoint has, in order of appearance."""
    finals = [find(results, arm.name, results.last_step(arm.name), task) for arm in results.arms]
    return list(dict.fromkeys(name for cell in finals if cell for name in cell.groups))


def reference(results: Results) -> ArmInfo | None:
    """The arm whose budget the others are held against: `sft`, or else the first trained one."""
    trained = [arm for arm in results.arms if arm.supervised_tokens > 0]
    return next((arm for arm in trained if arm.name == "sft"), trained[0] if trained else None)


def ratio(arm: ArmInfo, against: ArmInfo | None) -> float | None:
    """Supervised tokens of `arm` as a multiple of the reference arm's."""
    if against is None or not arm.supervised_tokens:
        return None
    return arm.supervised_tokens / against.supervised_tokens


def budget(results: Results) -> str:
    """One sentence on whether the arms were trained at the same cost."""
    against = reference(results)
    others = [a for a in results.arms if a.supervised_tokens and a is not against]
    if against is None:
        return "Nothing was trained."
    if not others:
        return f"Only {against.name} was trained."
    ratios = {arm.name: ratio(arm, against) or 1.0 for arm in others}
    worst = max(ratios, key=lambda name: abs(math.log(ratios[name])))
    same = {arm.steps for arm in others} == {against.steps}
    steps = "the same number" if same else "different numbers"
    if same and abs(ratios[worst] - 1) <= 0.05:
        within = f"{100 * abs(ratios[worst] - 1):.1f}\u202f%"
        return (
            "Equal budget: all arms took the same number of optimiser steps and saw supervised "
            f"tokens within {within} of {against.name}."
        )
    return (
        f"The budgets differ: the arms took {steps} of optimiser steps, and {worst} saw "
        f"{ratios[worst]:.2f} times the supervised tokens of {against.name}. Read the arms side by "
        "side with that in mind."
    )


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


def write(results: Results) -> str:
    """The whole study as GitHub markdown."""
    seeds = ", ".join(map(str, results.seeds))
    parts = [
        f"# {clean(results.name)}\n",
        f"**{clean(results.verdict)}**\n",
        f"Model {clean(results.model)}, seed{'s' if len(results.seeds) != 1 else ''} {seeds}.\n",
        *(f"> [!WARNING]\n> {clean(one)}\n" for one in results.warnings),
        "## At the final checkpoint\n",
        _finals(results),
        "Each figure with its 95 % interval; below it the paired difference to base in "
        "percentage points.\n",
        "## Along the way\n",
        *(_along(results, task) for task in results.tasks),
    ]
    grouped = [task for task in results.tasks if group_names(results, task.name)]
    if grouped:
        parts += ["## Group by group\n", *(_groups(results, task) for task in grouped)]
    parts += [
        "## What each arm was trained on\n",
        clean(budget(results)) + "\n",
        _training(results),
    ]
    notes = [f"- {clean(a.name)}: {clean(note)}" for a in results.arms for note in a.notes]
    parts += ["\n".join(notes) + "\n"] if notes else []
    parts += ["## How it was measured\n", _measured(results), STATISTICS + "\n"]
    conditions = [[clean(k), clean(v)] for k, v in results.conditions.items()]
    parts += [table(["Condition", "Value"], conditions)] if conditions else []
    return "\n".join(parts)


def title(task: TaskInfo) -> str:
    """A task's name, role and literal label, for the head of a table column."""
    hint = "; lower is better" if task.inverted else ""
    return f"{clean(task.name)} ({task.role}): {clean(task.label)}{hint}"


def _figure(share: Share | None, task: TaskInfo) -> str:
    if share is None:
        return UNMEASURED
    one = shown(share, task.inverted)
    text = f"{percent(one.mean)} {interval(one)}".strip()
    return f"{text}<br>{unscored(one)}" if one.unscored else text


def _finals(results: Results) -> str:
    rows = []
    for arm in results.arms:
        row, step = [clean(arm.name)], results.last_step(arm.name)
        for task in results.tasks:
            cell = find(results, arm.name, step, task.name)
            text = _figure(cell.score if cell else None, task)
            diff = difference(cell.diff, task.inverted) if cell else None
            if diff:
                text += f"<br>{diff.arrow} {diff.points} pts {diff.interval} {diff.verdict}"
            row.append(text)
        rows.append(row)
    return table(["Arm", *map(title, results.tasks)], rows)


def _along(results: Results, task: TaskInfo) -> str:
    steps = sorted({c.step for c in results.cells if c.task == task.name})
    rows = []
    for arm in results.arms:
        cells = [find(results, arm.name, step, task.name) for step in steps]
        rows.append([clean(arm.name), *(_figure(c.score, task) if c else "" for c in cells)])
    return f"{title(task)}\n\n" + table(["Arm", *(f"step {step}" for step in steps)], rows)


def _groups(results: Results, task: TaskInfo) -> str:
    names = [arm.name for arm in results.arms]
    finals = [find(results, name, results.last_step(name), task.name) for name in names]
    rows = []
    for name in group_names(results, task.name):
        shares = [cell.groups.get(name) if cell else None for cell in finals]
        rows.append([clean(name), *(_figure(share, task) for share in shares)])
    return f"{title(task)}\n\n" + table(["Group", *map(clean, names)], rows)


def _training(results: Results) -> str:
    against, rows = reference(results), []
    for arm in results.arms:
        sources = ", ".join(f"{clean(k)} {v:,}" for k, v in arm.by_source.items())
        times = ratio(arm, against)
        tokens = f"{arm.supervised_tokens:,}" + (f" ({times:.2f}\u00d7)" if times else "")
        counts = [f"{arm.examples:,}", sources or NONE, f"{arm.steps:,}", tokens]
        seen = [f"{arm.examples_seen:,}", duration(arm.seconds)]
        rows.append([clean(arm.name), clean(arm.recipe), *counts, *seen])
    times_of = f" (\u00d7 {clean(against.name)})" if against else ""
    head = ["Arm", "Recipe", "Examples", "By source", "Steps", f"Supervised tokens{times_of}"]
    return table([*head, "Examples seen", "Time"], rows)


def _measured(results: Results) -> str:
    rows = [
        [clean(t.name), t.role, f"{t.n:,}", clean(t.label), clean(t.how)] for t in results.tasks
    ]
    return table(["Task", "Role", "Items", "Figure", "How"], rows)
