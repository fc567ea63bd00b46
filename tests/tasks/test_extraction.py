"""Do graders read what a careful reader would, and tell the gold answer from a wrong one?"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fixtures.paths import ROOT, TESTS
from fixtures.timing import worked
from hypothesis import given
from hypothesis import strategies as st

from holdfast import judges, tasks
from holdfast.config import TaskSpec
from holdfast.tasks import TASKS, _extraction
from holdfast.types import Example, Message, Reading, Reply, Verdict

CORPUS = TESTS / "data" / "graders"


def _corpus(name: str) -> list[Any]:
    lines = (CORPUS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        pytest.param(row, id=f"{at}: {row.get('why', '')}") for at, row in enumerate(rows, start=1)
    ]


def _rows(name: str) -> list[dict[str, Any]]:
    return [one.values[0] for one in _corpus(name)]


def _build(kind: str, **options: Any) -> tasks.Task:
    return tasks.build("t", TaskSpec(kind=kind, **options), "study.yaml")


def _graded(
    task: tasks.Task, one: Example, text: str, verdict: Verdict | None = None, finish: Any = "stop"
) -> Reading:
    return task.grade(one, Reply(one.id, 0, text, finish, 1), verdict)


def _worked(number: str) -> Example:
    return Example("e", (Message("user", "How many?"),), f"6 boxes of 12.\n#### {number}")


def test_every_kind_of_task_has_tricky_answers_or_a_reason() -> None:
    # the four outcomes, and the bundled items, all of whose answers are tried: tests of their own
    elsewhere = {"overrefusal", "gsm_danger", "sample"}
    covered = {"gsm8k", "jsonl", "ailuminate", "xstest", "lab_math", "lab_refuse", "lab_help"}
    covered |= {"lab_start"}
    built_in = {name for name, where in TASKS.items() if where.startswith("holdfast.")}
    unanswered = {"harness", "text"}  # graded by the harness; scored, and never answered
    assert built_in - covered - elsewhere <= unanswered, "a new task needs tricky answers here"


@pytest.mark.parametrize("row", _corpus("gsm8k"))
def test_four_readings_of_a_tricky_answer(row: dict[str, Any]) -> None:
    one = _worked(row["gold"])
    for way in _extraction.WAYS:
        reading = _graded(_build("gsm8k", path="x", extraction=way), one, row["reply"])
        assert reading.value == float(row[way]), way
        assert reading.read_as == {other: float(row[other]) for other in _extraction.WAYS}


def test_the_tolerant_reading_is_the_right_one_nearly_always() -> None:
    rows = _rows("gsm8k")
    wrong = {
        way: [row["why"] for row in rows if row[way] != row["right"]] for way in _extraction.WAYS
    }
    assert len(rows) >= 80
    assert len(wrong["tolerant"]) <= 0.02 * len(rows), wrong["tolerant"]
    others = (len(wrong[way]) for way in _extraction.WAYS if way != "tolerant")
    assert len(wrong["tolerant"]) < 0.4 * min(others)
    page = (ROOT / "docs" / "tasks" / "gsm8k.md").read_text("utf-8")
    for way, several in wrong.items():
        assert f"| `{way}` | {len(several)} of {len(rows)} |" in page, "the page says otherwise"


def _filters() -> dict[str, Any]:
    """The harness's own filters and metric, as its task file asks for them."""
    import lm_eval
    import yaml
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    file = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    task = yaml.safe_load(file.read_text(encoding="utf-8"))
    metric = dict(task["metric_list"][0])
    keys = ("regexes_to_ignore", "ignore_case", "ignore_punctuation")
    found = {}
    for one in task["filter_list"]:
        first, take = one["filter"]
        assert (first.pop("function"), take) == ("regex", {"function": "take_first"})
        regex = RegexFilter(**first)

        def score(reply: str, gold: str, regex: Any = regex) -> float:
            said = next(iter(regex.apply([[reply]], [{}])))[0]
            settings = {key: metric[key] for key in keys}
            return float(exact_match_hf_evaluate([said], [gold], **settings)["exact_match"])

        found[one["name"]] = score
    return found


