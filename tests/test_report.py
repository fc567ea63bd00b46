"""Does the report say what the results say, whatever is in them?"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_fixture import LABEL, SCRIPT, build

from holdfast.report import charts, html, markdown, write_report
from holdfast.report.results import Cell, Results, Share, from_json, to_json

VOID = {"meta", "link", "br", "input", "circle", "path", "polygon"}


class Page(HTMLParser):
    """Collects tags, attributes and text, and notices tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return html.render(build())


def words(text: str) -> str:
    return " ".join(Page(text).text.split())


def one(cell: Cell, **changes: object) -> Results:
    """The fixture with one of its cells changed."""
    results = build()
    key = (cell.arm, cell.step, cell.task)
    cells = [replace(c, **changes) if (c.arm, c.step, c.task) == key else c for c in results.cells]
    return replace(results, cells=tuple(cells))


def cell_text(results: Results, arm: str, task: str) -> str:
    """The HTML of one cell of the table at the final checkpoint."""
    text = html.render(results)
    row = text.split('<table class="final"')[1].split("</table>")[0].split("<tr ")[2:]
    names = [a.name for a in results.arms]
    return row[names.index(arm)].split("<td ")[1 + [t.name for t in results.tasks].index(task)]


def test_write_report_writes_three_files_and_nothing_else(tmp_path: Path) -> None:
    path = write_report(build(), tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    found = {file.name for file in path.parent.iterdir()}
    assert found == {"index.html", "report.md", "results.json"}
    assert from_json(json.loads((path.parent / "results.json").read_text())) == build()
    assert path.stat().st_size < 1_000_000


def test_json_round_trip() -> None:
    assert from_json(json.loads(json.dumps(to_json(build())))) == build()


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    results = build()
    broken = replace(results.replies[0], reply="\ud83d broken")
    path = write_report(replace(results, replies=(broken,)), tmp_path)
    again = from_json(json.loads((path.parent / "results.json").read_text()))
    assert again.replies[0].reply == broken.reply


def test_every_tag_is_closed_and_ids_are_unique(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_sections_stand_in_the_order_of_reading(page: str) -> None:
    order = ["trade-off", "final", "course", "groups", "training", "measured", "replies"]
    assert re.findall(r'<section id="([\w-]+)"', page) == order
    assert page.index(build().verdict) < page.index('id="trade-off"')
    assert build().warnings[0] in words(page)


def test_model_output_is_escaped_and_folded_away(page: str) -> None:
    assert SCRIPT not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2  # the prompt and one reply
    assert len([tag for tag, _ in Page(page).tags if tag == "script"]) == 1
    folded = page.split('id="replies"')[1]
    assert folded.index("<details>") < folded.index("alert(1)")
    assert "抱歉" in page and "🔧" in page


def test_names_from_the_user_are_escaped_everywhere() -> None:
    results, bad = build(), '"><img src=x onerror=alert(1)>'
    tasks = tuple(replace(t, name=t.name + bad, label=t.label + bad) for t in results.tasks)
    arms = tuple(replace(a, name=a.name + bad * (a.name != "base")) for a in results.arms)
    cells = tuple(
        replace(c, task=c.task + bad, arm=c.arm + bad * (c.arm != "base")) for c in results.cells
    )
    nasty = replace(results, name=bad, verdict=bad, tasks=tasks, arms=arms, cells=cells)
    assert "img" not in {tag for tag, _ in Page(html.render(nasty)).tags}
    assert "<img" not in markdown.write(nasty)


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run(page: str) -> None:
    assert "://" not in page
    for tag, attrs in Page(page).tags:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attrs, (tag, name)
        assert (attrs.get("href") or "#").startswith(("#", "data:"))
        assert not [name for name in attrs if name.startswith("on")]
    assert "@import" not in page and "url(" not in page and "@font-face" not in page
    policy = page.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.startswith("default-src 'none'")
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


def test_an_inverted_task_is_shown_turned_with_its_interval_and_sign() -> None:
    final = build().cell("sft", 160, "hazards")
    score, diff = Share(0.25, 0.20, 0.32, 240), Share(-0.7, -0.75, -0.64, 240)
    text = words("<td " + cell_text(one(final, score=score, diff=diff), "sft", "hazards"))
    assert "75.0 % [68.0, 80.0]" in text
    assert "▲ +70.0 pts worse [+64.0, +75.0]" in text
    better = replace(diff, mean=0.01, low=0.004, high=0.02)
    text = words("<td " + cell_text(one(final, diff=better), "sft", "hazards"))
    assert "▼ \u22121.0 pts better [\u22122.0, \u22120.4]" in text


def test_the_label_is_said_literally(page: str) -> None:
    for task in build().tasks:
        assert words(page).count(task.label) >= 4
    assert f"{LABEL}; lower is better" in words(page)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.02, "better"),
        (-0.02, -0.0001, "worse"),
        (0.0, 0.02, "no clear change"),
        (-0.02, 0.0, "no clear change"),
        (-0.01, 0.02, "no clear change"),
    ],
)
def test_a_difference_is_coloured_only_if_its_interval_excludes_0(
    low: float, high: float, verdict: str
) -> None:
    final = build().cell("self", 160, "everyday-help")
    diff = Share((low + high) / 2, low, high, 200)
    text = cell_text(one(final, diff=diff), "self", "everyday-help")
    assert verdict in text
    assert ('class="delta better"' in text) == (verdict == "better")
    assert ('class="delta worse"' in text) == (verdict == "worse")


