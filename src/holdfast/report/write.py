"""Writes a report: one HTML page, one markdown file, the data behind both, and the charts.

The page is one file: style, script and charts are inside, nothing is fetched but, where it is
served, itself and replies for which it has no room; a content security policy sees to it. Every
text goes through Jinja's autoescape or the charts' own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from holdfast.analysis import budget
from holdfast.analysis.lookup import final_gains, targets
from holdfast.analysis.results import Choice, Results, TaskInfo, to_json
from holdfast.analysis.transfer import MEASURES
from holdfast.errors import printable
from holdfast.report import (
    decision_words,
    equal_gain,
    export,
    figures,
    headline,
    language,
    markdown,
    stages,
    tables,
    words,
)
from holdfast.report.charts.marks import swatch
from holdfast.report.html import browser, pictures, trade_off

if TYPE_CHECKING:
    from jinja2 import Environment


def write_report(results: Results, folder: Path) -> Path:
    """Write `results.json`, `report.md`, `index.html` and the charts into `folder`.

    Args:
        results: what the study found.
        folder: made if it does not exist; older files of these names are replaced.

    Returns:
        The path of `index.html`.

    Raises:
        OSError: the folder cannot be written.
    """
    index, drawn = folder / "index.html", export.draw(results)
    replies = browser.replies_of(results)
    for old in (folder / "replies").glob("*.json"):
        if old.stem.isdigit():  # of a report that showed more
            old.unlink()
    style = str(_environment().get_template("charts.css.j2").render())
    parts = replies.files if replies and not replies.whole else {}
    files = {
        "results.json": json.dumps(to_json(results), indent=1, ensure_ascii=False) + "\n",
        "report.md": markdown.write(results),
        **export.stage_files(results),
        **export.chart_files(drawn, style),
        **parts,
        "index.html": render(results, drawn=drawn, replies=replies),  # last: where it is, all is
    }
    export.write(folder, files)
    return index


OPEN = {one: f"{{{one}}}" for one in ("n", "outcome", "first", "last", "all", "done", "text")}
"""Places in the texts of the replies' script, which fills them itself."""
GLANCE = ("date", "device", "engine")  # conditions that stand under the title already
MANY = 7  # arms from which long sections are folded
TONES = {"ship": "better", "do not ship": "worse", "kept": "better", "not kept": "worse"}


