"""Documents: read from all kinds of places, graded in bits per byte, kept apart from training."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast import tasks
from holdfast.config import TaskSpec
from holdfast.config.load import parse
from holdfast.data.leakage import LeakIndex
from holdfast.data.windows import TEXT
from holdfast.errors import DataError, HoldfastError, LeakError, StudyError
from holdfast.progress.translation import told
from holdfast.tasks.text import Text
from holdfast.types import Example, Message, Reply, SourceUse


def _task(**options: Any) -> Text:
    return Text(parse(Text.Options, options, "study.yaml"))


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder


def _texts(task: Text, split: str = "test") -> dict[str, str]:
    return {
        one.id: one.messages[-1].content if one.messages else one.target or ""
        for one in task.examples(split)
    }


def test_a_folder_of_text_files_is_read_however_deep_and_as_it_stands(tmp_path: Path) -> None:
    _write(
        tmp_path, b_dot_md="# Two\r\n\r\nend\n", a_dot_txt="\ufeffone",
        deep__er__and__c_dot_txt="x", _dot_hidden="no", image_dot_png="no",
    )  # fmt: skip
    (tmp_path / "z.txt.gz").write_bytes(gzip.compress(b"packed"))
    found = _texts(_task(path=str(tmp_path)))
    assert found == {
        "a.txt": "one", "b.md": "# Two\r\n\r\nend\n", "deep/er/and/c.txt": "x",
        "z.txt.gz": "packed",
    }  # fmt: skip


def test_test_and_train_in_the_names_of_documents_mean_nothing(tmp_path: Path) -> None:
    _write(tmp_path, train_journey_dot_txt="by rail", test_dot_txt="an exam")
    assert len(_task(path=str(tmp_path)).examples("test")) == 2


def test_rows_with_a_text_and_the_columns_that_are_ignored(tmp_path: Path) -> None:
    rows = [{"id": "a", "content": "one", "n": 1}, {"id": 7, "content": "two", "n": 2}]
    _write(tmp_path, x_dot_jsonl="".join(json.dumps(row) + "\n" for row in rows))
    task = _task(path=str(tmp_path / "x.jsonl"), columns={"text": "content"})
    assert _texts(task) == {"a": "one", "7": "two"}
    uses = {(one.column, one.use) for one in task.fields}
    assert uses == {("content", "text"), ("id", "id"), ("n", "ignored")}


def test_rows_win_over_the_readme_beside_them_which_is_said(tmp_path: Path) -> None:
    _write(tmp_path, x_dot_jsonl='{"text": "one"}\n{"text": "two"}\n', README_dot_md="# about")
    task = _task(path=str(tmp_path))
    assert list(_texts(task).values()) == ["one", "two"]
    (use,) = task.sources
    assert "1 text files are not read" in use.notes[0] and "README.md" in use.notes[0]
    other = _task(path={"path": str(tmp_path), "format": "text"})
    assert _texts(other) == {"README.md": "# about"}


def test_a_separator_divides_files_and_empty_documents_are_left_out_and_said(
    tmp_path: Path,
) -> None:
    _write(tmp_path, all_dot_txt="one\n---\n \n---\nthree", empty_dot_txt="  \n")
    task = _task(path=str(tmp_path), separator="---")
    assert _texts(task) == {"all.txt#1": "one\n", "all.txt#3": "\nthree"}
    assert task.sources[0].notes == (f"{tmp_path.parent.name}/{tmp_path.name}, split test: "
                                     "2 empty documents are left out",)  # fmt: skip


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_separator_divides_files_however_their_lines_end(tmp_path: Path, end: str) -> None:
    _write(tmp_path, all_dot_txt="one\ntwo\n\n\nthree\n\nfour".replace("\n", end))
    for separator in ("\n\n\n", "\r\n\r\n\r\n"):
        task = _task(path=str(tmp_path), separator=separator)
        assert list(_texts(task).values()) == [f"one{end}two", f"three{end}{end}four"]
        assert not task.sources[0].notes


def test_a_separator_that_divides_nothing_is_told(tmp_path: Path) -> None:
    _write(tmp_path, a_dot_txt="one\n\n\ntwo", b_dot_txt="three")
    (note,) = _task_read(tmp_path, "---").notes
    assert '`separator` "---" occurs in no file' in note and "quotes" not in note
    (note,) = _task_read(tmp_path, r"\n\n\n").notes
    assert note.endswith("each is one document (a line break is written in double quotes)")
    shown = told(note, "zh")
    assert "在所有文件中都没有出现" in shown and "换行要写在双引号中" in shown
    (tmp_path / "rows.jsonl").write_text('{"text": "a --- b"}\n', encoding="utf-8")
    assert "each row is a document" in _task_read(tmp_path / "rows.jsonl", "---").notes[0]


def _task_read(path: Path, separator: str) -> SourceUse:
    task = _task(path=str(path), separator=separator)
    task.examples("test")
    return task.sources[0]


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ({"x_dot_jsonl": '{"prompt": "q"}\n'}, {}, "has no `text` (its columns: prompt)"),
        ({"x_dot_jsonl": '{"text": 4}\n'}, {}, "is the number 4 where text is meant"),
        (
            {"x_dot_jsonl": '{"text": "a", "id": 1}\n{"text": "b", "id": 1}\n'},
            {},
            "two items of one",
        ),
        ({"x_dot_txt": "a\0b"}, {}, "NUL"),
        ({"x_dot_txt": "a"}, {"columns": {"text": "t"}}, "no split, configuration, field or"),
        ({"x_dot_png": "a"}, {}, "holds no file of rows"),
    ],
)
def test_what_is_no_text_is_refused(
    tmp_path: Path, files: dict[str, str], options: dict[str, Any], said: str
) -> None:
    _write(tmp_path, **files)
    with pytest.raises(HoldfastError) as caught:
        _task(path=str(tmp_path), **options).examples("test")
    assert said in str(caught.value)


def test_rows_and_other_tasks_do_not_read_whole_texts(tmp_path: Path) -> None:
    _write(tmp_path, x_dot_txt="a text")
    given = {"kind": "jsonl", "path": {"path": str(tmp_path / "x.txt"), "format": "text"}}
    task = tasks.build("mine", TaskSpec(**given), "study.yaml")
    with pytest.raises(DataError, match="one text as a whole"):
        task.examples("test")


def test_one_document_has_no_interval(tmp_path: Path) -> None:
    _write(tmp_path, x_dot_txt="alone")
    with pytest.raises(DataError, match="one document") as caught:
        _task(path=str(tmp_path)).self_check()
    assert "separator" in str(caught.value.remedy)


def test_a_stride_must_leave_context() -> None:
    with pytest.raises(StudyError, match="below window"):
        _task(path="x", window=8, stride=8)


@pytest.mark.parametrize("text", ["plain", "Größe: 3 µm", "日本語", "👩‍👩‍👧 family", "é"])
def test_bits_are_per_byte_of_utf_8(text: str) -> None:
    task = _task(path="x")
    item = Example("d", (Message("user", text),))
    nats, size = 12.5, len(text.encode("utf-8"))
    found = task.grade(item, Reply("d", 0, json.dumps([nats, 3, 0]), "stop", 0), None)
    assert found.value == pytest.approx(-nats / math.log(2) / size)
    assert found.outcome == "scored" and f"{size:,} bytes" in found.note


def test_a_tokenizer_of_another_grain_gives_the_same_figure() -> None:
    """A uniform model over 256 bytes, and one over 65,536 pairs of bytes: 8 bits a byte."""
    task, text = _task(path="x"), "日本語でも同じ" * 2
    item, size = Example("d", (Message("user", text),)), len(text.encode())
    for tokens, words in ((size, 256), (size // 2, 65_536)):
        said = json.dumps([tokens * math.log(words), tokens, 0])
        found = task.grade(item, Reply("d", 0, said, "stop", 0), None).value
        assert found == pytest.approx(-8.0)


def test_a_document_that_the_tokenizer_cannot_spell_is_unscored() -> None:
    item = Example("d", (Message("user", "zyzzyva"),))
    found = _task(path="x").grade(item, Reply("d", 0, "[3.0, 2, 1]", "stop", 0), None)
    assert found.value is None and found.outcome == "unknown characters"


WORDS = [f"word{n}" for n in range(4000)]


def _held(name: str, text: str) -> Example:
    return Example(name, (Message("user", text),), None, "", {TEXT: {}, "continue": "text"})


def _learned(text: str) -> Example:
    return Example("t", (), text)


def test_leaks_are_found_in_both_directions() -> None:
    held = " ".join(WORDS[1000:1400])
    leaks = LeakIndex([_held("held", held)])
    for text in (
        held,  # the same
        " ".join(WORDS[:4000]),  # a corpus that holds it
        " ".join(WORDS[1100:1160]),  # a part of it
        " ".join(WORDS[1010:1400] + WORDS[3000:3050]),
    ):
        with pytest.raises(LeakError, match="held"):
            leaks.refuse([_learned(text)], "here")
    for text in (
        " ".join(WORDS[2000:3000]),
        " ".join(WORDS[1000:1008]),  # too short to mean anything
        " ".join(WORDS[1300:1400] + WORDS[2000:2400]),  # a quarter of either
    ):
        leaks.refuse([_learned(text)], "here")


def test_a_question_or_an_answer_may_hold_a_text() -> None:
    held = " ".join(WORDS[1000:1400])
    leaks = LeakIndex([_held("held", held)])
    for said, answer in ((held, "yes"), ("recite", held)):
        with pytest.raises(LeakError):
            leaks.refuse([Example("t", (Message("user", said),), answer)], "here")


def test_ten_megabytes_are_read_and_compared_in_little_time(tmp_path: Path) -> None:
    line = " ".join(WORDS)
    text = "\n".join(f"{number} {line}" for number in range(320))
    assert len(text.encode()) > 10_000_000
    _write(tmp_path, big_dot_txt=text, small_dot_txt="another one")
    began = time.monotonic()
    documents = _task(path=str(tmp_path)).examples("test")
    assert [len(one.messages[-1].content) for one in documents] == [len(text), 11]
    leaks = LeakIndex(documents)
    assert leaks.find(_learned(text[5_000_000:6_000_000])) is not None
    assert leaks.find(_learned("nothing of it stands in there at all, not a single word")) is None
    assert time.monotonic() - began < 120
