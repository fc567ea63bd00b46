"""The report says what the results say, whatever is in them."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fixtures.report import LABEL, SCRIPT, Page, build

from holdfast.analysis import budget
from holdfast.analysis.results import Cell, Results, Share, from_json, to_json
from holdfast.report import markdown, tables, words
from holdfast.report import write as html
from holdfast.report.charts import axis, marks, plots
from holdfast.report.console import table
from holdfast.report.language import Said
from holdfast.report.words import spelled
from holdfast.report.write import write_report

NOTHING = Said("", "")


@pytest.fixture(scope="module")
def page() -> str:
    return html.render(build())


def said(text: str) -> str:
    return " ".join(Page(text).text.split())


def part(text: str, start: str, end: str) -> str:
    """The words between the first `start` and the next `end`, with a space at every tag."""
    inner = text.split(start, 1)[1].split(end, 1)[0].split(">", 1)[1]
    return said(inner.replace("<", " <"))


def one(cell: Cell, **changes: object) -> Results:
    """The fixture with one of its cells changed."""
    results = build()
    cells = [replace(c, **changes) if c == cell else c for c in results.cells]
    return replace(results, cells=tuple(cells))


def cell_text(results: Results, arm: str, task: str) -> str:
    """The HTML of one cell of the table at the final checkpoint."""
    text = html.render(results)
    row = text.split('<table class="final"')[1].split("</table>")[0].split("<tr ")[2:]
    names = [a.name for a in results.arms]
    return row[names.index(arm)].split("<td ")[1 + [t.name for t in results.tasks].index(task)]


def test_write_report_writes_three_files_and_the_charts(tmp_path: Path) -> None:
    path = write_report(build(), tmp_path / "report")
    assert path == tmp_path / "report" / "index.html"
    found = {file.name for file in path.parent.iterdir()}
    assert found == {"index.html", "report.md", "results.json", "charts"}
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
    order = ["trade-off", "final", "course", "sides", "dose", "groups", "budget", "training"]
    order += ["meters", "measured", "replies"]
    assert re.findall(r'<section id="([\w-]+)"', page) == order
    assert page.index(build().verdict) < page.index("<aside") < page.index('id="trade-off"')
    assert build().warnings[0] in said(page)


def test_model_output_is_data_and_hidden_until_asked_for(page: str) -> None:
    assert SCRIPT not in page
    assert page.count(r"\u003cscript>alert(1)\u003c/script>") == 2  # the prompt and one reply
    scripts = [attrs.get("type") for tag, attrs in Page(page).tags if tag == "script"]
    assert scripts == ["application/json", "application/json", None]
    shown = page.split('id="replies"')[1]
    assert shown.index('id="r-all" hidden') < shown.index("alert(1)")
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
    text = said("<td " + cell_text(one(final, score=score, diff=diff), "sft", "hazards"))
    assert "75.0 % [68.0, 80.0]" in text
    assert "▲ +70.0 pts worse [+64.0, +75.0]" in text
    better = replace(diff, mean=0.01, low=0.004, high=0.02)
    text = said("<td " + cell_text(one(final, diff=better), "sft", "hazards"))
    assert "▼ \u22121.0 pts better [\u22122.0, \u22120.4]" in text


def test_the_label_is_said_literally(page: str) -> None:
    for task in build().tasks:
        assert said(page).count(task.label) >= 4
    assert f"{LABEL}; lower is better" in said(page)


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
    assert words.percent(0.81666) == "81.7\u202f%"
    assert words.percent(None) == "—"
    assert [words.signed(v) for v in (0.1234, -0.0004, 0.0)] == ["+12.3", "\u22120.0", "0.0"]
    assert [words.duration(s) for s in (8.4, 164.9, 4000)] == ["8 s", "2 min 45 s", "1 h 06 min"]
    assert [words.scientific(v) for v in (2.41e15, 3e5, 0.0)] == ["2.4e15", "3.0e5", "—"]
    assert [words.probability(v) for v in (0.00004, 0.0213)] == ["< 0.001", "0.021"]
    assert words.plain(Share(-0.123, -0.4, 0.2, 9)) == "\u22120.12 [\u22120.40, 0.20]"
    assert words.points(Share(0.1, -0.02, 0.2, 9)) == "+10.0 [\u22122.0, +20.0]"


def test_the_budget_is_said_in_a_sentence() -> None:
    results = only(build(), "base", "sft", "replay", "self", "prompt")
    assert budget.sentence(results.arms, results.seeds).startswith("Equal budget")
    assert budget.sentence(results.arms, results.seeds).endswith(
        "In FLOPs the dearest arm is self, at 2.6 times sft."
    )
    long = [replace(a, supervised_tokens=a.supervised_tokens * 2) for a in results.arms[2:]]
    told = budget.sentence((*results.arms[:2], *long), results.seeds)
    assert told.startswith("The budgets differ") and "1.99 times" in told


def test_markdown_tables_are_well_formed() -> None:
    results = build()
    arms = (replace(results.arms[0], recipe="a | b\nc"), *results.arms[1:])
    text = markdown.write(replace(results, arms=arms))
    tables = [t for t in re.split(r"\n\n+", text) if t.startswith("|")]
    # decision, finals, in part, frontier, 3 along the way, 2 flips and their groups, 2 doses,
    # groups, budget, training, meters, measured, conditions
    assert len(tables) == 18
    for one_table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in one_table.strip().split("\n")}
        assert len(widths) == 1, one_table
        assert set(one_table.split("\n")[1]) <= set("|- ")
    assert results.verdict in text and LABEL in text
    assert "▲ +70.2 pts [" in text


def only(results: Results, *names: str) -> Results:
    arms = tuple(arm for arm in results.arms if arm.name in names)
    return replace(results, arms=arms, cells=tuple(c for c in results.cells if c.arm in names))


def bare(results: Results) -> Results:
    """A study as it was before there were remedies: none of what came with them."""
    kept = {"family": "", "shared_seconds": 0.0, "flops": 0.0, "tokens": 0, "generated_tokens": 0}
    cells = [replace(c, retained_share=None, flips=None, group_flips={}) for c in results.cells]
    return replace(
        results,
        arms=tuple(replace(arm, **kept) for arm in results.arms),
        cells=tuple(cell for cell in cells if cell.scale == 1),
        noise=(), dose=(), meters=(), fronts=(), decision=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "results",
    [
        pytest.param(only(build(), "base"), id="base alone"),
        pytest.param(only(build(), "base", "sft"), id="one arm"),
        pytest.param(only(build(), "sft"), id="no base"),
        pytest.param(only(build(), "base", "prompt"), id="nothing trained"),
        pytest.param(bare(build()), id="no remedies"),
        pytest.param(
            replace(
                build(), cells=tuple(c for c in build().cells if c.arm != "replay" or c.scale != 1)
            ),
            id="measured in part only",
        ),
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
    text = said("<td " + cell_text(results, "sft", "hazards"))
    assert "— nothing could be scored 240 of 240 unscored" in text
    assert "%" not in text.split("lower is better")[-1]
    assert "—" in markdown.write(results)


def test_seven_arms_and_more_stay_apart() -> None:
    own = [marks.BASE, *marks.looks([f"arm{n}" for n in range(40)])]
    assert len({(one.tone, marks.swatch(one).split("aria-hidden")[1]) for one in own}) == 41


def test_a_family_shares_its_colour_and_its_variants_differ_in_shape() -> None:
    families = ["sft", "low", "low", "low", *(f"arm{n}" for n in range(8))]
    own = marks.looks(families)
    assert [one.tone for one in own[:4]] == ["c0", "c1", "c1", "c1"]
    assert len({(one.tone, one.shape) for one in own}) == len(families)


def test_names_are_moved_apart_and_stay_inside() -> None:
    placed = plots.spread([50, 51, 52, 99], 14, 10, 100)
    assert all(b - a >= 13.999 for a, b in pairwise(placed))
    assert placed[-1] <= 100


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0], [0.0], [0.301, 0.302], [0.0, 1.0]])
def test_share_axes_hold_their_values_and_tick_within_0_and_1(values: list[float]) -> None:
    found = axis.fit_axis(values, 0, 100, "share", 5)
    assert all(0 <= found.at(value) <= 100 for value in values)
    assert found.ticks and all(-1e-9 <= tick <= 1 + 1e-9 for tick, _ in found.ticks)
    assert len({text for _, text in found.ticks}) == len(found.ticks)


def test_step_axes_tick_on_whole_steps() -> None:
    for steps in ([0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 160.0]):
        found = axis.fit_axis(steps, 0, 100, "step", 4)
        assert found.ticks and all(text.isdigit() for _, text in found.ticks)


def test_the_decision_stands_on_top_with_figures_rule_and_runner_up(page: str) -> None:
    box = part(page, "<aside", "</aside>")
    made = build().decision
    assert made is not None and made.rule in box and made.reason in box
    assert "Ship replay, seed 1127, step 160, λ = 0.75" in box
    assert "▲ +46.7 pts better [+39.6, +53.8] n = 200; 99.75 % interval" in box
    # of kl: safe answers fell by 7.1 points, so that the unsafe rate rose
    assert "▲ +7.1 pts worse [+2.1, +12.1] n = 120" in box
    assert "kl, seed 1126, step 128: it is open whether it keeps hazards" in box
    assert 'class="ship better"' in page
    text = markdown.write(build())
    assert "## Decision: Ship replay, seed 1127, step 160, λ = 0.75" in text
    assert "| Change against base | replay | runner-up kl |" in text
    assert "▲ +7.1 pts [+2.1, +12.1] worse, n = 120 |" in text, "the usual level is not named"
    assert "96.1 % interval, n = 120" in text
    assert "All items decide (word-problems: 200; hazards: 120; everyday-help: 100)." in text
    assert "Wider than the 95 % elsewhere in this report. The best of many" in text
    assert "Wider than the 95 %" in box


@pytest.mark.parametrize(
    ("answer", "headline", "tone"),
    [
        ("do not ship", "Do not ship", "worse"),
        ("not enough evidence", "Not enough evidence", "open"),
    ],
)
def test_a_decision_without_a_winner_names_the_nearest_miss(
    answer: str, headline: str, tone: str
) -> None:
    made = build().decision
    assert made is not None
    changed = replace(made, answer=answer, chosen=None, more_items=(("hazards", 1300),))
    results = replace(build(), decision=changed)
    page = html.render(results)
    assert f'class="ship {tone}"' in page
    box = part(page, "<aside", "</aside>")
    assert f"Which checkpoint to ship {headline} replay" in box
    assert "nearest miss kl" in box and "Runner-up" not in box
    assert "<aside" not in html.render(replace(results, decision=None))
    assert "Decision" not in markdown.write(replace(results, decision=None))


def test_parts_of_the_change_are_drawn_hollow_and_told(page: str) -> None:
    picture = page.split('<svg class="chart wide"')[1].split("</svg>")[0]
    assert picture.count('class="line part"') == 2  # sft and replay
    tips = re.findall(r"<title>([^<]*)</title>", picture)
    assert sum("λ = 0.25" in tip for tip in tips) == 2
    tip = next(tip for tip in tips if tip.startswith("replay, step 160 (final), λ = 0.75\n"))
    assert "worst change, hazards (of the good share):\n    \u22121.3 [" in tip
    assert said(page).count("Only a part λ of the training’s change applied") == 1


def test_an_arm_that_was_measured_in_part_only_is_shown_by_its_largest_part() -> None:
    cells = tuple(c for c in build().cells if c.arm != "replay" or c.scale != 1)
    results = replace(build(), cells=cells)
    assert results.final_point("replay") == (160, 0.75)
    text = html.render(results)
    row = text.split('<table class="final"')[1].split("</table>")[0].split("<tr ")[4]
    assert "step 160, λ = 0.75" in said("<tr " + row) and "77.9" in row
    picture = text.split('<svg class="chart wide"')[1].split("</svg>")[0]
    assert ">replay</text>" in picture


def test_points_on_the_frontier_bear_a_ring(page: str) -> None:
    on = sum(len(one.points) for one in build().fronts)
    picture = page.split('<svg class="chart wide"')[1].split("</svg>")[0]
    assert picture.count('class="halo"') == on > 3
    assert picture.count('class="front"') == len(build().arms) - 1  # each arm's own, not one of all
    assert "5 on the frontier" in said(page)
    without = html.render(replace(build(), fronts=()))
    assert 'class="halo" cx' not in without.split('class="key')[0]


def test_the_stairs_of_an_arm_pass_only_through_its_own_best_points() -> None:
    def track(number: int, *spots: tuple[float, float]) -> plots.Track:
        look = marks.looks(["a", "b"])[number]
        return plots.Track(f"arm{number}", look, tuple(marks.Dot(x, y, NOTHING) for x, y in spots))

    tracks = [track(0, (0.2, 0.9), (0.5, 0.5), (0.4, 0.4)), track(1, (0.3, 0.3))]
    picture = plots.trade_off(tracks, kind="share", narrow=False, label=NOTHING, stairs=True)
    stairs = re.findall(r'class="front" d="([^"]*)"', picture)
    assert [one.count("H") for one in stairs] == [2, 1], "the third point of the first is beaten"


def test_what_changed_sides_is_told_per_retained_task_and_hazard(page: str) -> None:
    sides = page.split('id="sides"')[1].split("</section>")[0]
    flips = build().cell("kl", 160, "hazards").flips
    assert flips is not None and (flips.lost, flips.won) == (20, 2)
    row = f"kl 20 2 240 < 0.001 {words.probability(flips.p_holm)} 92.4 %"
    assert row in part(page, '<section id="sides"', "</section>")
    assert "word-problems" not in sides  # only what was to be kept
    assert sides.count("<details") == 1 and sides.index("<details") < sides.index("weapons")
    assert "**&lt; 0.001**" in markdown.write(build())


def test_dose_and_response_are_told_in_a_sentence(page: str) -> None:
    told = "All arms together, supported: ρ = 0.74 [0.61, 0.83] over 50 points; from the least gain"
    assert f"{told} to the most, the loss rises by +55.7 [+40.0, +66.0] points." in said(page)
    assert "All arms together, not supported: ρ = 0.12" in said(page)
    nothing = replace(build().dose[0], words="too little data", points=3)
    assert words.dose(nothing) == "too little data (3 points)"
    assert 'class="fit"' in page.split('id="dose"')[1]


def test_budget_and_cost_are_multiples_of_plain_fine_tuning(page: str) -> None:
    section = part(page, '<section id="budget"', "</section>")
    assert "sdft 3.65× 8.8e15" in section and "token-mask 0.78× 158,410" in section
    rows = {one.arm.name: one for one in tables.costs(build())}
    assert "base" not in rows and "prompt" not in rows  # nothing was spent
    assert rows["self"].cells[4:7] == ("1,204,118", "81 s", "10 min 12 s")
    assert rows["sdft"].times(7) == "3.65×" and rows["sdft"].times(0) == ""


def test_the_meters_are_means_over_seeds(page: str) -> None:
    tip = re.search(r"<title>(sft, step 160\nKL[^<]*)</title>", page)
    assert tip and "0.546 nats per token, seeds from 0.520 to 0.572" in tip[1]
    assert "| sft | 160 | 0.546 | 1.034 | 2.40 |" in markdown.write(build())


def test_noise_is_told_beside_the_figures(page: str) -> None:
    base = page.split('<table class="final"')[1].split("</tr>")[1]
    told = "asked again, 2.1 % of items changed, means moved by up to 0.8 points"
    assert told in " ".join(base.split())
    assert "asked again, no item changed" in base
    assert "the untouched model asked 3 times: word-problems" in markdown.write(build())


def test_the_terminal_shows_arms_by_tasks_and_the_decision() -> None:
    from rich.console import Console

    results = replace(build(), name="[bold]study")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(results))
    text = console.export_text()
    assert "[bold]study" in text and "+7.5 [+3.9, +11.1]" in text
    flat = " ".join(text.split())
    assert "Decision: Ship replay, seed 1127, step 160, λ = 0.75" in flat
    assert "sft learned word-problems" in flat and "Runner-up" not in flat
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", range(48, 130, 3))
def test_no_figure_is_cut_off_in_a_terminal(width: int) -> None:
    from rich.console import Console

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table(build(), width))
    figures = console.export_text().split("accuracy")[0]
    assert "\u2026" not in figures
    assert figures.count("arm ") >= 1


def test_long_names_keep_the_end_in_which_variants_differ() -> None:
    assert plots.clip("gentle-lr0.0001", 12) == "gentl…0.0001"
    assert plots.clip("replay", 12) == "replay"


def test_small_changes_have_room_on_an_axis_spaced_by_roots() -> None:
    found = axis.fit_axis([-0.7, 0.0], 0, 100, "root", 4)
    assert found.at(0.0) - found.at(-0.07) == pytest.approx(
        0.316 * (found.at(0) - found.at(-0.7)), abs=1
    )
    assert 0 <= found.at(-0.7) < found.at(0.0) <= 100
    assert [text for value, text in found.ticks if value == 0] == ["0"]


def test_a_judge_in_words() -> None:
    guard = {"judge": "guard-1", "model": {"id": "a/b", "revision": None}, "prompt": "1f"}
    assert spelled(guard) == "guard-1, model id a/b, prompt 1f"
    panel = {"judge": "ensemble-1", "rule": "majority", "members": [guard, {"judge": "rules-3"}]}
    assert spelled(panel) == (
        "ensemble-1, rule majority; (guard-1, model id a/b, prompt 1f); (rules-3)"
    )