def render(
    results: Results,
    mark: str = "",
    drawn: export.Drawn | None = None,
    replies: browser.Replies | None = None,
) -> str:
    """The page.

    Args:
        results: what the study found.
        mark: of a page that is served: it asks ``/state`` whether there is a newer one.
        drawn: its charts, where they are drawn already.
        replies: what it shows of replies, where that is known already.

    Returns:
        HTML that is complete in itself.
    """
    drawn, replies = drawn or export.draw(results), replies or browser.replies_of(results)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            mark=mark,
            looks=pictures.looks(results),
            swatch=swatch,
            stepped=any(cell.step for cell in results.cells),
            drawn=drawn,
            replies=replies,
            megabytes=browser.EMBEDDED // 1_000_000,
            **_words(results),
            **_top(results),
            **_measured(results),
            **_spent(results),
        )
    )
    # The only scripts that may run are those of the template, which are its last; model output
    # could not, escaped or not. The first mention of the mark is the policy's own.
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-2 if mark else -1 :]
    digests = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    return page.replace("SCRIPT-DIGEST", "' '".join(f"sha256-{one}" for one in digests), 1)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("holdfast.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )


def _harmless(value: object) -> object:
    """A text of others without the characters that change how the text around it is read."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, keep="\n\t")
    return value


def _words(results: Results) -> dict[str, object]:
    """How the templates speak: `t` for text, `label` for what only screen readers say."""
    speech = language.of(results)
    return {
        "t": lambda key, **values: Markup(speech.html(key, **values)),
        "label": lambda key, **values: Markup(speech.label(key, **values)),
        "both": lambda said: Markup(language.spans(said)),
        "told": lambda text: Markup(language.spans(language.told(text))),
        "say": speech.say,
        "words_for_script": lambda keys: Markup(
            browser.as_json({key: speech.say(f"replies.{key}", **OPEN) for key in keys})
        ),
        "headline": headline.headline(results),
        "compared": speech.compared,
    }


def _top(results: Results) -> dict[str, object]:
    """The decision and the trade-off."""
    fronts = trade_off.areas(results)
    return {
        "glance": [v for k, v in results.conditions.items() if k.lower() in GLANCE],
        "ship": box(results),
        "families": trade_off.families(results),
        "targets": targets(results),
        "aim": pictures.aim_said(results),
        "fronts": fronts,
        "front_top": 1.02 * max((one.reach for one in fronts), default=0.0) or 1.0,
    }


@dataclass(frozen=True, slots=True)
class Effect:
    """A candidate's change on one task, and the level of its interval if it is not 95 %."""

    change: words.Difference | None
    level: str


@dataclass(frozen=True, slots=True)
class Box:
    """The decision, ready to print."""

    answer: str  # as the table of texts knows it: ship, do_not_ship, ...
    name: str  # of the model that it is about; empty where there is none
    tone: str  # better, worse, or open
    columns: tuple[tuple[str, str], ...]  # the candidates, chosen one first: what and who
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
    named = (("chosen", made.chosen), (decision_words.second(made), made.runner_up))
    there = [(what, one) for what, one in named if one is not None]
    rows = [(task, tuple(_effect(one, task) for _, one in there)) for task in results.tasks]
    return Box(
        answer=made.answer.replace(" ", "_"),
        name=decision_words.candidate(made.chosen) if made.chosen else "",
        tone=TONES.get(made.answer, "open"),
        columns=tuple((what, one.arm) for what, one in there),
        rows=tuple((task, effects) for task, effects in rows if any(e.change for e in effects)),
        second=decision_words.second(made),
        runner_up=decision_words.runner_up(made),
        passed=decision_words.passed(made),
        items=decision_words.items(made),
        intervals=decision_words.intervals(made),
    )


def _effect(choice: Choice, task: TaskInfo) -> Effect:
    change = words.difference(choice.changes.get(task.name), task)
    return Effect(change, decision_words.level(choice, task.name))


def _measured(results: Results) -> dict[str, object]:
    """Every figure and what is drawn from it."""
    units = {task.name: task.unit for task in results.tasks}
    noise = {one.task: words.noise(one, units.get(one.task, "")) for one in results.noise}
    return {
        "finals": figures.finals(results),
        "mean_gain": final_gains(results),
        "scaled": figures.scaled(results),
        "before": {task.name: figures.before(results, task) for task in results.tasks},
        "noise": {task.name: noise.get(task.name) for task in results.tasks},
        "along": {task.name: figures.along(results, task) for task in results.tasks},
        "groups": {task.name: figures.groups(results, task) for task in results.tasks},
        "folded": len(results.arms) > MANY,
        "flipped": tables.flipped(results),
        "significant": words.SIGNIFICANT,
        "probability": words.probability,
        "dose_said": words.dose_said,
        "equal_gain": equal_gain.at_equal_gain(results),
        "equal_loss": equal_gain.at_equal_loss(results),
        "measures": stages.measures(results),
        "measure_names": MEASURES,
        "matrices": stages.matrices(results),
        "stage_columns": stages.columns(results),
        "plain": words.plain,
        "points": words.points,
        "four": tables.four(results),
        "ways": tables.ways(results),
        "spelled": words.spelled,
        "panels_of_judges": tables.panels(results),
    }


def _spent(results: Results) -> dict[str, object]:
    """Budget, cost and what was watched in training."""
    return {
        "budget": budget.sentence(results.arms, results.seeds),
        "costs": tables.costs(results),
        "cost_columns": tables.COSTS,
        "against": budget.reference(results.arms),
        "meter_rows": tables.meters(results),
    }
