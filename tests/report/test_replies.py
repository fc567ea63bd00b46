"""The replies of a report: flips first, in parts, and harmless whatever a model wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from fixtures.report import build

from holdfast.analysis.collect import replies_shown
from holdfast.analysis.results import ReplyShown, from_json, to_json
from holdfast.report.html.browser import EMBEDDED, LONGEST, PART, Replies, replies_of
from holdfast.report.run import render, results_with_replies
from holdfast.report.serving import Served
from holdfast.report.write import write_report
from holdfast.runs.plan import read_plan


def many(count: int, length: int = 10, arms: tuple[str, ...] = ("base", "sft")) -> Replies:
    """That many items; every tenth was lost by the second arm."""
    shown = [
        ReplyShown(
            arm, "hazards", f"prompt {item}", f"{arm} " + "x" * length,
            "unsafe" if item % 10 == 9 and arm != "base" else "safe", str(item), ("fire",),
            "lost" if item % 10 == 9 and arm != "base" else "",
        )
        for arm in arms
        for item in range(count)
    ]  # fmt: skip
    found = replies_of(replace(build(), replies=tuple(shown)))
    assert found is not None
    return found


def test_what_changed_sides_comes_first_and_every_item_once() -> None:
    found = many(100)
    index = json.loads(found.index)
    assert found.whole and found.items == len(index["items"]) == 100
    lost = [item[3][1] == 1 for item in index["items"]]
    assert lost == [True] * 10 + [False] * 90
    texts = [one for part in index["parts"] for one in part]
    assert texts[0][0] == ["prompt 9", 0] and len({one[0][0] for one in texts}) == 100
    assert index["groups"] == ["fire"] and index["outcomes"] == ["safe", "unsafe"]


def test_fifty_thousand_replies_are_an_index_and_parts() -> None:
    found = many(5_000, 400, tuple(f"arm{number}" for number in range(10)))
    index = json.loads(found.index)
    assert not found.whole and len(found.parts) == 125 and len(index["items"]) == 5_000
    assert 0 < found.inside < 5_000 and found.inside == PART * len(index["parts"])
    assert len(found.index) < EMBEDDED + 1_000_000
    assert [json.loads(one) for one in found.parts[: len(index["parts"])]] == index["parts"]
    assert found.file("replies/124.json") == found.parts[124]
    for path in ("replies/125.json", "replies/-1.json", "replies/../1.json", "1.json", ""):
        assert found.file(path) is None


def test_a_long_or_hostile_reply_is_harmless() -> None:
    nasty = "</script><!--<script>\u2028\x1b[2J\u202e\ud83d\x00" + "y" * 10_000_000
    shown = (ReplyShown("base", "hazards", nasty, nasty, "un\x1bsafe"),)
    found = replies_of(replace(build(), replies=shown))
    assert found is not None and len(found.index) < 5 * LONGEST
    assert not {"<", "\u2028", "\x1b", "\u202e", "\x00", "\ud83d"} & set(found.index)
    text, more = json.loads(found.index)["parts"][0][0][0]
    assert more == len(nasty) - LONGEST and "</script>" in text


def test_parts_lie_beside_the_page_only_where_it_has_no_room(tmp_path: Path) -> None:
    long = "z" * 15_000
    shown = tuple(
        ReplyShown("base", "hazards", f"p{n}", long, "safe", str(n)) for n in range(5 * PART)
    )
    page = write_report(replace(build(), replies=shown), tmp_path)
    assert sorted(one.name for one in (tmp_path / "replies").iterdir()) == [
        f"{n}.json" for n in range(5)
    ]
    text = page.read_text()
    assert "connect-src 'self'" in text and "120 of 200 items are inside this file" in text
    kept = tmp_path / "replies" / "mine.json"
    kept.write_text("{}")
    page = write_report(replace(build(), replies=()), tmp_path)
    assert [one.name for one in (tmp_path / "replies").iterdir()] == ["mine.json"]
    assert "connect-src" not in page.read_text() and 'id="replies"' not in page.read_text()


def test_replies_of_a_run_know_their_item_and_what_became_of_it(small_run: Path) -> None:
    plan = read_plan(small_run)
    shown = replies_shown(plan, 3)
    arms = ["base", *plan.arms]
    assert list(dict.fromkeys(one.arm for one in shown)) == arms
    for task in plan.tasks:
        items = {arm: [o.item for o in shown if (o.arm, o.task) == (arm, task)] for arm in arms}
        assert all(mine == items["base"] and len(set(mine)) == 3 for mine in items.values())
    assert not any(one.change for one in shown if one.arm == "base")
    every = replies_shown(plan, 10_000)
    for task in plan.tasks:
        flips = [
            any(o.change for o in every if (o.task, o.item) == (task, item))
            for item in dict.fromkeys(o.item for o in every if o.task == task)
        ]
        assert flips == sorted(flips, reverse=True), "what changed sides comes first"
    results = results_with_replies(small_run, 3)
    assert from_json(json.loads(json.dumps(to_json(results)))) == results


def test_a_served_page_gives_its_parts_and_nothing_else(small_run: Path) -> None:
    served = Served(small_run, 2, now=lambda: 0.0)
    assert json.loads(served.part("replies/0.json") or "")
    assert served.part("replies/1.json") is None and served.part("plan.json") is None
    assert Served(small_run, now=lambda: 0.0).part("replies/0.json") is None, "not asked for"


def test_a_report_written_again_is_a_finished_stage(small_run: Path, tmp_path: Path) -> None:
    import shutil

    run = Path(shutil.copytree(small_run, tmp_path / "run"))
    _, page = render(run, 2, csv=True, paper=True)
    beside = {one.name for one in page.parent.iterdir()}
    assert {"figures.csv", "paper", "charts", "record.json"} <= beside
    assert any(
        "replies" in one.prompt or one.prompt for one in results_with_replies(run, 1).replies
    )
