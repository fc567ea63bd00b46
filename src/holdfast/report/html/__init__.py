"""How do the results of a study become one page that needs nothing but itself?

The page is one file: style, script and charts are inside, nothing is fetched, and a content
security policy forbids it to. Every text goes through Jinja's autoescape or `charts`' own.
"""

from __future__ import annotations

import base64
import hashlib
import re
from itertools import groupby
from typing import Any

from holdfast.analysis.lookup import group_names, reference, targets
from holdfast.analysis.results import Results
from holdfast.report import charts, cost_table, sentences, words
from holdfast.report.html import courses, figures, judges, outcomes, shipping, sides, tradeoff, ways

GLANCE = ("date", "device", "engine")  # conditions that stand under the title already
MANY = 7  # arms from which long sections are folded


def render(results: Results) -> str:
    """The page.

    Args:
        results: what the study found.

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
        looks=figures.looks(results),
        swatch=charts.swatch,
        **_top(results),
        **_measured(results),
        **_spent(results),
        replies=_replies(results),
    )
    # The only script that may run is the one in the template; model output could not, escaped or
    # not. The first mention of the mark is the policy's own.
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("SCRIPT-DIGEST", f"sha256-{digest}", 1)


def _top(results: Results) -> dict[str, Any]:
    """The decision and the trade-off."""
    fronts = tradeoff.areas(results)
    return {
        "glance": [v for k, v in results.conditions.items() if k.lower() in GLANCE],
        "ship": shipping.box(results),
        "views": tradeoff.views(results),
        "families": tradeoff.families(results),
        "targets": targets(results),
        "fronts": fronts,
        "front_top": 1.02 * max((one.reach for one in fronts), default=0.0) or 1.0,
        "front_words": sentences.FRONT,
    }


def _measured(results: Results) -> dict[str, Any]:
    """Every figure and what is drawn from it."""
    grouped = [task for task in results.tasks if group_names(results, task.name)]
    noise = {one.task: sentences.noise(one) for one in results.noise}
    return {
        "finals": figures.finals(results),
        "scaled": figures.scaled(results),
        "before": {task.name: figures.before(results, task) for task in results.tasks},
        "noise": {task.name: noise.get(task.name, "") for task in results.tasks},
        "panels": [
            (task, courses.course(results, task), figures.along(results, task))
            for task in results.tasks
        ],
        "grouped": [(task, figures.groups(results, task)) for task in grouped],
        "folded": len(results.arms) > MANY,
        "flipped": sides.flipped(results),
        "flips_words": sentences.FLIPS,
        "group_words": sentences.GROUP_FLIPS,
        "significant": sentences.SIGNIFICANT,
        "probability": words.probability,
        "responses": sides.responses(results),
        "dose_words": sentences.DOSE,
        "plain": words.plain,
        "points": words.points,
        "statistics": words.STATISTICS,
        "four": outcomes.four(results),
        "four_words": outcomes.EXPLAINED,
        "ways": ways.ways(results),
        "ways_words": ways.EXPLAINED,
        "spelled": words.spelled,
        "panels_of_judges": judges.panels(results),
        "judges_words": judges.EXPLAINED,
    }


def _spent(results: Results) -> dict[str, Any]:
    """Budget, cost and what was watched in training."""
    return {
        "budget": cost_table.budget(results),
        "costs": cost_table.costs(results),
        "cost_head": cost_table.HEAD,
        "cost_words": cost_table.EXPLAINED,
        "against": reference(results),
        "loss": courses.loss(results),
        "meters": courses.meters(results),
        "meter_words": sentences.METERS,
    }


def _replies(results: Results) -> list[tuple[str, list[tuple[str, list[Any]]]]]:
    """Replies by task, then by prompt, so that the arms' answers stand side by side."""
    tasks = []
    for task, some in groupby(sorted(results.replies, key=lambda r: r.task), lambda r: r.task):
        by_prompt: dict[str, list[Any]] = {}
        for reply in some:
            by_prompt.setdefault(reply.prompt, []).append(reply)
        tasks.append((task, list(by_prompt.items())))
    return tasks