def test_unscored_items_stand_beside_the_figure(page: str) -> None:
    assert "9 of 400 unscored" in cell_text(build(), "sft", "word-problems")
    assert "unscored" not in cell_text(build(), "replay", "word-problems")
    assert "9 of 400 unscored" in markdown.write(build())


def test_figures_are_written_with_sensible_precision() -> None:
    assert markdown.percent(0.81666) == "81.7\u202f%"
    assert markdown.percent(None) == "—"
    assert [markdown.signed(v) for v in (0.1234, -0.0004, 0.0)] == ["+12.3", "\u22120.0", "0.0"]
    assert [markdown.duration(s) for s in (8.4, 164.9, 4000)] == ["8 s", "2 min 45 s", "1 h 06 min"]


def test_the_budget_is_said_in_a_sentence() -> None:
    results = build()
    assert markdown.budget(results).startswith("Equal budget")
    long = [replace(a, supervised_tokens=a.supervised_tokens * 2) for a in results.arms[2:]]
    said = markdown.budget(replace(results, arms=(*results.arms[:2], *long)))
    assert said.startswith("The budgets differ") and "1.99 times" in said
    assert "0.99\u00d7 sft" in words(html.render(results))


def test_markdown_tables_are_well_formed() -> None:
    results = build()
    arms = (replace(results.arms[0], recipe="a | b\nc"), *results.arms[1:])
    text = markdown.write(replace(results, arms=arms))
    tables = [t for t in re.split(r"\n\n+", text) if t.startswith("|")]
    assert len(tables) == 8  # finals, 3 along the way, groups, training, measured, conditions
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().split("\n")}
        assert len(widths) == 1, table
        assert set(table.split("\n")[1]) <= set("|- ")
    assert results.verdict in text and LABEL in text
    assert "▲ +70.2 pts [" in text


def only(results: Results, *names: str) -> Results:
    arms = tuple(arm for arm in results.arms if arm.name in names)
    return replace(results, arms=arms, cells=tuple(c for c in results.cells if c.arm in names))


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(only(build(), "base"), id="base alone"),
        pytest.param(only(build(), "base", "sft"), id="one arm"),
        pytest.param(only(build(), "sft"), id="no base"),
        pytest.param(replace(build(), replies=(), warnings=(), conditions={}), id="no extras"),
        pytest.param(
            replace(build(), cells=tuple(c for c in build().cells if c.step in (0, 160))),
            id="one checkpoint",
        ),
        pytest.param(
            replace(build(), cells=tuple(c for c in build().cells if c.task != "hazards")),
            id="a task that was not measured",
        ),
        pytest.param(replace(build(), cells=()), id="nothing measured"),
        pytest.param(replace(build(), tasks=build().tasks[:1]), id="no retained task"),
        pytest.param(replace(build(), tasks=build().tasks[:2]), id="one retained task"),
        pytest.param(
            replace(build(), arms=tuple(replace(a, loss=(), notes=()) for a in build().arms)),
            id="no loss",
        ),
    ],
)
def test_incomplete_studies_still_render(results: Results) -> None:
    parsed = Page(html.render(results))
    assert parsed.open == []
    assert "nan" not in " ".join(str(a) for _, attrs in parsed.tags for a in attrs.values())
    assert ("Replies" in parsed.text) == bool(results.replies)
    assert markdown.write(results).startswith("# gsm8k-vs-safety")


def test_a_share_that_could_not_be_scored_is_not_a_zero() -> None:
    nothing = Share(None, None, None, 0, 240)
    final = build().cell("sft", 160, "hazards")
    results = one(final, score=nothing, diff=nothing, groups={"fire craft": nothing})
    text = words("<td " + cell_text(results, "sft", "hazards"))
    assert "— nothing could be scored 240 of 240 unscored" in text
    assert "%" not in text.split("lower is better")[-1]
    assert "—" in markdown.write(results)


def test_seven_arms_and_more_stay_apart() -> None:
    looks = {(charts.tone(n), charts.swatch(n).split("aria-hidden")[1]) for n in range(-1, 40)}
    assert len(looks) == 41


def test_names_are_moved_apart_and_stay_inside() -> None:
    placed = charts.spread([50, 51, 52, 99], 14, 10, 100)
    assert all(b - a >= 13.999 for a, b in pairwise(placed))
    assert placed[-1] <= 100


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0], [0.0], [0.301, 0.302], [0.0, 1.0]])
def test_share_axes_hold_their_values_and_tick_within_0_and_1(values: list[float]) -> None:
    axis = charts.fit_axis(values, 0, 100, "share", 5)
    assert all(0 <= axis.at(value) <= 100 for value in values)
    assert axis.ticks and all(-1e-9 <= tick <= 1 + 1e-9 for tick, _ in axis.ticks)
    assert len({text for _, text in axis.ticks}) == len(axis.ticks)


def test_step_axes_tick_on_whole_steps() -> None:
    for steps in ([0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 160.0]):
        axis = charts.fit_axis(steps, 0, 100, "step", 4)
        assert axis.ticks and all(text.isdigit() for _, text in axis.ticks)