def test_the_harness_modes_are_the_harness() -> None:
    found = _filters()
    pairs = {"harness_strict": found["strict-match"], "harness_flexible": found["flexible-extract"]}
    rng = random.Random(0)
    pieces = [
        "####",
        "#### ",
        " ",
        "72",
        "-72",
        "$72",
        "72.",
        ",",
        ".",
        "1,008",
        "A",
        "\n",
        "$",
        "-",
    ]
    drawn = ["".join(rng.choices(pieces, k=rng.randint(0, 7))) for _ in range(400)]
    asked = [(row["reply"], row["gold"]) for row in _rows("gsm8k")]
    asked += [(text, gold) for text in drawn for gold in ("72", "1,008", "-72")]
    task, right = _build("gsm8k", path="x"), 0.0
    for reply, number in asked:
        one = _worked(number)
        read = _graded(task, one, reply).read_as
        for way, score in pairs.items():
            assert read[way] == score(reply, one.target or ""), (way, reply, number)
            right += read[way]
    assert 100 < right < len(asked), "some of either kind"


def _perturbed(gold: str) -> Iterator[tuple[str, str]]:
    """A gold answer made wrong, five ways, and what was done to it."""
    text, number = gold.rsplit("####", 1)
    number = number.strip()
    digits = Decimal(number.replace(",", ""))
    last = (int(number[-1]) + 3) % 10
    yield "digit changed", f"{text}#### {number[:-1]}{last}"
    yield "digit appended", f"{gold.rstrip()}7"
    yield "off by one", f"{text}#### {digits + 1}"
    yield "off by one", f"{text}#### {digits - 1}"
    if digits:
        yield "sign", f"{text}#### {-digits}"


def test_every_gold_answer_of_gsm8k_is_right_and_no_perturbed_one(shared_data: Path) -> None:
    task = _build("gsm8k", path=str(shared_data / "gsm8k"))
    examples, learned = task.examples("test"), task.examples("train")
    assert (len(examples), len(learned)) == (1319, 7473)
    for one in (*examples, *learned[::3]):
        assert set(_graded(task, one, one.target or "").read_as.values()) == {1.0}, one.id
    bare = 0
    for one in examples:
        gold = one.target or ""
        for done, text in _perturbed(gold):
            found = _graded(task, one, text).read_as
            assert set(found.values()) == {0.0}, (one.id, done, found)
        unmarked = gold.rsplit("####", 1)[0]
        found = _graded(task, one, unmarked).read_as  # its last number may be right all the same
        assert (found["strict"], found["harness_strict"]) == (0.0, 0.0), one.id
        bare += found["tolerant"] == 1.0
        for text in ("", re.sub(r"\d", "", gold)):
            assert set(_graded(task, one, text).read_as.values()) == {0.0}, one.id
    assert bare >= 1319 - 15, "the last number of the last statement"


@pytest.mark.parametrize("row", _corpus("written"))
def test_the_number_that_a_model_gives(row: dict[str, Any]) -> None:
    wanted = None if row["number"] is None else Decimal(row["number"])
    assert _extraction.tolerant(row["reply"]) == wanted


@pytest.mark.parametrize("row", _corpus("jsonl"))
def test_tricky_answers_to_a_users_file(row: dict[str, Any], tmp_path: Path) -> None:
    line = {"prompt": "q", "completion": row["gold"]} if row["gold"] else {"prompt": "q"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line), encoding="utf-8")
    options = {"pattern": row["pattern"]} if "pattern" in row else {}
    task = _build("jsonl", path=str(tmp_path / "mine.jsonl"), grader=row["grader"], **options)
    task.self_check()
    (one,) = task.examples("test")
    assert _graded(task, one, row["reply"]).value == row["value"]


def test_gold_answers_of_a_users_file(shared_data: Path) -> None:
    file = str(shared_data / "gsm8k" / "test.jsonl")
    for grader in ("exact", "number"):
        task = _build("jsonl", path=file, grader=grader)
        for one in task.examples("test"):
            gold = one.target or ""
            assert _graded(task, one, gold).value == 1.0
            for done, text in _perturbed(gold):
                assert _graded(task, one, text).value == 0.0, (grader, one.id, done)


@pytest.fixture()
def safety(tmp_path: Path) -> dict[str, tasks.Task]:
    """The tasks that a judge decides, over one prompt each."""
    head = "release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash"
    (tmp_path / "a.csv").write_text(f"{head}\nx1,How?,ncr,skilled,en_US,h\n", encoding="utf-8")
    rows = "id,prompt,type,label\n1,How?,homonyms,safe\n2,Whose?,contrast_homonyms,unsafe\n"
    (tmp_path / "x.csv").write_text(rows, encoding="utf-8")
    xstest = {"kind": "xstest", "path": str(tmp_path / "x.csv")}
    return {
        "ailuminate": _build("ailuminate", path=str(tmp_path / "a.csv")),
        "xstest_safe": _build(**xstest, half="safe"),
        "xstest_unsafe": _build(**xstest, half="unsafe"),
    }


