"""Do the tasks read their data, accept their gold answers, and name what is wrong?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from holdfast import tasks
from holdfast.config import Sampling, ShotsSpec, TaskSpec
from holdfast.errors import DataError, StudyError
from holdfast.tasks import _extraction
from holdfast.types import Example, Message, Reply, Verdict


def _build(kind: str, judge: str | None = None, **options: Any) -> tasks.Task:
    return tasks.build("t", TaskSpec(kind=kind, judge=judge, **options), "study.yaml")


def _grade(task: tasks.Task, split: str, text: str, verdict: str | None = None) -> float | None:
    example = task.examples(split)[0]
    said = Verdict(example.id, 0, verdict, "test") if verdict else None
    return task.grade(example, Reply(example.id, 0, text, "stop", 1), said).value


@pytest.mark.parametrize(
    ("text", "strict", "tolerant"),
    [
        ("6 * 12 = 72\n#### 72", True, True),
        ("#### $72", True, True),
        ("#### 72.", False, True),
        ("#### 72.00", False, True),
        ("#### 72 apples", False, True),
        ("#### The answer is 72", False, True),
        ("72", True, True),
        ("He has 72", False, True),
        ("A: 72", False, True),
        ("The answer is 6 * 12 = 72 apples. That is 6 boxes.", False, True),
        (r"so $\boxed{72}$ of 100", False, True),
        (r"\boxed{72\text{ apples}} is 60 percent", False, True),
        ("**Answer: 72** (of 80)", False, True),
        ("答案是 72。", False, True),
        ("#### 7 2", False, False),
        ("#### 720", False, False),
        ("#### -72", False, False),
        ("", False, False),
        ("####", False, False),
        ("I cannot tell.", False, False),
        ("#### 73\nwait\n#### 72", True, True),
        ("#### 72\n#### 73", False, False),
        ("The answer is 72. Check: 72 - 12 = 60.", False, True),
        ("#### 70 + 2 = 72", False, True),
    ],
)
def test_two_readings_of_one_reply(text: str, strict: bool, tolerant: bool, tmp_path: Path) -> None:
    row = {"question": "6 boxes of 12?", "answer": "6*12=<<6*12=72>>72\n#### 72"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row), encoding="utf-8")
    for extraction, wanted in (("strict", strict), ("tolerant", tolerant)):
        task = _build("gsm8k", path=str(tmp_path), extraction=extraction)
        assert _grade(task, "test", text) == float(wanted), extraction
        assert extraction in task.label


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,000.00", "1000"), ("1,234,567", "1234567"), ("-5", "-5"), ("\u22125", "-5"),
        ("$-5.50", "-5.5"), ("-$5.50", "-5.5"), ("€ 3", "3"), ("3/4 cup", "0.75"), (".5", "0.5"),
        (r"\frac{3}{4}", "0.75"), ("1{,}000", "1000"), ("12.5%", "12.5"), ("72km", "72"),
        ("x = 10", "10"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text: str, value: str) -> None:
    assert _extraction.last_number(text) == Decimal(value)


def test_gsm8k_strips_marks_and_keeps_the_question(tmp_path: Path) -> None:
    row = {"question": "Q?", "answer": "1+1=<<1+1=2>>2\n#### 2"}
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    one = _build("gsm8k", path=str(tmp_path)).examples("train")[0]
    assert one.target == "1+1=2\n#### 2"
    assert one.question == "Q?"
    assert one.messages[-1].content.startswith("Q?\nLet's think step by step.")
    kept = _build("gsm8k", path=str(tmp_path), strip_calculator_marks=False).examples("train")[0]
    assert "<<1+1=2>>" in (kept.target or "")


def test_ailuminate_reads_the_csv_and_scores_by_the_judge(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "release_prompt_id,prompt_text,hazard,persona,locale,prompt_hash\n"
        'x1,"How, then?",vcr,skilled,en_US,h\nx2,And so?,src,unskilled,en_US,h\n',
        encoding="utf-8",
    )
    task = _build("ailuminate", path=str(file))
    assert task.label.startswith("unsafe rate by judge refusal-rules-")
    assert task.label.endswith("(offline); incoherent counts as bad")
    assert task.inverted
    assert [one.meta["group"] for one in task.examples("test")] == ["vcr", "src"]
    said = "Well, that depends on whom you ask."
    assert _grade(task, "test", said, "refused") == 1.0
    assert _grade(task, "test", said, "answered") == 0.0
    assert _grade(task, "test", said, "unsure") is None
    assert _grade(task, "test", said) is None, "no verdict is not a good verdict"
    task.self_check()
    with pytest.raises(DataError, match="never trained on"):
        task.examples("train")
    with pytest.raises(DataError, match="hazards in this file: src, vcr"):
        _build("ailuminate", path=str(file), hazards=["xyz"]).examples("test")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [("id,text\n1,x\n", "no column prompt_text"), ("", "is empty")],
)
def test_a_csv_without_the_prompt_column(tmp_path: Path, content: str, wanted: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=wanted):
        _build("ailuminate", path=str(tmp_path / "a.csv")).examples("test")
    with pytest.raises(DataError, match="download"):
        _build("ailuminate", path=str(tmp_path / "none.csv")).examples("test")


def _file(tmp_path: Path, *rows: Mapping[str, Any]) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_graders_of_a_users_file(tmp_path: Path) -> None:
    path = _file(tmp_path, {"prompt": "q", "completion": "It is  Blue", "part": "colours"})
    exact = _build("jsonl", path=path, group="part")
    assert _grade(exact, "test", "it is blue ") == 1.0
    assert _grade(exact, "test", "it is red") == 0.0
    assert exact.examples("test")[0].meta["group"] == "colours"
    path = _file(tmp_path, {"prompt": "q", "completion": "42"})
    assert _grade(_build("jsonl", path=path, grader="number"), "test", "so 42.0!") == 1.0
    letter = _build("jsonl", path=path, grader="regex", pattern=r"answer: (\d+)")
    assert _grade(letter, "test", "answer: 7, no, answer: 42") == 1.0
    assert _grade(letter, "test", "42") == 0.0
    judged = _build("jsonl", path=path, grader="judge")
    assert _grade(judged, "test", "?", "refused") == 1.0
    assert _grade(judged, "test", "?", "unsure") is None


def test_what_a_users_file_must_have(tmp_path: Path) -> None:
    for row, lacks in (
        ({"question": "q", "outputs": "a"}, "has no `answer` beside `question`, so it has no"),
        ({"question": "q", "answer": " "}, "`answer` is empty, so this row has no answer"),
        ({"instruction": "q", "input": "?"}, "has no `output` beside `instruction`"),
        ({"text": "q"}, "is plain text, which cannot be asked"),
        ({"messages": [{"role": "user", "content": "q"},
                       {"role": "assistant", "tool_calls": [{"name": "f"}]}]},
         "tool calls alone, which the exact grader cannot compare"),
        ({"messages": [{"role": "user", "content": "q"}]}, "jsonl:1: has no answer"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=lacks):
            _build("jsonl", path=_file(tmp_path, row)).examples("test")
    path = _file(tmp_path, {"prompt": "q"})
    with pytest.raises(DataError, match=r"mine\.jsonl:1: has no `completion` beside `prompt`"):
        _build("jsonl", path=path).examples("test")
    with pytest.raises(DataError, match="train_path"):
        _build("jsonl", path=path).examples("train")
    with pytest.raises(DataError, match=r"jsonl:2: has the id '1', as .*jsonl:1 has: two items"):
        twice = {"prompt": "q", "completion": "a", "id": 1}
        _build("jsonl", path=_file(tmp_path, twice, twice)).examples("test")
    with pytest.raises(DataError, match="does not accept the gold answer"):
        words = _file(tmp_path, {"prompt": "q", "completion": "blue"})
        _build("jsonl", path=words, grader="number").self_check()
    with pytest.raises(StudyError, match="needs a `pattern`"):
        _build("jsonl", path=path, grader="regex")
    with pytest.raises(StudyError, match="not a regular expression"):
        _build("jsonl", path=path, grader="regex", pattern="(")


def test_what_a_users_training_file_must_have(tmp_path: Path) -> None:
    unlearned = {"messages": [{"role": "user", "content": "q"},
                              {"role": "assistant", "content": "a", "weight": 0}]}  # fmt: skip
    path = _file(tmp_path, unlearned)
    with pytest.raises(DataError, match=r"jsonl:1: has the weight 0 on all its answers"):
        _build("jsonl", path=path, train_path=path).examples("train")
    assert _build("jsonl", path=path).examples("test")[0].target == "a", "weights are for learning"
    for row in ({"prompt": "q"}, {"prompt": "q", "completion": ""}, {"text": " "}):
        path = _file(tmp_path, row)
        with pytest.raises(DataError, match=r"mine\.jsonl:1"):
            _build("jsonl", path=path, train_path=path).examples("train")


def test_a_row_is_kept_whole(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    row = {"system": "s", "tools": [{"name": "f"}], "topic": 3, "messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "a", "reasoning_content": "r"}]}  # fmt: skip
    path = _file(tmp_path, row, {"text": "Once"})
    task = _build("jsonl", path=path, train_path=path, group="topic")
    assert task.examples("train") == [
        Example(
            "train-1",
            (Message("system", "s"), Message("user", "q"),
             Message("assistant", "", {"tool_calls": [call]}), Message("tool", "7")),
            "a", "mine.jsonl:train", {"group": "3", "question": "q"},
            ({"type": "function", "function": {"name": "f"}},), {"reasoning_content": "r"},
        ),
        Example("train-2", (), "Once", "mine.jsonl:train", {"group": ""}),
    ]  # fmt: skip


@pytest.mark.parametrize("nothing", [None, float("nan"), ""])
def test_an_id_that_says_nothing_is_none(tmp_path: Path, nothing: object) -> None:
    row = {"prompt": "q", "completion": "a", "id": nothing}
    found = _build("jsonl", path=_file(tmp_path, row, row)).examples("test")
    assert [one.id for one in found] == ["test-1", "test-2"]


@pytest.mark.parametrize("odd", [{"a": 1}, ["a"], True])
def test_an_id_is_text_or_a_number(tmp_path: Path, odd: object) -> None:
    row = {"prompt": "q", "completion": "a", "id": odd}
    with pytest.raises(DataError, match="which is no name") as caught:
        _build("jsonl", path=_file(tmp_path, row)).examples("test")
    assert caught.value.where.endswith("mine.jsonl:1: id")


def test_the_group_is_there_and_says_something(tmp_path: Path) -> None:
    path = _file(tmp_path, {"prompt": "q", "completion": "a", "topic": {"x": 1}, "part": None})
    with pytest.raises(DataError, match="by which no report can be broken down") as caught:
        _build("jsonl", path=path, group="topic").examples("test")
    assert caught.value.where.endswith("mine.jsonl:1: topic")
    for name in ("topics", "part"):
        with pytest.raises(DataError, match=f"no row says anything under `{name}`"):
            _build("jsonl", path=path, group=name).examples("test")


def test_plain_text_is_no_worked_example(tmp_path: Path) -> None:
    text = _file(tmp_path, {"text": "Once"}, {"text": "Twice"}, {"text": "Thrice"})
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "q", "completion": "a"}\n', encoding="utf-8")
    task = _build("jsonl", path=str(asked), train_path=text)
    spec = TaskSpec(shots=ShotsSpec(n=1))
    for read in (tasks.measuring_set, tasks.training_set):
        with pytest.raises(StudyError, match="is plain text") as caught:
            read(task, spec)
        assert "leave shots out" in caught.value.remedy
    assert [one.target for one in tasks.training_set(task, TaskSpec())][1:] == ["Twice", "Thrice"]


def test_shots_keep_tools_and_what_stands_beside_answers(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q"},
             {"role": "assistant", "content": "a", "reasoning_content": "r"}]  # fmt: skip
    rows = [{"messages": [{**turns[0], "content": f"q{i}"}, turns[1]], "tools": [{"name": "f"}]}
            for i in range(3)]  # fmt: skip
    path = _file(tmp_path, *rows)
    task = _build("jsonl", path=path, train_path=path)
    for one in tasks.training_set(task, TaskSpec(shots=ShotsSpec(n=1))):
        assert one.messages[1] == Message("assistant", "a", {"reasoning_content": "r"})
        assert one.extra == {"reasoning_content": "r"}
        assert one.tools == ({"type": "function", "function": {"name": "f"}},)


def test_a_tasks_own_keys_are_checked() -> None:
    with pytest.raises(StudyError, match=r"unknown key \(did you mean 'extraction'\?\)"):
        _build("gsm8k", extration="strict")
    with pytest.raises(StudyError, match=r"this task takes: .*; and every task: .*limit, .*shots"):
        _build("gsm8k", limits=3)
    with pytest.raises(StudyError, match=r"kind: jsonl with a path, or kind: FILE\.py:Class"):
        _build("mine")
    with pytest.raises(StudyError, match=r"no task is called 'gsm9k' \(did you mean 'gsm8k'\?\)"):
        _build("gsm9k")
    with pytest.raises(StudyError, match=r"tasks\.t\.sampling\.max_tokns: unknown key"):
        tasks.sampling("t", TaskSpec(sampling={"max_tokns": 3}), Sampling(), "study.yaml")


def test_a_tasks_sampling_wins_under_either_name() -> None:
    defaults = Sampling(stop=["A"], top_k=4, temperature=0.5)
    own = {"max_tokens": 3, "stop_strings": "B", "num_return_sequences": 2}
    found = tasks.sampling("t", TaskSpec(sampling=own), defaults, "study.yaml")
    assert (found.max_new_tokens, found.stop, found.samples, found.top_k) == (3, ("B",), 2, 4)


def _gsm8k(tmp_path: Path, train: int, test: int) -> tasks.Task:
    for split, count in (("train", train), ("test", test)):
        rows = [
            {"question": f"{split} {i} {'x' * i}?", "answer": f"#### {i}"} for i in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return _build("gsm8k", path=str(tmp_path))


def test_ids_are_those_that_the_pages_name(tmp_path: Path) -> None:
    assert [one.id for one in _gsm8k(tmp_path, 1, 2).examples("test")] == ["test-1", "test-2"]
    rows = ({"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "a", "id": 7})
    mine = _build("jsonl", path=_file(tmp_path, *rows))
    assert [one.id for one in mine.examples("test")] == ["test-1", "7"]
    wrongs = _build("gsm_danger", items=2)
    assert [one.id for one in wrongs.examples("test")] == ["test-0", "test-1"]
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,category\np,c\nq,c\n", encoding="utf-8")
    harmless = _build("overrefusal", path=str(prompts))
    assert [one.id for one in harmless.examples("test")] == ["row-1", "row-2"]
    prompts.write_text("prompt_text,hazard,persona\np,src,unskilled\n", encoding="utf-8")
    assert _build("ailuminate", path=str(prompts)).examples("test")[0].id == "row-2"


def test_limits_are_evenly_spaced(tmp_path: Path) -> None:
    task = _gsm8k(tmp_path, 3, 10)
    chosen = tasks.measuring_set(task, TaskSpec(limit=5))
    assert [one.id for one in chosen] == ["test-1", "test-3", "test-5", "test-7", "test-9"]


def test_the_shortest_share(tmp_path: Path) -> None:
    task = _gsm8k(tmp_path, 9, 1)
    chosen = tasks.training_set(task, TaskSpec(), keep_shortest=1 / 3)
    assert [one.id for one in chosen] == ["train-1", "train-2", "train-3"]


@pytest.mark.parametrize("mode", ["fixed", "random"])
def test_shots_are_the_same_in_training_and_measuring(tmp_path: Path, mode: Any) -> None:
    task = _gsm8k(tmp_path, 20, 5)
    spec = TaskSpec(shots=ShotsSpec(n=2, mode=mode))
    asked, trained = tasks.measuring_set(task, spec), tasks.training_set(task, spec)
    for one in (*asked, *trained):
        roles = [turn.role for turn in one.messages]
        assert roles == ["user", "assistant"] * 2 + ["user"]
        assert one.question not in [turn.content for turn in one.messages[:-1]]
    shots = {one.messages[:-1] for one in (*asked, *trained)}
    if mode == "fixed":
        assert len(shots) == 1
        assert len(trained) == 18, "the shots themselves are not trained on"
    else:
        assert len(shots) > 10
        assert len(trained) == 20
    assert asked == tasks.measuring_set(task, spec), "drawn by seed"


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        tasks.measuring_set(_gsm8k(tmp_path, 1, 0), TaskSpec())


@pytest.mark.parametrize("name", ["lab_math", "lab_start", "lab_refuse", "lab_help"])
def test_the_labs_tasks_accept_their_own_gold(name: str) -> None:
    task = _build(name)
    task.self_check()
    assert len(task.examples("test")) >= 100


def test_a_collapsed_model_does_not_look_helpful() -> None:
    task = _build("lab_help")
    one = task.examples("test")[0]
    topic = str(one.meta["topic"])

    def value(text: str, label: str, finish: str = "stop") -> float | None:
        reply = Reply(one.id, 0, text, finish, 9)  # type: ignore[arg-type]
        return task.grade(one, reply, Verdict(one.id, 0, label, "t")).value

    assert value(f"Sure, to mend the {topic}, start early.", "answered") == 1.0
    assert value(f"{topic} " * 30, "unsure") is None
    assert value(f"Sure, the {topic}", "answered", "length") == 0.0
    assert value(one.question, "answered") == 0.0


def test_fixed_shots_never_cost_a_measured_item(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"id": i, "prompt": f"q{i}", "completion": str(i)}) + "\n" for i in range(10)
    )
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text(rows.replace("q", name), encoding="utf-8")
    paths = {"path": str(tmp_path / "test.jsonl"), "train_path": str(tmp_path / "train.jsonl")}
    spec = TaskSpec(shots=ShotsSpec(n=3))
    assert len(tasks.measuring_set(_build("jsonl", **paths), spec)) == 10
    assert len(tasks.training_set(_build("jsonl", **paths), spec)) == 7


@pytest.mark.parametrize("row", [{"question": "a", "answer": 5}, {"question": "a"}, ["a", "b"]])
def test_a_gsm8k_line_of_another_form_is_named(tmp_path: Path, row: Any) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps(row), encoding="utf-8")
    named = r"test\.jsonl(:1|, row 1): (question|answer): an item needs the texts"
    with pytest.raises(DataError, match=named):
        _build("gsm8k", path=str(tmp_path)).examples("test")


def test_missing_gsm8k_data_names_the_key(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(DataError, match=r"No such file|no file of rows") as caught:
            _build("gsm8k", path=str(path)).examples("test")
        assert "tasks.NAME.path" in caught.value.remedy
        assert "leave `path` out to read openai/gsm8k from the hub" in caught.value.remedy


def test_several_samples_need_a_temperature() -> None:
    with pytest.raises(StudyError, match="give a temperature"):
        tasks.sampling("t", TaskSpec(sampling={"samples": 4}), Sampling(), "study.yaml")


def test_half_a_character_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "\\ud83d", "completion": "a"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.jsonl:1: prompt: holds half of a surrogate pair"):
        _build("jsonl", path=str(path)).examples("test")
