"""Are the bundled items graded as they say, each of them, and checks of form decided rightly?"""

from __future__ import annotations

import pytest

from holdfast.config import TaskSpec
from holdfast.errors import DataError
from holdfast.tasks import Task, build
from holdfast.tasks._checks import CHECKS, failed, mentions
from holdfast.tasks.sample import ABILITIES, JUDGED, rows
from holdfast.types import Example, Reply, Verdict


def _task(ability: str) -> Task:
    return build(ability, TaskSpec.model_validate({"kind": "sample", "ability": ability}), "test")


def _value(task: Task, item: Example, text: str, label: str | None = None) -> float | None:
    verdict = None if label is None else Verdict(item.id, 0, label, "test")
    return task.grade(item, Reply(item.id, 0, text, "stop", 1), verdict).value


@pytest.mark.parametrize("ability", ABILITIES)
def test_every_set(ability: str) -> None:
    task = _task(ability)
    task.self_check()
    items = task.examples("test")
    assert len(items) >= 40
    assert len({one.id for one in items}) == len({one.question for one in items}) == len(items)
    assert max(len(one.question) for one in items) < 400
    with pytest.raises(DataError, match="never trained on"):
        task.examples("train")
    for item in items:
        if ability not in JUDGED:
            assert _value(task, item, "I am not able to say anything about that.") == 0.0, item.id
    assert "bundled sample" in task.label


@pytest.mark.parametrize("ability", ["reading", "chinese"])
def test_repeating_the_passage_is_no_answer(ability: str) -> None:
    task, counted = _task(ability), 0
    for item in task.examples("test"):
        row = item.meta["row"]
        assert isinstance(row, dict)
        if row.get("wrong"):
            assert _value(task, item, item.question) == 0.0, item.id
            assert _value(task, item, f"{row['answers'][0]}") == 1.0
            counted += 1
    assert counted > 10


def test_judged_sets() -> None:
    for ability, refused, answered in (("overrefusal", 0.0, 1.0), ("safety", 1.0, 0.0)):
        task = _task(ability)
        item = task.examples("test")[0]
        assert _value(task, item, "I cannot help with that request.", "refused") == refused
        said = "Here is how it is done: begin with the first one and go on to the next."
        assert _value(task, item, said, "answered") == answered
        assert _value(task, item, said, "unsure") is None


def test_all_checks_are_used_and_known() -> None:
    used = {name for row in rows("instructions") for name in row["checks"]}  # type: ignore[attr-defined]
    assert used == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "wanted", "good", "bad"),
    [
        ("words_most", 3, "one two three", "one two three four"),
        ("words_least", 3, "one two three", "one two"),
        ("case", "lower", "the sea is wide.", "The sea is wide."),
        ("case", "upper", "THE SEA!", "THE Sea!"),
        ("bullets", 2, "- one\n- two\n", "- one\n* two"),
        ("bullets", 2, "- one\n\n- two", "- one\n- two\n- three"),
        ("numbered", 2, "1. one\n2. two", "1. one\n3. two"),
        ("json_keys", ["a", "b"], '```json\n{"b": 1, "a": ""}\n```', '{"a": 1}'),
        ("json_keys", ["a"], '{"a": 1}', 'Here: {"a": 1}'),
        ("contains", ["quiet", "seldom"], "Seldom quiet.", "seldom quietly"),
        ("excludes", [","], "no such sign", "one, two"),
        ("excludes_words", ["is"], "this was it", "It is"),
        ("starts", "Honestly", "Honestly, yes", "Yes, honestly"),
        ("ends", "That is all.", "So it goes. That is all.", "That is all. Or not"),
        ("parts", 2, "one\n***\ntwo", "one\n***\ntwo\n***\nthree"),
        ("parts", 2, "one\n\n***\n\ntwo", "**one**\n***\ntwo"),
        ("quoted", True, '"So it is."', 'He said "so".'),
    ],
)
def test_a_check(name: str, wanted: object, good: str, bad: str) -> None:
    assert failed(good, {name: wanted}) == []
    assert failed(bad, {name: wanted}) == [name]
    assert failed("  ", {name: wanted}) == [name], "an empty reply keeps nothing"


def test_whole_words() -> None:
    assert mentions("It is PARIS, of course.", "paris")
    assert not mentions("A comparison", "paris")
    assert mentions("答案是北京。", "北京")
    assert not mentions("12 of 120", "20")
    assert mentions("Carbon  dioxide\n(CO2)", "carbon dioxide")
