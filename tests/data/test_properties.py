"""Whatever rows, files and templates hold: they are read, or a typed error names the place."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.hostile import BROKEN_TEMPLATES, FILES, TEMPLATES
from hypothesis import given
from hypothesis import strategies as st

from holdfast import tasks
from holdfast.config import TaskSpec
from holdfast.data import containers
from holdfast.data.formats import conversation
from holdfast.data.templates import EndlessTemplate, compiled
from holdfast.errors import HoldfastError, ModelError, UsageError

KEYS = [
    "question", "answer", "prompt", "completion", "messages", "conversations", "role", "content",
    "from", "value", "id", "system", "tools", "history", "text", "instruction", "input", "output",
    "chosen", "rejected", "weight", "images", "tool_calls", "function", "name", "arguments", "type",
    "user", "assistant", "human", "gpt",
]  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_subnormal=False)
    | st.text(max_size=9)
    | st.sampled_from(KEYS)
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=10,
)
TURNS = st.fixed_dictionaries({"messages": st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]) | LEAVES,
                           "content": JSON}), max_size=3)})  # fmt: skip
ROWS = JSON | TURNS | st.dictionaries(st.sampled_from(KEYS), LEAVES, max_size=4)


def _is_typed(error: HoldfastError) -> bool:
    return error.exit_code == 3 and bool(error.where and error.remedy)


@given(ROWS)
def test_any_row_is_a_conversation_or_a_typed_error(row: Any) -> None:
    try:
        found = conversation(row, "f.jsonl:1")
    except HoldfastError as error:
        assert _is_typed(error), repr(error)
    else:
        assert all(isinstance(one.content, str) for one in found.messages)
        assert found.target is None or isinstance(found.target, str)


@given(st.lists(ROWS, max_size=3))
def test_any_rows_in_a_file(tmp_path: Path, rows: list[Any]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values = {"kind": "jsonl", "path": str(file), "train_path": str(file)}
    task = tasks.build("mine", TaskSpec.model_validate(values), "study.yaml")
    try:
        found = task.examples("train")
    except HoldfastError as error:
        assert _is_typed(error), repr(error)
    else:
        assert len(found) == len(rows)


@given(st.binary(max_size=200), st.sampled_from(["jsonl", "json", "csv", "tsv", "jsonl.gz"]))
def test_any_bytes_in_a_file(tmp_path: Path, data: bytes, ending: str) -> None:
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(data)
    try:
        list(containers.rows(file))
    except HoldfastError as error:
        assert _is_typed(error), repr(error)


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(st.lists(
    st.dictionaries(PLAIN, PLAIN | st.integers() | st.booleans(), min_size=1, max_size=3),
    max_size=3,
))  # fmt: skip
def test_json_lines_say_what_was_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if rows:
        assert [row.value for row in containers.rows(file)] == rows


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=4))
def test_a_csv_says_what_was_written(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    page = io.StringIO()
    writer = csv.writer(page, quoting=csv.QUOTE_ALL)
    writer.writerows([("question", "answer"), *rows])
    file = tmp_path / "rows.csv"
    file.write_bytes(page.getvalue().encode())
    wanted = [{"question": first, "answer": second} for first, second in rows]
    assert [row.value for row in containers.rows(file)] == wanted


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused_by_their_place(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name]())
    values = {"kind": "jsonl", "path": str(tmp_path / name), "train_path": str(tmp_path / name)}
    task = tasks.build("mine", TaskSpec.model_validate(values), "study.yaml")
    with pytest.raises(UsageError) as caught:
        task.examples("train")
    assert name in caught.value.where and caught.value.remedy


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_without_end_are_stopped(name: str) -> None:
    template = compiled(TEMPLATES[name], "2024-07-26")
    with pytest.raises(EndlessTemplate):
        template.render({"messages": []})


@pytest.mark.parametrize("name", BROKEN_TEMPLATES)
def test_templates_that_cannot_be_read(name: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        compiled(BROKEN_TEMPLATES[name], "2024-07-26")


def test_bounds_leave_what_templates_do_as_it_is() -> None:
    text = (
        "{{ 'a' ~ 1 ~ none }}|{{ 'a,b'.split(',')|join(';') }}|{{ '%s-%d' % ('1234567', 3) }}|"
        "{{ 'x1234567'.replace('1', '22') }}|{{ {'a': [1]}|tojson(indent=2) }}|{{ 'q'|center(5) }}|"
        "{{ 'abc'|replace('b', 'c') }}|{{ [1] + [2] }}|{{ 2 ** 3 * 4 }}|{{ '{:>3}'.format(7) }}"
    )
    found, _ = compiled(text, "2024-07-26").render({})
    assert found == (
        'a1None|a;b|1234567-3|x22234567|{\n  "a": [\n    1\n  ]\n}|  q  |acc|[1, 2]|32|  7'
    )
