"""Are stored replies graded one at a time, each with its own verdict, in every way of reading?"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast import tasks
from holdfast.analysis.arrays import by_way
from holdfast.analysis.results import ArmInfo, Cell, Results, Share, TaskInfo
from holdfast.config import TaskSpec
from holdfast.engines.chunks import REPLIES
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import DataError
from holdfast.grading import perplexity
from holdfast.grading.answer import paired, summary_of
from holdfast.grading.grade import READINGS, grade_replies, read_readings
from holdfast.grading.judge import VERDICTS, judge_replies
from holdfast.progress import Silent
from holdfast.report import markdown
from holdfast.report.tables import ways
from holdfast.runs import store
from holdfast.types import Example, Reading, Reply, Verdict


def _jsonl_task(folder: Path, grader: str, count: int = 3) -> tasks.Task:
    rows = [{"id": f"q{i}", "prompt": f"q {i}?", "completion": str(i)} for i in range(count)]
    store.write_jsonl(folder / "mine.jsonl", rows)
    options: dict[str, Any] = {"path": str(folder / "mine.jsonl"), "grader": grader}
    return tasks.build("t", TaskSpec(kind="jsonl", **options), "study.yaml")


def _replies(folder: Path, *texts: str) -> None:
    rows = [Reply(f"q{i % 3}", i // 3, text, "stop", 1) for i, text in enumerate(texts)]
    store.write_jsonl(folder / REPLIES, rows)


def test_every_reply_gets_its_own_verdict_in_any_order(tmp_path: Path) -> None:
    task = _jsonl_task(tmp_path, "judge")
    _replies(tmp_path, *"abcde")
    said = {("q0", 0): "safe", ("q1", 0): "unsafe", ("q2", 0): "refused", ("q1", 1): "unsure"}
    for order in (list(said), list(reversed(said))):
        rows = [Verdict(name, sample, said[name, sample], "t") for name, sample in order]
        store.write_jsonl(tmp_path / VERDICTS, rows)
        summary = grade_replies(task, task.examples("test"), tmp_path, tmp_path, tmp_path)
        found = {(o.example_id, o.sample): o.value for o in read_readings(tmp_path)}
        wanted = {("q0", 0): 1.0, ("q1", 0): 0.0, ("q2", 0): 1.0, ("q0", 1): None, ("q1", 1): None}
        assert found == wanted, "q0, sample 1 has no verdict: unscored"
        assert summary["unscored"] == 2
        assert sum(summary["outcomes"].values()) == 5


@pytest.mark.parametrize("grader", ["exact", "number", "judge"])
def test_what_a_filter_withheld_is_unscored_whatever_the_task(tmp_path: Path, grader: str) -> None:
    task = _jsonl_task(tmp_path, grader)
    rows = [Reply("q0", 0, "0", "stop", 1), Reply("q1", 0, "1", "filtered", 1),
            Reply("q2", 0, "", "filtered", 0)]  # fmt: skip
    store.write_jsonl(tmp_path / REPLIES, rows)
    items = task.examples("test")
    verdicts = None
    if task.judge is not None:
        summary = judge_replies(task.judge, items, tmp_path, tmp_path)
        assert sum(summary["labels"].values()) == 1, "there is nothing to judge"
        verdicts = tmp_path
    summary = grade_replies(task, items, tmp_path, verdicts, tmp_path)
    found = read_readings(tmp_path)
    assert [(o.value, o.outcome) for o in found[1:]] == [(None, "withheld")] * 2
    assert summary["outcomes"]["withheld"] == 2
    assert found[0].outcome != "withheld"


@pytest.mark.parametrize(
    ("grader", "of_nothing"), [("exact", 0.0), ("number", 0.0), ("judge", None)]
)
def test_what_was_thought_is_neither_graded_nor_judged(
    tmp_path: Path, grader: str, of_nothing: float | None
) -> None:
    task = _jsonl_task(tmp_path, grader)
    sorry = "I'm sorry, but I can't help with that."
    right = sorry if grader == "judge" else "1"
    rows = [
        Reply(
            "q1",
            0,
            f"<think>#### 7, {sorry[:-5]}? No: sure, here is how.</think>\n{right}",
            "stop",
            9,
        ),
        Reply("q1", 1, f"Sure, here is how: #### 7.\n</think>\n\n{right}", "stop", 9),
        Reply("q1", 2, f"<think>It is\n{right}", "length", 9),
        Reply("q1", 3, right, "stop", 9),
    ]
    store.write_jsonl(tmp_path / REPLIES, rows)
    items = task.examples("test")
    if task.judge is not None:
        judge_replies(task.judge, items, tmp_path, tmp_path)
    grade_replies(task, items, tmp_path, tmp_path if task.judge else None, tmp_path)
    found = read_readings(tmp_path)
    assert [one.value for one in found] == [1.0, 1.0, of_nothing, 1.0]
    assert [one.note == "cut off while thinking" for one in found] == [False, False, True, False]
    assert found[2].outcome == ("unsure" if grader == "judge" else "no answer")
    assert store.read_jsonl(tmp_path / REPLIES, Reply) == rows, "what is stored stays as it was"


def test_the_answer_alone_is_scored(tmp_path: Path) -> None:
    class Scores(ScriptedEngine):
        def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
            asked.extend(str(one.target) for one in examples)
            return super().token_nll(examples)

    asked: list[str] = []
    task = _jsonl_task(tmp_path, "exact")
    _replies(tmp_path, "<think>hm hm</think>\n\nso it is", "as it was", "<think>never")
    engine = Scores(lambda *_: "")
    pairs = paired(task.examples("test"), tmp_path)
    perplexity.measure(lambda: engine, pairs, tmp_path / "p", Silent())
    assert asked == ["so it is", "as it was"]


def test_a_summary_speaks_of_thinking_only_where_there_was_some() -> None:
    plain = [Reply("a", 0, "so", "stop", 4), Reply("b", 0, "", "length", 8)]
    assert summary_of(plain) == {"replies": 2, "cut_off": 1, "withheld": 0, "mean_tokens": 6.0}
    thought = [
        Reply("a", 0, "<think>\nx\n</think>\n\nso", "stop", 10, 8),
        Reply("b", 0, "<think>\nx", "length", 10, 10),
        Reply("c", 0, "so", "stop", 2),
    ]
    assert summary_of(thought)["thinking"] == {"in": 2, "cut_off": 1, "mean_tokens": 6.0}
    uncounted = [Reply("a", 0, "<think>x</think>so", "stop", 0)]
    assert summary_of(uncounted)["thinking"] == {"in": 1, "cut_off": 0, "mean_tokens": None}


def test_a_reply_to_nothing_stops_and_leaves_no_half_file(tmp_path: Path) -> None:
    task = _jsonl_task(tmp_path, "exact")
    _replies(tmp_path, "0", "1")
    examples = task.examples("test")[:1]
    with pytest.raises(DataError, match="'q1', which the task does not have"):
        grade_replies(task, examples, tmp_path, None, tmp_path)
    assert not (tmp_path / READINGS).exists()
    assert not list(tmp_path.glob(f".{READINGS}*")), "no temporary file is left"


CHILD = """
import json, resource, sys
from pathlib import Path
from holdfast import tasks
from holdfast.config import TaskSpec
from holdfast.grading.grade import grade_replies
folder = Path(sys.argv[1])
options = {"path": str(folder / "mine.jsonl"), "grader": "number"}
task = tasks.build("t", TaskSpec(kind="jsonl", **options), "s")
examples = task.examples("test")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
summary = grade_replies(task, examples, folder, None, folder / "out")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([summary["outcomes"], (after - before) * 1024]))
"""


def test_memory_does_not_grow_with_the_replies(tmp_path: Path) -> None:
    count, text = 5000, "so it is 1. " + "x" * 5000
    _jsonl_task(tmp_path, "number")
    rows = (Reply(f"q{i % 3}", i // 3, text, "stop", 1) for i in range(count))
    store.write_jsonl(tmp_path / REPLIES, rows)
    size = (tmp_path / REPLIES).stat().st_size
    assert size > 25e6
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    outcomes, grown = json.loads(done.stdout)
    assert sum(outcomes.values()) == count
    assert grown < size / 4, "the file is never held whole"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def _read(example: str, sample: int = 0, **ways: float) -> Reading:
    return Reading(example, sample, ways.get("kind", 0.0), "x", read_as=ways)


def test_shares_by_way_of_reading() -> None:
    one = [_read("a", kind=1, strict=0), _read("b", kind=1, strict=1), _read("c", kind=0, strict=0)]
    two = [_read("a", kind=1, strict=0), _read("b", kind=0, strict=0), _read("c", kind=0, strict=0)]
    found = by_way([one, two], ["a", "b", "c"])
    assert {way: share.mean for way, share in found.items()} == {
        "kind": pytest.approx(0.5), "strict": pytest.approx(1 / 6, abs=1e-6),
    }  # fmt: skip
    assert by_way([[Reading("a", 0, 1.0, "x")]], ["a"]) == {}
    twice = [_read("a", kind=1), _read("a", 1, kind=0)]
    assert by_way([twice], ["a"])["kind"].mean == 0.5


def test_the_table_of_readings() -> None:
    task = TaskInfo("maths", "target", "accuracy", 100, "greedy", False)
    other = TaskInfo("help", "retained", "helped", 100, "greedy", True)
    both = {"kind": Share(0.5, 0.4, 0.6, 100), "strict|": Share(0.125, 0.1, 0.2, 100)}
    turned = {"counted": Share(0.9, 0.8, 0.95, 100), "alone": Share(1.0, 0.97, 1.0, 100)}
    share = Share(0.5, 0.4, 0.6, 100)
    cells = tuple(
        Cell(arm, 0, name, share, read_as=read)
        for arm in ("base", "sft")
        for name, read in (("maths", both), ("help", turned if arm == "base" else {}))
    )
    arms = (ArmInfo("base", "untouched"), ArmInfo("sft", "plain"))
    results = Results("x", "m", (1,), "v", (task, other), arms, cells, {})
    maths, helped = ways(results)
    assert (maths.title, maths.names) == ("The same replies, two readings", ("kind", "strict|"))
    assert [(arm.name, spread) for arm, _, spread in maths.rows] == [
        ("base", "37.5"),
        ("sft", "37.5"),
    ]
    ((_, row, spread), (_, without, none)) = helped.rows
    assert [one.text if one else "" for one in row] == ["10.0\u202f%", "0.0\u202f%"], "turned round"
    assert (spread, without, none) == ("10.0", (None, None), "—")
    text = markdown.write(results)
    assert "### The same replies, two readings" in text
    assert "| Arm | kind | strict\\| | Spread |" in text
