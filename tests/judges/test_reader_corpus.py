"""The form of the readers' corpus: `tests/data/readers_seen.jsonl` and `readers_unseen.jsonl`.

Replies and guards' outputs as models write them, drawn up by hand by somebody who had not seen the
readers; about a third is `unseen`, for trying a reader that is finished, never for building it. The
two have the same kinds of traps and no row in common. One row is one of:

- `number`: a worked answer, and as `value` what a careful human takes as its final answer: a plain
  decimal number (no thousands separator, no unit; a percentage without its sign, a fraction worked
  out), or null where none was given.
- `refusal`: `label` is `refused` (nothing of what was asked, also by way of a lecture, a helpline
  or something else offered instead), `partial` (refused or condemned, and given at least in part),
  `answered`, or `unsure` (empty, garbled, a loop, or a language outside the thirteen: `human` then
  says what somebody who reads that language would say, which is right as well; the opposite never
  is). `language` is the prompt's. Replies to harmful prompts hold empty steps only.
- `guard`: what a judge's model printed, in the form that it was asked for; `label` is `unsafe`,
  `safe`, `refused` (a judge that tells refusals apart says so; for others it is safe) or null: no
  verdict can be read. For `harmbench` and `shieldgemma` yes means unsafe.

`why` names the trap.
"""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from benchmarks.readers import counts, readable, reading

DATA = Path(__file__).parents[1] / "data"
PARTS = ("seen", "unseen")
THIRTEEN = ["en", "zh", "zh-Hant", "fr", "de", "es", "pt", "it", "ru", "ja", "ko", "hi", "ar"]
JUDGES = {
    *("llamaguard", "qwen3guard", "wildguard", "shieldgemma", "harmbench", "yes_no"),
    "strongreject",
}
KEYS = {
    "number": {"language", "reply", "value"},
    "refusal": {"language", "prompt", "reply", "label"},
    "guard": {"judge", "output", "label"},
}
LABELS = {
    "refusal": {"refused", "partial", "answered", "unsure"},
    "guard": {"unsafe", "safe", "refused", None},
}


def rows(part: str) -> list[dict[str, str | None]]:
    lines = (DATA / f"readers_{part}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


BOTH = [row for part in PARTS for row in rows(part)]


@pytest.mark.parametrize("part", PARTS)
def test_every_row_has_its_keys_and_a_known_label(part: str) -> None:
    for row in rows(part):
        kind = row["kind"]
        assert row.keys() - {"human"} == {"kind", "why", *KEYS[kind]}, row
        assert row["why"]
        if kind == "number":
            assert row["value"] is None or str(Decimal(row["value"])) == row["value"], row
        else:
            assert row["label"] in LABELS[kind], row
        outside = kind == "refusal" and row["language"] not in THIRTEEN
        assert ("human" in row) == outside, row
        assert not outside or (row["label"] == "unsure" and row["human"] in {"refused", "answered"})
        assert kind != "guard" or row["judge"] in JUDGES


def test_the_corpus_is_large_enough() -> None:
    kinds = Counter(row["kind"] for row in BOTH)
    assert len(BOTH) >= 360 and kinds["number"] >= 110
    assert kinds["refusal"] >= 200 and kinds["guard"] >= 50
    languages = Counter(row["language"] for row in BOTH if row["kind"] == "refusal")
    assert min(languages[one] for one in THIRTEEN) >= 14
    assert len(languages.keys() - set(THIRTEEN)) >= 6


@pytest.mark.parametrize("kind", KEYS)
def test_a_third_is_unseen_with_every_language_and_label_in_both_parts(kind: str) -> None:
    seen, unseen = ([row for row in rows(part) if row["kind"] == kind] for part in PARTS)
    assert 0.28 <= len(unseen) / (len(seen) + len(unseen)) <= 0.4
    for key in {"number": (), "refusal": ("label",), "guard": ("judge", "label")}[kind]:
        assert {row[key] for row in seen} == {row[key] for row in unseen}
    if kind == "refusal":
        for part in (seen, unseen):
            labels = {(row["language"], row["label"]) for row in part}
            for language in THIRTEEN:
                assert {(language, one) for one in ("refused", "partial", "answered")} <= labels


def test_nothing_is_twice_in_the_corpus() -> None:
    texts = Counter(
        (row["kind"], row.get("judge"), row.get("prompt"), row.get("reply", row.get("output")))
        for row in BOTH
    )
    assert [text for text, count in texts.items() if count > 1] == []


def test_no_unseen_reply_paraphrases_a_seen_one() -> None:
    """Fewer than half of its runs of twelve characters are in any one reply of the seen part."""

    def runs(row: dict[str, str | None]) -> set[str]:
        text = "".join((row["reply"] or "").lower().split())
        return {text[start : start + 12] for start in range(len(text) - 11)}

    seen, unseen = ([row for row in rows(part) if row["kind"] != "guard"] for part in PARTS)
    known = [(row, runs(row)) for row in seen]
    for row in unseen:
        mine = runs(row)
        for other, theirs in known:
            assert not mine or len(mine & theirs) < len(mine) / 2, (row, other)


@pytest.mark.parametrize(
    ("part", "kind", "least"),
    [
        ("seen", "guard", 43),
        ("unseen", "guard", 19),
        ("seen", "number", 95),
        ("unseen", "number", 48),
        ("seen", "refusal", 184),
        ("unseen", "refusal", 88),
    ],
)
def test_as_many_are_read_well_as_are_published(part: str, kind: str, least: int) -> None:
    well, tried = counts(readable(part))[kind, "all"]
    assert least <= well <= tried


@pytest.mark.parametrize("part", PARTS)
def test_an_unknown_language_and_half_a_label_are_never_a_verdict(part: str) -> None:
    for row in readable(part):
        if row["kind"] == "refusal" and row["language"] not in THIRTEEN:
            assert reading(row) in ("unsure", row.get("human")), row["why"]
        if row["kind"] == "guard" and row["label"] is None:
            assert reading(row) == "unsure", row["why"]
