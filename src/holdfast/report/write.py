"""Writes a report: one HTML page, one markdown file and the data behind both.

The page is one file: style, script and charts are inside, nothing is fetched, and a content
security policy forbids it to. Every text goes through Jinja's autoescape or the charts' own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from holdfast.analysis import budget
from holdfast.analysis.lookup import group_names, targets
from holdfast.analysis.results import Choice, ReplyShown, Results, TaskInfo, to_json
from holdfast.report import decision_words, equal_gain, figures, markdown, tables, words
from holdfast.report.charts.marks import swatch
from holdfast.report.html import pictures, trade_off
from holdfast.runs.store import write_text


def write_report(results: Results, folder: Path) -> Path:
    """Write `results.json`, `report.md` and `index.html` into `folder`, each atomically.

    Args:
        results: what the study found.
        folder: made if it does not exist; older files of these names are replaced.

    Returns:
        The path of `index.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    index = folder / "index.html"
    data = json.dumps(to_json(results), indent=1, ensure_ascii=False) + "\n"
    for path, text in (
        (folder / "results.json", data),
        (folder / "report.md", markdown.write(results)),
        (index, render(results)),  # last: where there is a page, there is all of it
    ):
        # A model may write half of a surrogate pair, which UTF-8 cannot hold; spell it out.
        write_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return index


GLANCE = ("date", "device", "engine")  # conditions that stand under the title already
MANY = 7  # arms from which long sections are folded
TONES = {"ship": "better", "do not ship": "worse", "kept": "better", "not kept": "worse"}


def render(results: Results, mark: str = "") -> str:
    """The page.

    Args:
        results: what the study found.
        mark: of a page that is served: it asks ``/state`` whether there is a newer one.

    Returns:
        HTML that is complete in itself.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("holdfast.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        results=results,
        mark=mark,
        looks=pictures.looks(results),
        swatch=swatch,
        **_top(results),
        **_measured(results),
        **_spent(results),
        replies=_replies(results),
    )
    # The only scripts that may run are those of the template, which are its last; model output
    # could not, escaped or not. The first mention of the mark is the policy's own.
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-2 if mark else -1 :]
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    return page.replace("SCRIPT-DIGEST", "' '".join(f"sha256-{one}" for one in digests), 1)


def _top(results: Results) -> dict[str, object]:
    """The decision and the trade-off."""
    fronts = trade_off.areas(results)
    return {
        "glance": [v for k, v in results.conditions.items() if k.lower() in GLANCE],
        "ship": box(results),
        "views": trade_off.views(results),
        "families": trade_off.families(results),
        "targets": targets(results),
        "fronts": fronts,
        "front_top": 1.02 * max((one.reach for one in fronts), default=0.0) or 1.0,
        "front_words": words.FRONT,
    }


@dataclass(frozen=True, slots=True)
class Effect:
    """A candidate's change on one task, and the level of its interval if it is not 95 %."""

    change: words.Difference | None
    level: str


@dataclass(frozen=True, slots=True)
class Box:
    """The decision, ready to print."""

    headline: str
    tone: str  # better, worse, or open
    columns: tuple[str, ...]  # the candidates: the chosen one first
    rows: tuple[tuple[TaskInfo, tuple[Effect, ...]], ...]  # in the order of `columns`
    second: str
    runner_up: str
    passed: tuple[str, ...]
    items: str
    intervals: str


def box(results: Results) -> Box | None:
    """What to show of the decision, if there is one."""
    made = results.decision
    if made is None:
        return None
    named = (("", made.chosen), (f"{decision_words.second(made)} ", made.runner_up))
    there = [(prefix, one) for prefix, one in named if one is not None]
    rows = [(task, tuple(_effect(one, task) for _, one in there)) for task in results.tasks]
    return Box(
        headline=decision_words.headline(made),
        tone=TONES.get(made.answer, "open"),
        columns=tuple(prefix + one.arm for prefix, one in there),
        rows=tuple((task, effects) for task, effects in rows if any(e.change for e in effects)),
        second=decision_words.second(made),
        runner_up=decision_words.runner_up(made),
        passed=decision_words.passed(made),
        items=decision_words.items(made),
        intervals=decision_words.intervals(made),
    )


def _effect(choice: Choice, task: TaskInfo) -> Effect:
    change = words.difference(choice.changes.get(task.name), task.inverted)
    return Effect(change, decision_words.level(choice, task.name))


def _measured(results: Results) -> dict[str, object]:
    """Every figure and what is drawn from it."""
    grouped = [task for task in results.tasks if group_names(results, task.name)]
    noise = {one.task: words.noise(one) for one in results.noise}
    return {
        "finals": figures.finals(results),
        "scaled": figures.scaled(results),
        "before": {task.name: figures.before(results, task) for task in results.tasks},
        "noise": {task.name: noise.get(task.name, "") for task in results.tasks},
        "panels": [
            (task, pictures.course(results, task), figures.along(results, task))
            for task in results.tasks
        ],
        "grouped": [(task, figures.groups(results, task)) for task in grouped],
        "folded": len(results.arms) > MANY,
        "flipped": tables.flipped(results),
        "flips_words": words.FLIPS,
        "group_words": words.GROUP_FLIPS,
        "significant": words.SIGNIFICANT,
        "probability": words.probability,
        "responses": pictures.doses(results),
        "dose_words": words.DOSE,
        "equal_gain": equal_gain.at_equal_gain(results),
        "equal_gain_head": equal_gain.HEAD,
        "equal_gain_words": equal_gain.EXPLAINED,
        "plain": words.plain,
        "points": words.points,
        "statistics": words.STATISTICS,
        "four": tables.four(results),
        "four_words": tables.OUTCOMES_EXPLAINED,
        "ways": tables.ways(results),
        "ways_words": tables.WAYS_EXPLAINED,
        "spelled": words.spelled,
        "panels_of_judges": tables.panels(results),
        "judges_words": tables.JUDGES_EXPLAINED,
    }


def _spent(results: Results) -> dict[str, object]:
    """Budget, cost and what was watched in training."""
    return {
        "budget": budget.sentence(results.arms, results.seeds),
        "costs": tables.costs(results),
        "cost_head": tables.COST_HEAD,
        "cost_words": tables.COSTS_EXPLAINED,
        "against": budget.reference(results.arms),
        "loss": pictures.loss(results),
        "meters": pictures.meters(results),
        "meter_rows": tables.meters(results),
        "meter_words": words.METERS,
    }


def _replies(results: Results) -> list[tuple[str, list[tuple[str, list[ReplyShown]]]]]:
    """Replies by task, then by prompt, so that the arms' answers stand side by side."""
    tasks = []
    for task, some in groupby(sorted(results.replies, key=lambda r: r.task), lambda r: r.task):
        by_prompt: dict[str, list[ReplyShown]] = {}
        for reply in some:
            by_prompt.setdefault(reply.prompt, []).append(reply)
        tasks.append((task, list(by_prompt.items())))
    return tasks
