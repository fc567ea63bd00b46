"""Text of others does nothing where it is printed, nor where it is written as markdown or HTML."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Set
from dataclasses import replace
from typing import Any

import pytest
from fixtures.imports import Source
from fixtures.report import Page, build
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from holdfast import errors
from holdfast.analysis.results import ReplyShown, Results
from holdfast.cli.front import say
from holdfast.progress import console
from holdfast.report import harmless, markdown, write
from holdfast.report.console import table

HOSTILE = (
    "\x1b[31mred", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x1b\\here", "\x9b2J",
    "over\rwritten",
    "\b\b\b", "\x00", "\x7f", "\u202eevil", "\u2066x", "\u200b", "\ufeff", "\ud800", "\U000e0041",
    "a\u2028# b", "a\x85b", "[red]bold[/red]", "[link=http://evil.example]x[/link]", "[/]",
    "![a](http://evil.example/a.png)", "[a](javascript:alert(1))", "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>", "<http://evil.example>", "http://evil.example", "www.evil.example",
    "a@evil.example", "`code`", "``` ", "a|b", "# head", "- item", "+ item", "1. item", "123) item",
    "=== ", "--- ", "> quote", "[x]: http://evil.example", "[x][x]", "[^1]", "$x$", "*a*", "__a__",
    "~~a~~", "&lt;b&gt;", "\\", "\\[a](b)", "a\nb\n\n# c", "{{ 1 }}", "{% x %}",
    "mailto:a@b.example",
    "&#x6a;avascript:alert(1)", "|" * 40, "[" * 3_000, "x" * 50_000,
)  # fmt: skip
"""A text of each kind that a terminal, a markdown reader or a browser might obey."""
ANY = st.text(st.characters(codec=None)) | st.sampled_from(HOSTILE)
SOME = st.lists(ANY, max_size=4).map("".join)
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
DOORS = {
    ("cli.front", "say"), ("cli.front", "tell"), ("lab.build", "main"),
    ("progress.bars", "say"), ("progress.bars", "console"), ("progress", "_new_cell"),
    ("memory.trace.tracer", "main"), ("models.gguf_cache", "_write"),
    ("report.trackers.follower", "main"), ("report.trackers.follower", "say"),
    ("report.watching", "shown_until_it_ends"), ("runs.executors.worker", "_knock"),
    ("memory.trace.class_counter", "main"), ("cli.verbs", "_line"),
    ("train.launch.follow", "main"), ("train.launch.follow", "follow"),
}  # fmt: skip
"""Where something leaves for a terminal; `tracer` and `class_counter` speak to who started them."""


def obeyed(text: str, keep: str = "\n") -> str:
    """The characters that a terminal would obey."""
    return "".join(
        one for one in text if not (one.isprintable() or one in keep or one in errors.SPACES)
    )


def _prints(call: ast.Call) -> bool:
    what = ast.unparse(call.func)
    return (
        what in ("print", "Console", "rich.print", "display", "typer.echo", "click.echo")
        or what.endswith((".Console", "stdout.write", "stderr.write", ".secho", ".pprint"))
        or (what.endswith(".print") and not what.startswith(("here.", "page.", "self._console.")))
    )


def test_nothing_is_printed_around_the_door() -> None:
    found = set()
    for module in Source().modules.values():
        if not re.search(
            r"(print|Console|echo|display|std(out|err)\.write)\(", module.path.read_text()
        ):
            continue
        for function in ast.walk(module.tree):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Call) and _prints(node):
                        found.add((module.name.removeprefix("holdfast."), function.name))
    assert found - DOORS == set(), "print with cli.front.say or tell, progress.say or console"


@given(SOME)
def test_printable_text_is_obeyed_by_nothing(text: str) -> None:
    assert obeyed(errors.printable(text, keep="\n")) == ""
    errors.printable(text).encode()
    assert errors.printable(errors.printable(text)) == errors.printable(text)


@given(st.dictionaries(SOME, SOME | st.lists(SOME)))
def test_json_is_obeyed_by_nothing_and_says_the_same(value: dict[str, Any]) -> None:
    text = errors.printable_json(value)
    assert obeyed(text, "") == "" and json.loads(text) == value
    text.encode()


def test_a_result_and_an_error_go_through_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    for text in HOSTILE:
        say(False, None, text)
        say(True, {text: text})
        error = errors.DataError(text, where=text, remedy=text)
        assert obeyed(str(error)) == "" and max(map(len, str(error).split("\n"))) < 12_100
        printed = capsys.readouterr().out
        assert obeyed(printed) == "" and "\r" not in printed


@given(SOME)
def test_a_table_shows_text_letter_by_letter(text: str) -> None:
    base = build()
    arms = (*base.arms[:1], replace(base.arms[1], name=text))
    results = replace(
        base, name=text, verdict=text, model=text, arms=arms, warnings=(text,), cells=(), noise=(),
        tasks=(replace(base.tasks[0], name=text, label=text), *base.tasks[1:2]),
    )  # fmt: skip
    page = io.StringIO()
    here = console(file=page, width=100, force_terminal=True, color_system=None)
    here.print(table(results, 100))
    here.print(f"Note: {text}", highlight=False, markup=False)
    assert obeyed(page.getvalue()) == ""


LETTERS = {
    "inline", "text", "text_special", "softbreak", "paragraph_open", "paragraph_close",
    "bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close",
    "blockquote_open", "blockquote_close", "strong_open", "strong_close", "heading_open",
    "heading_close", "table_open", "table_close", "thead_open", "thead_close", "tbody_open",
    "tbody_close", "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close",
}  # fmt: skip
"""What a report is made of by itself."""


def alive(text: str, plain: Set[str] = frozenset(LETTERS)) -> set[str]:
    """What a reader of markdown makes of a text beyond letters: links, images, HTML, code, ..."""
    found = set()
    for token in READER.parse(text):
        found |= {token.type, *(inner.type for inner in token.children or ())}
    return found - plain


@given(SOME)
def test_markdown_shows_text_letter_by_letter(text: str) -> None:
    shown = harmless.clean(text)
    assert "\n" not in shown and obeyed(shown, "") == ""
    plain = " ".join(text.split())
    for place in ("{}", "a {} b", "- {}", "**x{}**", "> {}", "x {}: {}"):
        assert alive(place.replace("{}", shown)) == set(), shown
    made = [one.type for one in READER.parse(shown)]
    assert made in ([], ["paragraph_open", "inline", "paragraph_close"]), "no block of its own"
    (read,) = [one for one in READER.parse("x" + shown) if one.type == "inline"] or [None]
    assert read is not None
    assert "".join(one.content for one in read.children or ()) == "x" + errors.printable(plain)
    cells = READER.parse(f"| a | b |\n| --- | --- |\n| {shown} | {shown} |\n")
    assert sum(one.type == "td_open" for one in cells) == 2


@given(SOME)
def test_code_in_markdown_ends_where_it_should(text: str) -> None:
    (read,) = [one for one in READER.parse(f"x {harmless.code(text)} y") if one.type == "inline"]
    assert [one.type for one in read.children or ()] == ["text", "code_inline", "text"]


def _nasty(bad: str) -> Results:
    """A report in which every text of others is this one."""
    base = build()
    names = {one.name: one.name + bad * (one.name != "base") for one in base.arms}
    return replace(
        base, name=bad, model=bad, verdict=bad, warnings=(bad,), conditions={bad: bad},
        tasks=tuple(
            replace(one, name=one.name + bad, label=bad, how=bad, judge={"judge": bad, bad: bad})
            for one in base.tasks
        ),
        arms=tuple(
            replace(one, name=names[one.name], recipe=bad, notes=(bad,), by_source={bad: 1})
            for one in base.arms
        ),
        cells=tuple(
            replace(one, task=one.task + bad, arm=names[one.arm], groups={bad: one.score})
            for one in base.cells
        ),
        replies=(ReplyShown("base", base.tasks[0].name + bad, bad, bad, bad),),
    )  # fmt: skip


@pytest.mark.parametrize("first", range(8))
def test_a_report_of_hostile_texts_lives_nowhere_in_markdown(first: int) -> None:
    found = markdown.write(_nasty("".join(one[:90] for one in HOSTILE[first::8])))
    assert obeyed(found) == ""
    assert alive(found.replace("<br>", " ")) == set()
    assert found.count("\n#") == markdown.write(_nasty("x")).count("\n#"), "no head of data's own"


def test_a_report_of_hostile_texts_directs_nothing_in_a_browser() -> None:
    """Marks that turn the direction of the text around them, and what terminals obey."""
    page = write.render(_nasty("\u202eevil\x1b[2J\u0007"))
    assert not {"\u202e", "\x1b", "\u0007"} & set(page)


def test_a_report_of_hostile_texts_lives_nowhere_in_a_browser() -> None:
    page = Page(write.render(_nasty("".join(one for one in HOSTILE if "<" in one))))
    assert page.open == []
    scripts = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert scripts == ["application/json", "application/json", None], "its own, and data"
    for tag, attrs in page.tags:
        assert tag != "img" and not any(name.startswith("on") for name in attrs)
        assert (attrs.get("href") or "#").startswith(("#", "data:"))


def test_a_table_of_a_notebook_is_obeyed_by_nothing() -> None:
    found = _nasty("".join(HOSTILE[:-2]))._repr_html_()
    assert obeyed(found) == ""
    assert {tag for tag, _ in Page(found).tags} <= {
        "div", "p", "b", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
