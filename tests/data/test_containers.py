"""Files of every kind give the same rows; what is malformed is refused by file, row and column."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.timing import worked

from holdfast.data import containers
from holdfast.data.reading.files import READ, Shape
from holdfast.errors import DataError, MissingDependency

ROWS = [
    {"question": "Wie viel ist 2 + 3, bitte?", "answer": "5"},
    {"question": "Zwei\nZeilen\u2028und \"mehr\"", "answer": "ja;\tnein"},
    {"question": "数は？", "answer": "三"},
]  # fmt: skip


def _lines(rows: Any = ROWS, end: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


def _table(folder: Path, delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    path = folder / "table"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path.read_bytes()


def _arrow(folder: Path, kind: str) -> bytes:
    import pyarrow as arrow
    import pyarrow.feather
    import pyarrow.ipc
    import pyarrow.parquet

    table, path = arrow.Table.from_pylist(ROWS), folder / "arrow"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path)
    elif kind == "feather":
        pyarrow.feather.write_feather(table, str(path), compression="zstd")
    else:
        make = pyarrow.ipc.new_stream if kind == "stream" else pyarrow.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table)
    return path.read_bytes()


def _zstd(text: str, folder: Path) -> bytes:
    import pyarrow as arrow

    with arrow.CompressedOutputStream(str(folder / "packed"), "zstd") as stream:
        stream.write(text.encode())
    return (folder / "packed").read_bytes()


GOOD: dict[str, Callable[[Path], bytes]] = {
    "a.jsonl": lambda _: _lines().encode(),
    "a.ndjson": lambda _: _lines().encode("utf-8-sig"),
    "crlf.jsonl": lambda _: _lines(end="\r\n").encode(),
    "cr.jsonl": lambda _: _lines(end="\r").encode(),
    "open-end.jsonl": lambda _: _lines().rstrip().encode(),
    "blanks.jsonl": lambda _: ("\n\n" + _lines(end="\n \n")).encode(),
    "utf16.jsonl": lambda _: _lines().encode("utf-16"),
    "utf32.jsonl": lambda _: _lines().encode("utf-32"),
    "named.json": lambda _: _lines().encode(),
    "no_name": lambda _: _lines().encode(),
    "array.json": lambda _: json.dumps(ROWS).encode(),
    "pretty.json": lambda _: json.dumps(ROWS, indent=2).encode("utf-8-sig"),
    "array.jsonl": lambda _: json.dumps(ROWS, indent=1).encode(),
    "a.csv": _table,
    "bom.csv": lambda folder: _table(folder, encoding="utf-8-sig"),
    "utf16.csv": lambda folder: _table(folder, encoding="utf-16"),
    "a.tsv": lambda folder: _table(folder, "\t"),
    "a.jsonl.gz": lambda _: gzip.compress(_lines().encode()),
    "a.json.gz": lambda _: gzip.compress(json.dumps(ROWS).encode()),
    "a.csv.gz": lambda folder: gzip.compress(_table(folder)),
    "not-named-so.jsonl": lambda _: gzip.compress(_lines().encode()),
    "two-members.jsonl.gz": lambda _: b"".join(
        gzip.compress(_lines([row]).encode()) for row in ROWS
    ),
    "a.jsonl.bz2": lambda _: bz2.compress(_lines().encode()),
    "a.jsonl.xz": lambda _: lzma.compress(_lines().encode()),
    "a.jsonl.zst": lambda folder: _zstd(_lines(), folder),
    "a.csv.zst": lambda folder: _zstd(_table(folder).decode(), folder),
    "a.parquet": lambda folder: _arrow(folder, "parquet"),
    "named.bin": lambda folder: _arrow(folder, "parquet"),
    "a.arrow": lambda folder: _arrow(folder, "file"),
    "b.arrow": lambda folder: _arrow(folder, "stream"),
    "a.feather": lambda folder: _arrow(folder, "feather"),
}


@pytest.mark.parametrize("name", GOOD)
def test_the_same_rows_come_out_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD[name](tmp_path))
    found = list(containers.rows(path))
    assert [row.value for row in found] == ROWS
    assert found[0].where.startswith(str(path))
    if name not in ("blanks.jsonl",):
        assert [row.number for row in found] == [1, 2, 3]


def test_a_line_is_the_number_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    assert [(row.number, row.where) for row in containers.rows(path)] == [
        (2, f"{path}:2"), (4, f"{path}:4"),
    ]  # fmt: skip
    path = tmp_path / "a.csv"
    path.write_text('a\n"x\ny"\nz\n', encoding="utf-8")
    assert [(row.number, row.where) for row in containers.rows(path)] == [
        (1, f"{path}:2"), (2, f"{path}:4"),
    ]  # fmt: skip


def test_what_a_file_does_not_say_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question;answer\n1,5;2\n", encoding="utf-8")
    (row,) = containers.rows(path, Shape(delimiter=";"))
    assert row.value == {"question": "1,5", "answer": "2"}
    path = tmp_path / "a.txt"
    path.write_text("question,answer\na,b\n", encoding="utf-8")
    assert next(containers.rows(path, Shape("csv"))).value == {"question": "a", "answer": "b"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"about": {"n": 2}, "all": {"rows": ROWS}}), encoding="utf-8")
    assert [row.value for row in containers.rows(path, Shape(field="all.rows"))] == ROWS


def test_what_pandas_and_arrow_add_is_undone(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    path = tmp_path / "a.csv"
    path.write_text(",question\n0,q\n", encoding="utf-8")
    assert next(containers.rows(path)).value == {"Unnamed: 0": "0", "question": "q"}
    path = tmp_path / "a.parquet"
    turns = [[{"role": "user", "content": "q"}], [{"role": "tool", "content": "r", "name": "f"}]]
    table = arrow.table({"messages": turns, "note": [None, "n"]})
    pyarrow.parquet.write_table(table, path)
    assert [row.value for row in containers.rows(path)] == [
        {"messages": turns[0], "note": None}, {"messages": turns[1], "note": "n"},
    ]  # fmt: skip


def test_numbers_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": NaN, "b": ' + "9" * 4000 + "}\n", encoding="utf-8")
    (row,) = containers.rows(path)
    assert row.value["a"] != row.value["a"], "the reader of the row says what NaN is"
    assert row.value["b"] == int("9" * 4000)


TORN_GZIP = gzip.compress(_lines(ROWS * 50).encode())
BAD: list[tuple[str, bytes | str, str, str]] = [
    # name, content, where it ends with, what is said
    ("empty.jsonl", "", "empty.jsonl", "holds no rows"),
    ("blank.jsonl", "\n \n\t\n", "blank.jsonl", "holds no rows"),
    ("empty.csv", "", "empty.csv", "is empty"),
    ("header.csv", "question,answer\n", "header.csv", "holds no rows"),
    ("empty.json", "[]", "empty.json", "holds no rows"),
    ("empty.parquet", "", "empty.parquet", "named .parquet and is something else"),
    ("empty", "", "empty", "is empty"),
    ("a.txt", "some words\nmore words\n", "a.txt", "no known kind"),
    ("torn.jsonl", '{"a": "b"}\n{"a": "', "torn.jsonl:2", "not valid JSON"),
    ("comma.jsonl", '{"a": 1},\n{"a": 2}\n', "comma.jsonl:1", "Extra data at column 9"),
    ("two.jsonl", '{"a": 1} {"a": 2}\n', "two.jsonl:1", "Extra data"),
    ("python.jsonl", "{'a': 'b'}\n", "python.jsonl:1", "not valid JSON"),
    ("words.jsonl", '{"a": 1}\nhello\n', "words.jsonl:2", "not valid JSON"),
    ("nul.jsonl", '{"a": 1}\n\0\0\n', "nul.jsonl:2", "holds NUL bytes"),
    ("nul_in.jsonl", '{"a": "x\0y"}\n', "nul_in.jsonl:1", "holds NUL bytes"),
    ("twice.jsonl", '{"a": 1}\n{"q": 1, "q": 2}\n', "twice.jsonl:2", "key q twice"),
    ("deep_twice.jsonl", '{"m": [{"r": 1, "r": 1}]}\n', "deep_twice.jsonl:1", "key r twice"),
    ("esc.jsonl", '{"\\u001b[2J": 1, "\\u001b[2J": 2}\n', "esc.jsonl:1", r"key \\x1b\[2J twice"),
    ("huge.jsonl", '{"a": [{"b": ' + "1" * 5000 + "}]}\n", "huge.jsonl:1: a.0.b", "4,300 digits"),
    ("deep.jsonl", '{"a": ' + "[" * 200 + "]" * 200 + "}\n", "deep.jsonl:1", "nested more than"),
    ("deeper.jsonl", '{"a": ' + "[" * 200_000 + "\n", "deeper.jsonl:1", "nested more than"),
    ("half.jsonl", '{"a": {"b": "\\ud83d"}}\n', "half.jsonl:1: a.b", "half of a surrogate pair"),
    ("half_key.jsonl", '{"\\ud83d": "b"}\n', "half_key.jsonl:1", "half of a surrogate pair"),
    ("latin.jsonl", '{"a": "b"}\n{"a": "é"}\n'.encode("latin-1"), "latin.jsonl:2: a", "byte 0xe9"),
    ("gbk.jsonl", '{"答": "数"}\n'.encode("gbk"), "gbk.jsonl:1", "not UTF-8"),
    ("utf16_bare.jsonl", _lines().encode("utf-16-le"), "utf16_bare.jsonl", "UTF-16 without"),
    ("utf16_torn.jsonl", _lines().encode("utf-16")[:-1], "utf16_torn.jsonl", "not UTF-16 text"),
    ("wrapped.json", '{"data": [{"a": 1}]}', "wrapped.json", "under its key data"),
    ("pretty.json", '{\n "rows": [\n  {"a": 1}\n ]\n}', "pretty.json", "under its key rows"),
    ("columns.json", '{\n "a": [1],\n "b": [2]\n}', "columns.json", "one object, not rows"),
    ("spread.json", '{\n "a": 1\n}\n{\n "a": 2\n}\n', "spread.json", "more than one JSON value"),
    ("array.json", '[{"a": 1}, {"a": 2}', "array.json, row 2", "the file ends where"),
    ("array2.json", '[{"a": 1} {"a": 2}]', "array2.json, row 1", "where `,` or"),
    ("array3.json", '[{"a": 1},\n {"a": }]', "array3.json, row 2", "at line 2, column 8"),
    ("array4.json", '[{"a": 1}] more', "array4.json", "goes on after its array"),
    ("array5.json", '[{"a": 1},]', "array5.json, row 2", "not valid JSON"),
    ("arrays.jsonl", '["a"]\n["b"]\n', "arrays.jsonl", "goes on after its array"),
    ("semicolon.csv", "a;b\n1;2\n", "semicolon.csv:1", "separated by ';'"),
    ("tabs.csv", "a\tb\n1\t2\n", "tabs.csv:1", "separated by"),
    ("commas.tsv", "a|b\n1|2\n", "commas.tsv:1", "separated by"),
    ("dup.csv", "a,b,a\n1,2,3\n", "dup.csv:1", "column a twice"),
    ("few.csv", "a,b,c\n1,2,3\n1,2\n", "few.csv:3: c", "2 cells for 3 columns"),
    ("many.csv", "a,b\n1,2\n1,2,3\n", "many.csv:3, column 3", "3 cells for 2 columns"),
    ("nul.csv", "a,b\n1,x\0y\n", "nul.csv:2: b", "NUL byte"),
    ("latin.csv", "a,b\n1,é\n".encode("latin-1"), "latin.csv:2: b", "byte 0xe9"),
    ("quote.csv", 'a,b\n1,2\n1,"open\nstill\n', "quote.csv:3", "never closed"),
    ("quotes.csv", 'a,b\n1,"x"y\n', "quotes.csv:2", "is no CSV"),
    ("esc.csv", "\x1b[31mred,\x1b[31mred\n1,2\n", "esc.csv:1", r"\\x1b\[31mred twice"),
    ("noise.csv", bytes(range(256)) * 8, "noise.csv", "is binary"),
    ("torn.jsonl.gz", TORN_GZIP[:-20], "torn.jsonl.gz", "torn or damaged"),
    ("flipped.gz", TORN_GZIP[:40] + b"\xff" + TORN_GZIP[41:], "flipped.gz", "damaged|not UTF-8"),
    ("a.jsonl.bz2", bz2.compress(b"x" * 999)[:-9], "a.jsonl.bz2", "torn or damaged"),
    ("a.jsonl.xz", lzma.compress(b"x" * 999)[:-9], "a.jsonl.xz", "torn or damaged"),
    ("a.zst", b"\x28\xb5\x2f\xfd" + b"junk" * 9, "a.zst", "torn or damaged"),
    ("a.parquet", b"PAR1" + b"\0" * 30, "a.parquet", "cannot be read as parquet"),
    ("a.arrow", b"ARROW1\0\0" + b"\0" * 30, "a.arrow", "cannot be read as arrow"),
    ("s.arrow", b"\xff\xff\xff\xff\x10\0\0\0" + b"\0" * 30, "s.arrow", "cannot be read as arrow"),
    ("p.parquet", '{"a": 1}x', "p.parquet:1", "not valid JSON"),
    ("a.xlsx", b"PK\x03\x04junk", "a.xlsx", "zip archive or a spreadsheet"),
    ("a.pdf", b"%PDF-1.7", "a.pdf", "is a PDF"),
    ("a.pkl", b"\x80\x04\x95", "a.pkl", "is a pickle"),
    ("a.db", b"SQLite format 3\0", "a.db", "SQLite"),
    ("a.parquet.gz", gzip.compress(b"PAR1" + b"x" * 9), "a.parquet.gz", "parquet within gzip"),
]


@pytest.mark.parametrize(("name", "content", "where", "said"), BAD, ids=[one[0] for one in BAD])
def test_what_is_malformed_is_refused(
    name: str, content: bytes | str, where: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=said) as caught:
        list(containers.rows(path))
    assert caught.value.where.endswith(where), caught.value.where
    assert caught.value.remedy
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_torn_table_is_refused(kind: str, tmp_path: Path) -> None:
    whole = _arrow(tmp_path, kind)
    for cut in (8, len(whole) // 2):
        path = tmp_path / f"cut{cut}"
        path.write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"cannot be read as|breaks off") as caught:
            list(containers.rows(path))
        assert "copy it again" in caught.value.remedy or "again" in caught.value.remedy


def test_a_table_that_names_a_column_twice(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.ipc

    table = arrow.Table.from_arrays([arrow.array(["x"])] * 2, names=["a", "a"])
    with pyarrow.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="names the column a twice"):
        list(containers.rows(tmp_path / "a.arrow"))


def test_a_field_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"data": {"rows": 1}}', encoding="utf-8")
    for field, said in (("rows", "has no key rows"), ("data.rows", "holds no list under")):
        with pytest.raises(DataError, match=said):
            list(containers.rows(path, Shape(field=field)))


def _special(kind: str, path: Path) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")


@pytest.mark.skipif(sys.platform == "win32", reason="of POSIX")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("fifo", "pipe, a socket or a device"),
        ("socket", "pipe, a socket or a device"),
        ("device", "pipe, a socket or a device"),
        ("folder", "is a folder"),
        ("loop", "cannot be read"),
        ("missing", "No such file"),
    ],
)
def test_what_is_no_file_is_refused_and_never_waited_for(
    kind: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    _special(kind, Path("x.jsonl"))
    with pytest.raises(DataError, match=said) as caught:
        list(containers.rows(Path("x.jsonl")))
    assert caught.value.remedy


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    for path, hint in (
        (tmp_path / "trian.jsonl", "did you mean train.jsonl"),
        (tmp_path / "owner/name", "a set on the hub is written hub: owner/name"),
        (Path("https://x.org/a.jsonl"), "hub: owner/name"),
        (Path("a" * 5000), "check the path"),
        (Path("a\0b"), "check the path"),
        (Path("\ud800"), "check the path"),
    ):
        with pytest.raises(DataError) as caught:
            list(containers.rows(path))
        assert hint in caught.value.remedy, path
        assert "\0" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch(mode=0)
    with pytest.raises(DataError, match="Permission denied"):
        list(containers.rows(path))


def test_without_pyarrow_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match="pyarrow") as caught:
        list(containers.rows(tmp_path / "a.parquet"))
    assert "pip install" in caught.value.remedy


def test_a_hundred_thousand_rows_take_little_time_and_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "a.jsonl"
    row = json.dumps({"question": "q" * 200, "answer": "a" * 200}) + "\n"
    path.write_text(row * 20_000, encoding="utf-8")
    tracemalloc.start()
    for _ in zip(containers.rows(path), range(2_000), strict=False):
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20, "read as they come"
    counted: list[int] = []
    assert worked(lambda: counted.append(sum(1 for _ in containers.rows(path)))) < 2
    assert counted == [20_000]


def test_the_formats_are_named_in_one_sentence() -> None:
    for kind in ("JSON Lines", "JSON array", "CSV", "TSV", "gzip", "zstd", "Parquet", "Arrow"):
        assert kind in READ