def _asking(task: tasks.Task, prompt: str) -> Example:
    (one,) = task.examples("test")
    meta = {**one.meta, "question": prompt}
    return Example(one.id, (Message("user", prompt),), one.target, one.source, meta)


@pytest.mark.parametrize("row", _corpus("safety"))
def test_tricky_replies_to_requests(row: dict[str, Any], safety: dict[str, tasks.Task]) -> None:
    task = safety[row["task"]]
    one = _asking(task, row["prompt"])
    reply = Reply(one.id, 0, row["reply"], "stop", 1)
    (verdict,) = judges.build("refusal").judge([(one, reply)])
    assert task.grade(one, reply, verdict).value in row.get("either", [row["value"]])


@pytest.mark.parametrize("row", _corpus("verdicts"))
def test_what_a_verdict_is_worth(row: dict[str, Any], safety: dict[str, tasks.Task]) -> None:
    """By the judge alone: the reply is an ordinary sentence, so that nothing else is said of it."""
    text = "I would rather talk about how a shed is kept dry over the winter, and why that matters."
    for name, task in safety.items():
        one = _asking(task, "How is a shed kept dry over the winter?")
        verdict = None
        if row["label"]:
            verdict = Verdict(one.id, 0, row["label"], "test", refused=row["refused"])
        assert _graded(task, one, text, verdict).value == row[name], name


@pytest.mark.parametrize("row", _corpus("lab"))
def test_tricky_answers_in_the_lab(row: dict[str, Any]) -> None:
    task = _build(row["task"])
    for one in task.examples("test")[:20]:
        gold = one.target or ""
        number = gold.rpartition("####")[2].strip()
        text = row["reply"].format(
            gold=gold, number=number, topic=one.meta.get("topic", ""), question=one.question
        )
        verdict = None
        if task.judge:
            (verdict,) = task.judge.judge([(one, Reply(one.id, 0, text, "stop", 1))])
        assert _graded(task, one, text, verdict).value == row["value"], text


@pytest.mark.parametrize("name", ["lab_math", "lab_start", "lab_refuse", "lab_help"])
def test_gold_answers_of_the_lab(name: str) -> None:
    task = _build(name)
    for one in task.examples("test"):
        gold = one.target or ""
        verdict = None
        if task.judge:
            (verdict,) = task.judge.judge([(one, Reply(one.id, 0, gold, "stop", 1))])
        assert _graded(task, one, gold, verdict).value == 1.0, gold
        if name in ("lab_math", "lab_start"):
            for done, text in _perturbed(gold):
                assert _graded(task, one, text).value == 0.0, (done, text)


PATTERNS = [
    "1", "1,1", "1,111", "1.", "1:1", "answer: ", "the answer is ", "\\boxed{", "\\frac{",
    "#### ", "#", "$-", "1/", "7 ", "A:\n", ".", "*", "**", "**1**", "(", "(1", "```", "```py\n",
    "\n", " ", "1 + ", "= 1 ", "x = ", "1. ", "1) a\n", "check ", "Question: 1\n", "Q",
    "<|im_end|>", "<think>", "</think>", "<answer>", "<<", "how many? ",
    "\n\nAnn has 3 pens, how many?", "答案", "七", "twenty ", "wait ", "not 1 ", "{", "}", "<",
    "let me know ", "1 or ", "Step 1: ", "a1", "-", "\u2212", "½", "１", "1 000 ", "'", "\x01",
    "\x03a\x04",
]  # fmt: skip


@pytest.mark.parametrize("piece", PATTERNS, ids=repr)
def test_a_broken_record_is_read_in_no_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    assert worked(lambda: _extraction.tolerant(text)) < 1


@given(st.lists(st.sampled_from([*PATTERNS, "72", "the", "\n", " ", "?", "final answer", "is"])))
def test_whatever_is_said_is_read_or_not(pieces: list[str]) -> None:
    text = "".join(pieces)
    for way in _extraction.WAYS:
        found = _extraction.read(text, way)
        assert found is None or isinstance(found, Decimal | str)


@given(st.text("abc 0123456789.,=+-$()\n*\\"), st.integers(-(10**9), 10**9))
def test_what_stands_after_the_mark_is_read(said: str, number: int) -> None:
    assert _extraction.tolerant(f"{said}\n#### {number}") == number
