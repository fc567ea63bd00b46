"""The page speaks English and Chinese, and no string of it is missing in either."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources
from string import Formatter

import pytest
from fixtures.report import Page, build

from holdfast.report import language
from holdfast.report import write as html
from holdfast.report.language import Said, Speech, labelled, spans

TEMPLATES = {
    file.name: file.read_text(encoding="utf-8")
    for file in (resources.files("holdfast.report") / "templates").iterdir()
    if file.name.endswith(".html.j2")
}
SOURCE = "".join(
    file.read_text(encoding="utf-8")
    for folder in ("", "html", "charts", "templates")
    for file in (resources.files("holdfast.report") / folder).iterdir()
    if file.name.endswith((".py", ".j2"))
)
SYMBOLS = {"KL", "FLOPs", "n", "ρ", "α", "κ", "λ", "English", "中文"}
"""What is written alike in both languages."""
VALUES = {"better", "worse", "no clear change", "target", "retained", "chosen", "runner-up",
          "nearest miss"}  # fmt: skip
"""Words that the results hold."""
MADE = re.compile(r"^(story|sign|dose|outcome|cost|count|meters|replies|second|stages)\.")
"""Keys that are put together where they are used."""


@pytest.mark.parametrize("key", list(language.table()))
def test_every_text_is_there_in_both_languages(key: str) -> None:
    text = language.table()[key]
    places = [sorted({name for _, name, _, _ in Formatter().parse(one) if name}) for one in text]
    assert places[0] == places[1], "the same places are filled"
    assert text.zh.strip(), key
    if text.en != text.zh:
        assert re.search(r"[\u3001-\u9fff\uff01-\uff5e]", text.zh), "it is Chinese"
    assert not re.search(r"[\u3001-\u9fff\uff01-\uff5e]", text.en), "it is English"


@pytest.mark.parametrize("key", list(language.table()))
def test_every_text_is_used(key: str) -> None:
    stem = key.removesuffix(".compared")
    assert stem in language.table(), "what stands in for another needs that other"
    assert f'"{stem}"' in SOURCE or MADE.match(stem) or stem in VALUES, key


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_no_template_has_words_of_its_own(name: str) -> None:
    text = re.sub(r"\{[#%].*?[#%]\}", " ", TEMPLATES[name], flags=re.DOTALL)
    text = re.sub(r"\{\{.*?\}\}", " ", text, flags=re.DOTALL)
    for attribute in re.findall(r'(?:aria-label|title|placeholder|alt)="([^"]*)"', text):
        assert not re.search(r"[A-Za-z]", attribute), attribute
    words = re.findall(r"[^\W\d_]+", re.sub(r"<[^>]*>", " ", text))
    assert set(words) <= SYMBOLS, words


def test_the_chinese_page_has_no_english_of_the_pages_own() -> None:
    """Every text between tags is data of the study, a symbol, or there in Chinese."""
    marked = replace(build(), warnings=(), conditions={}, replies=())
    page = html.render(marked).split("<body>")[1].split("<script>")[0]
    page = re.sub(r"<title>[^<]*</title>", "", page)  # of points, where there is no script
    chinese, english = (Page(page, one) for one in ("zh", "en"))
    assert "发布哪个检查点" in chinese.text and "Which checkpoint" not in chinese.text
    assert "Which checkpoint" in english.text and "发布" not in english.text
    own = {text.en for text in language.table().values() if text.en != text.zh and text.en}
    for sentence in own:
        plain = re.sub(r"\{\w+\}", "", sentence).strip()
        if len(plain) > 12 and plain == sentence:
            assert sentence not in chinese.text, sentence


def test_names_and_markup_in_a_text_are_escaped() -> None:
    bad = '"><img onerror=x>\u202e'
    for found in (Speech().html("at", arm=bad, when="x"), Speech().label("at", arm=bad, when="x")):
        assert "<img" not in found and "\u202e" not in found and '"><' not in found
    assert spans(Said("a `b`", "a `b`")) == "a <code>b</code>"
    assert labelled(Said("a", "a")) == 'aria-label="a"', "nothing to translate"


def test_a_comparison_has_words_of_its_own() -> None:
    assert Speech(compared=True).say("arm").en == "Model"
    assert Speech().say("arm").en == "Arm"
    assert Speech(compared=True).say("note").en == "Note", "and else the usual ones"
    with pytest.raises(KeyError):
        Speech().say("no such key")
    with pytest.raises(KeyError):
        Speech().say("step")


def test_a_language_is_chosen_without_a_script() -> None:
    page = html.render(build())
    assert "#to-zh:checked" in page and 'id="to-zh"' in page
    assert ".s[lang=zh]{display:none}" in page, "English where a browser knows no :has"
