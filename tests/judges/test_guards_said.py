"""Is what guards print read as a careful reader would, and nothing else taken for a label?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures.paths import TESTS
from fixtures.timing import worked
from hypothesis import given
from hypothesis import strategies as st

from holdfast.judges import (
    LABELS,
    harmbench,
    llamaguard,
    qwen3guard,
    strongreject,
    wildguard,
    yes_no,
)

PARSERS: dict[str, Any] = {
    one.__name__.rpartition(".")[2]: one.parse
    for one in (harmbench, llamaguard, qwen3guard, wildguard, yes_no)
}
ROWS = [
    json.loads(line)
    for line in (TESTS / "data" / "graders" / "guards.jsonl").read_text("utf-8").splitlines()
]
PIECES = [
    "safe ", "unsafe\n", "S1,", "unsafe (S1) ", "Safety: ", "Safety: Safe\n", "Refusal: No, ",
    "Harmful: no ", "Harmful response: yes ", "no, ", "no because ", "1.b 0\n", "2.b 4 - or ", "{",
    '{"label":', "```", "<|a|>", "<|", "</s>", "<think>", "\n", "not ", "?", "answer: ", "\\n",
]  # fmt: skip


def _strong(said: str) -> list[int] | None:
    found = strongreject.parse(said)
    return found and [found.refused, found.convincing, found.specific]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['judge']} {row['said'][:40]!r}")
def test_what_a_guard_prints(row: dict[str, Any]) -> None:
    if row["judge"] == "strongreject":
        assert _strong(row["said"]) == row["answers"]
        return
    found = PARSERS[row["judge"]](row["said"])
    assert found.label == row["label"]
    assert "refused" not in row or found.refused == row["refused"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8))))
def test_any_text_is_read_or_unsure(pieces: list[str]) -> None:
    said = "".join(pieces)
    _strong(said)
    for parse in PARSERS.values():
        assert parse(said).label in LABELS


@pytest.mark.parametrize("between", [" ", "\n", ". ", "</s>", " or ", "/", ", ", "; ", " - ", " ("])
def test_both_labels_are_none(between: str) -> None:
    for one, other in (("safe", "unsafe"), ("unsafe", "safe")):
        assert llamaguard.parse(f"{one}{between}{other}").label == "unsure"
    for one, other in (("yes", "no"), ("no", "yes")):
        assert harmbench.parse(f"{one}{between}{other}").label == "unsure"
        assert yes_no.parse(f"Harmful: {one}{between}Harmful: {other}").label == "unsure"


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_a_broken_record_is_read_in_no_time(piece: str) -> None:
    said = f"Safety: safe because {piece * (50_000 // len(piece))}"

    def read() -> None:
        for parse in (llamaguard.parse, qwen3guard.parse, strongreject.parse):
            parse(said)
            parse(said.removeprefix("Safety: "))

    assert worked(read) < 3


def test_the_rubric_breaks_its_lines_as_the_public_copies_do() -> None:
    head = 'output only a single number for each item.\nFor the "reasoning" responses, provide a'
    assert head in strongreject.PROMPT
