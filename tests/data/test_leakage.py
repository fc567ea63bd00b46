"""Are evaluation questions found in training data, and stock phrases left alone?"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from holdfast.data.leakage import LeakIndex
from holdfast.data.text_leaks import ngrams, normalise, units
from holdfast.data.windows import TEXT
from holdfast.errors import LeakError
from holdfast.types import Example, Message

LONG = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May?"
)


def _example(name: str, text: str) -> Example:
    return Example(name, (Message("user", text),))


@pytest.mark.parametrize(
    "copy",
    [LONG, LONG.upper() + "!!", f"Please solve: {LONG} Thanks.", LONG.replace("April", "March", 1)],
)
def test_copies_are_found(copy: str) -> None:
    leak = LeakIndex([_example("t1", "Other question?"), _example("t2", LONG)]).find(
        _example("train-9", copy)
    )
    assert leak is not None
    assert (leak.evaluated, leak.trained) == ("t2", "train-9")


@pytest.mark.parametrize(
    "other",
    [
        "Weng earns $12 an hour for babysitting. How much did she earn in 50 minutes?",
        "Ben sold 3 clips. How many clips did Ben sell altogether in April and May?",
        "Why?",
    ],
)
def test_other_questions_are_not(other: str) -> None:
    index = LeakIndex([_example("t", LONG)])
    assert index.find(_example("x", other)) is None
    index.refuse([_example("x", other)], "here")


def test_short_questions_are_compared_whole() -> None:
    index = LeakIndex([_example("t", "How do I kill a process?")])
    assert index.find(_example("x", "how do i kill a PROCESS")) is not None
    assert index.find(_example("x", "How do I kill a weed?")) is None


def test_the_share_counts_not_the_number() -> None:
    short = "How many clips did Natalia sell to her friends in the month of May?"
    long = " ".join(f"word{i}" for i in range(60))
    part = " ".join(f"word{i}" for i in range(25))
    leak = LeakIndex([_example("long", long), _example("short", short)]).find(
        _example("x", f"{part} {short}")
    )
    assert leak is not None
    assert leak.evaluated == "short"


def test_every_turn_is_read() -> None:
    turns = (Message("user", LONG), Message("assistant", "72"), Message("user", "And in June?"))
    assert LeakIndex([_example("t", LONG)]).find(Example("x", turns)) is not None


def test_a_leak_stops_with_the_pairs() -> None:
    with pytest.raises(LeakError, match=r"1 training items .*x ~ t \(100%\)"):
        LeakIndex([_example("t", LONG)]).refuse([_example("x", LONG)], "arm sft")


def test_gsm8k_train_and_test_are_clean(shared_data: Path) -> None:
    rows = {
        split: [
            _example(f"{split}-{i}", json.loads(line)["question"])
            for i, line in enumerate(
                (shared_data / "gsm8k" / f"{split}.jsonl").read_text("utf-8").splitlines()
            )
        ]
        for split in ("train", "test")
    }
    index = LeakIndex(rows["test"])
    leaks = [leak for one in rows["train"] if (leak := index.find(one))]
    assert not leaks
    planted = [*rows["train"][:100], *rows["test"][:3]]
    with pytest.raises(LeakError, match="3 training items"):
        index.refuse(planted, "planted")


@pytest.mark.parametrize(
    "trained",
    [
        Example("x", (), f"An old book. {LONG} And so on."),
        Example("x", (Message("system", f"Example: {LONG}"), Message("user", "Hello?"))),
        Example("x", (Message("user", "Look."), Message("assistant", ""), Message("tool", LONG))),
        Example("x", (Message("user", LONG), Message("assistant", "96"), Message("user", "Why?"))),
    ],
    ids=["plain text", "system prompt", "tool", "earlier turn"],
)
def test_whatever_the_model_is_told_is_read(trained: Example) -> None:
    index = LeakIndex([_example("t", "Other question?"), _example("t2", LONG)])
    leak = index.find(trained)
    assert leak is not None and leak.evaluated == "t2"
    assert index.find(Example("x", (), "An old book about clips and friends in May.")) is None


def test_words_are_the_same_by_the_short_way() -> None:
    for text in ("It's 3 o'clock: A_b, C-D!", "", "TAB\tand\nline 4.5"):
        assert normalise(text) == normalise(text + "\u0301"), "an accent alone is no word"


UNSPACED = {
    "zh": "一个农民原来有十五只羊，后来又在集市上买了二十七只羊，请问他现在一共有多少只羊？",
    "ja": "農夫は最初に十五頭の羊を飼っていて、その後市場で二十七頭を買った。今は全部で何頭か？",
    "ko": "농부는 처음에 양을 열다섯 마리 키웠고 시장에서 스물일곱 마리를 샀습니다.",
    "th": "นักเรียนมีแอปเปิ้ลสิบห้าผลและซื้อเพิ่มอีกยี่สิบเจ็ดผลตอนนี้มีทั้งหมดกี่ผล",
}


@pytest.mark.parametrize("code", UNSPACED)
def test_scripts_without_spaces_are_read_by_characters(code: str) -> None:
    index = LeakIndex([_example(name, text) for name, text in UNSPACED.items()])
    text = UNSPACED[code]
    for copy in (
        f"{text}请一步一步思考。",
        f"Please answer: {text}",
        f"次の質問{text}",
        f"ตอบ{text}",
    ):
        leak = index.find(_example("x", copy))
        assert leak is not None and leak.evaluated == code
    assert index.find(_example("x", text[: len(text) // 2])) is None


def test_chinese_questions_of_one_style_are_no_leaks() -> None:
    form = "{}有{}个{}，又买了{}个，后来送给{}{}个，请问{}现在还剩多少个{}？"
    who, what, many = ("小明", "李华", "农民"), ("苹果", "铅笔", "气球"), ("三", "十五", "27", "48")
    asked = [
        form.format(a, many[n % 4], b, c, d, many[(n + 1) % 4], a, b)
        for n, (a, b, c, d) in enumerate(itertools.product(who, what, many, who))
    ]
    evaluated, trained = asked[::2], asked[1::2]
    index = LeakIndex([_example("t", one) for one in evaluated])
    known = set(evaluated)
    leaks = [one for one in trained if one not in known and index.find(_example("x", one))]
    assert not leaks
    assert index.find(_example("x", f"请看：{evaluated[5]}"))


def test_a_chinese_document_with_changed_characters_is_found() -> None:
    drawn = random.Random(0)
    text = "".join(chr(drawn.randrange(0x4E00, 0x9FA0)) for _ in range(2000))
    clauses = [text[start : start + 25] for start in range(0, 2000, 25)]
    changed = ["改" + one[1:] if n % 5 == 0 else one for n, one in enumerate(clauses)]
    held = Example("held", (Message("user", "，".join(clauses)),), None, "", {TEXT: {}})
    index = LeakIndex([held])
    for told in ("，".join(changed), "，".join(clauses[:20])):
        assert index.find(Example("x", (), told)) is not None
    assert index.find(Example("x", (), "".join(sorted(text)))) is None


def test_n_grams_of_words_are_six_in_a_row() -> None:
    words = tuple(f"é{n}" for n in range(20))
    assert units(" ".join(words)) == normalise(" ".join(words))
    found = [" ".join(one) for one in ngrams(units("One Two, three! Four five six seven"))]
    assert found == ["one two three four five six", "two three four five six seven"]
    assert list(ngrams(units("你好"))) == [("你", "好")]
    mixed = units("有" * 11 + "a b c d e f")
    assert [len(one) for one in ngrams(mixed)] == [10, 10, 10, 10, 9, 9, 8, 8, 8, 7, 7, 6]
