"""Sources of a study: columns, shares and counts, folders, hub sets, and what became of columns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast import tasks
from holdfast.config import SourceSpec, TaskSpec, load
from holdfast.data import folders, hub, sources
from holdfast.errors import DataError, HoldfastError, MissingDependency, StudyError
from holdfast.types import FieldUse, SourceUse


def _write(path: Path, count: int, **more: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{path.stem} {i}?", "answer": str(i), **more} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), path)


def _task(**options: Any) -> tasks.Task:
    spec = TaskSpec.model_validate({"kind": "jsonl", **options})
    return tasks.build("mine", spec, "study.yaml")


def _opened(*specs: dict[str, Any]) -> list[sources.Source]:
    return sources.opened([SourceSpec.model_validate(one) for one in specs], "train")


def _counts(rows: list[int], *shares: dict[str, Any]) -> list[int]:
    opened = _opened(*({"path": f"{i}.jsonl", **one} for i, one in enumerate(shares)))
    return [len(taken) for taken in sources.drawn(opened, rows, 1)]


@pytest.mark.parametrize(
    ("rows", "shares", "taken"),
    [
        ([30], [{}], [30]),
        ([30, 40], [{}, {}], [30, 40]),
        ([30, 40], [{}, {"count": 5}], [30, 5]),
        ([75, 40], [{}, {"share": 0.25}], [75, 25]),
        ([60, 99, 99], [{}, {"share": 0.3}, {"share": 0.1}], [60, 30, 10]),
        ([60, 99, 99], [{"count": 50}, {"share": 0.25}, {"share": 0.25}], [50, 25, 25]),
        ([100, 20], [{"share": 0.5}, {"share": 0.5}], [20, 20]),
        ([30, 100, 50], [{"share": 0.1}, {"share": 0.6}, {"share": 0.3}], [17, 100, 50]),
        ([7], [{"share": 1.0}], [7]),
    ],
)
def test_shares_are_of_the_whole(
    rows: list[int], shares: list[dict[str, Any]], taken: list[int]
) -> None:
    assert _counts(rows, *shares) == taken


@pytest.mark.parametrize(
    ("rows", "shares", "error", "said"),
    [
        ([30, 0], [{}, {}], DataError, "holds nothing to take"),
        ([30, 40], [{}, {"share": 0.9}], DataError, "has 40 rows, and a share of 0.9 is 270 rows"),
        ([30, 4], [{}, {"count": 5}], DataError, "has 4 rows, and `count` asks for 5"),
        ([3, 40], [{}, {"share": 0.01}], DataError, "comes to no row"),
        ([30, 40], [{}, {"share": 1.0}], StudyError, "leaves nothing for the sources without"),
        ([30, 40], [{"share": 0.5}, {"share": 0.4}], StudyError, "add up to 0.9, not 1"),
        ([30, 40], [{"share": 0.5}, {"share": 0.7}], StudyError, "add up to 1.2, not 1"),
    ],
)
def test_shares_that_cannot_be(
    rows: list[int], shares: list[dict[str, Any]], error: type[HoldfastError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        _counts(rows, *shares)
    assert caught.value.where
    assert caught.value.remedy


def test_the_drawing_is_by_seed_and_keeps_the_order() -> None:
    opened = _opened({"path": "a.jsonl", "count": 10})
    first, again, other = (sources.drawn(opened, [1000], seed)[0] for seed in (1, 1, 2))
    assert first == again == sorted(set(first))
    assert first != other
    whole = sources.drawn(_opened({"path": "a.jsonl"}), [9], 5)
    assert whole == [list(range(9))]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "one of them"),
        ({"path": "a", "hub": "a/b"}, "one of them"),
        ({"path": "a", "share": 0.1, "count": 3}, "not both"),
        ({"path": "a", "share": 0}, "greater than 0"),
        ({"path": "a", "share": 1.5}, "less than or equal to 1"),
        ({"path": "a", "count": 0}, "greater than or equal to 1"),
        ({"path": "a", "revision": "main"}, "`revision` is of a `hub` set"),
        ({"hub": "a/b", "format": "csv"}, "of a `path`"),
        ({"hub": "./data/a"}, "no name of a set on the hub"),
        ({"hub": "a/b/c.jsonl"}, "no name of a set on the hub"),
        ({"path": "a", "delimiter": "ab"}, "at most 1 character"),
    ],
)
def test_sources_that_are_none(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SourceSpec.model_validate(spec)


def test_a_wrong_key_of_a_source_is_named() -> None:
    with pytest.raises(
        StudyError, match=r"path\.1\.shares: unknown key \(did you mean 'share'\?\)"
    ):
        _task(path=["a.jsonl", {"path": "b.jsonl", "shares": 0.2}])


def test_paths_in_lists_and_mappings_are_the_study_files(tmp_path: Path) -> None:
    given = {
        "train_path": ["data/a.jsonl", {"path": "b.csv", "columns": {"path": "p", "id": "data"}},
                       {"hub": "owner/name"}],
        "path": {"path": "c"},
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "owner/name").mkdir(parents=True)
    found = load.anchored(given, tmp_path)
    assert found == {
        "train_path": [
            str(tmp_path / "data/a.jsonl"),
            {"path": str(tmp_path / "b.csv"), "columns": {"path": "p", "id": "data"}},
            {"hub": "owner/name"},
        ],
        "path": {"path": str(tmp_path / "c")},
    }


def test_a_task_reads_several_sources(tmp_path: Path) -> None:
    a = _write(tmp_path / "a.jsonl", 6, context="c")
    (tmp_path / "b.csv").write_text(
        "frage,antwort,lang\n" + "".join(f"b {i}?,{i},de\n" for i in range(9)), encoding="utf-8"
    )
    _parquet(
        tmp_path / "c.parquet",
        [{"q": {"text": f"c {i}?", "lang": "en"}, "a": [{"text": str(i)}]} for i in range(4)],
    )
    german = {"prompt": "frage", "completion": "antwort"}
    inner = {"prompt": "q.text", "completion": "a.0.text"}
    task = _task(
        path=a,
        train_path=[
            a,
            {"path": str(tmp_path / "b.csv"), "share": 0.25, "columns": german},
            {"path": str(tmp_path / "c.parquet"), "count": 3, "columns": inner},
        ],
    )
    found = task.examples("train")
    assert [one.source for one in found] == (
        ["a.jsonl:train"] * 6 + ["b.csv:train"] * 3 + ["c.parquet:train"] * 3
    )
    assert [one.id for one in found[:6]] == [f"train-{i}" for i in range(1, 7)]
    assert {one.id.partition(":")[0] for one in found[6:]} == {"b.csv", "c.parquet"}
    assert len({one.id for one in found}) == 12
    for one in found[6:]:
        name, number = one.question.rstrip("?").split()
        assert one.source.startswith(name)
        assert one.target == number
        assert one.id.endswith(f"train-{int(number) + 1}")
    assert task.examples("train") == found
    at = tmp_path.name
    assert task.sources == (
        SourceUse(f"{at}/a.jsonl", "train", 6, 6),
        SourceUse(f"{at}/b.csv", "train", 9, 3),
        SourceUse(f"{at}/c.parquet", "train", 4, 3),
    )
    uses = {(one.source.partition("/")[2], one.column, one.use) for one in task.fields}
    assert {one for one in uses if one[0] != "a.jsonl"} == {
        ("b.csv", "frage", "prompt"), ("b.csv", "antwort", "completion"),
        ("b.csv", "lang", "ignored"), ("c.parquet", "q.text", "prompt"),
        ("c.parquet", "q.lang", "ignored"), ("c.parquet", "a.0.text", "completion"),
    }  # fmt: skip
    assert FieldUse(f"{at}/b.csv", "lang", "ignored", 9) in task.fields
    said = sources.notices(task.fields, task.sources)
    assert f"{at}/b.csv: column `lang` is ignored (9 rows)" in said


def test_ids_stay_unique_over_sources(tmp_path: Path) -> None:
    same = [_write(tmp_path / name / "a.jsonl", 2) for name in "xy"]
    (tmp_path / "z.jsonl").write_text('{"id": "7", "question": "q", "answer": "a"}\n')
    found = _task(path=same[0], train_path=[*same, str(tmp_path / "z.jsonl")]).examples("train")
    assert [one.id for one in found] == [
        "train-1", "train-2", "a.jsonl#2:train-1", "a.jsonl#2:train-2", "z.jsonl:7",
    ]  # fmt: skip
    (tmp_path / "n.jsonl").write_text('{"id": null, "question": "q", "answer": "a"}\n' * 2)
    ids = [one.id for one in _task(path=str(tmp_path / "n.jsonl")).examples("test")]
    assert ids == ["test-1", "test-2"]


def test_columns_of_the_task_hold_for_all_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        row = {"q": f"{name}?", "a": "1"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    paths = {"path": str(tmp_path / "a.jsonl"), "train_path": str(tmp_path / "b.jsonl")}
    task = _task(**paths, columns={"question": "q", "answer": "a"})
    assert [(one.question, one.target) for one in task.examples("test")] == [("a?", "1")]
    assert [(one.question, one.target) for one in task.examples("train")] == [("b?", "1")]


def test_columns_may_be_swapped_and_replaced(tmp_path: Path) -> None:
    row = {"question": "an answer", "answer": "a question?", "prompt": "old"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    task = _task(
        path=str(tmp_path / "a.jsonl"), columns={"question": "answer", "answer": "question"}
    )
    (one,) = task.examples("test")
    assert (one.question, one.target) == ("a question?", "an answer")
    assert [use.column for use in task.fields if use.use == "ignored"] == ["prompt"]


@pytest.mark.parametrize(
    ("columns", "said", "where"),
    [
        (
            {"prompt": "questio"},
            r"no column questio .*did you mean 'question'",
            "a.jsonl:1: questio",
        ),
        ({"prompt": "question.x"}, "no column question.x", "a.jsonl:1: question.x"),
        ({"promt": "question", "completion": "answer"}, "these columns|forms|promt", "a.jsonl"),
        ({"question": "question", "mood": "m"}, "mood is no column that is read", "a.jsonl"),
    ],
)
def test_columns_that_are_not_there(
    columns: dict[str, str], said: str, where: str, tmp_path: Path
) -> None:
    path = _write(tmp_path / "a.jsonl", 2, m="x")
    with pytest.raises(DataError, match=said) as caught:
        _task(path=path, columns=columns).examples("test")
    assert where in caught.value.where
    assert "columns" in caught.value.remedy


def test_the_group_counts_as_used_and_must_be_there(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", 2, kind="k", id=None)
    task = _task(path=path, group="kind")
    task.examples("test")
    assert {one.use for one in task.fields} == {"question", "answer", "kind"}
    with pytest.raises(DataError, match="`knd`"):
        _task(path=path, group="knd").examples("test")


HUB_STYLE = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
             "data/test-00000-of-00001.parquet", "README.md")  # fmt: skip


def _folder(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = root / name
        if path.suffix == ".parquet":
            _parquet(path, [{"question": f"{name} {number}?", "answer": "1"}])
        else:
            _write(path, 1)
    return root


@pytest.mark.parametrize(
    ("names", "split", "config", "found"),
    [
        (("b.jsonl", "a.jsonl"), "test", None, ["a.jsonl", "b.jsonl"]),
        (HUB_STYLE, "train", None, list(HUB_STYLE[:2])),
        (HUB_STYLE, "test", None, [HUB_STYLE[2]]),
        (("train.jsonl", "test.jsonl"), "test", None, ["test.jsonl"]),
        (("my_train.jsonl", "my-dev.jsonl"), "validation", None, ["my-dev.jsonl"]),
        (("train/x.jsonl", "test/x.jsonl"), "train", None, ["train/x.jsonl"]),
        (("test_sft-00000-of-00001.parquet", "train_sft-00000-of-00001.parquet"), "test", None,
         ["test_sft-00000-of-00001.parquet"]),
        (("odd-00000-of-00001.parquet",), "odd", None, ["odd-00000-of-00001.parquet"]),
        (("main/train.jsonl", "easy/train.jsonl"), "train", "easy", ["easy/train.jsonl"]),
        (("latest.jsonl", "contest.jsonl"), "train", None, ["contest.jsonl", "latest.jsonl"]),
    ],
)  # fmt: skip
def test_the_files_of_a_split(
    names: tuple[str, ...], split: str, config: str | None, found: list[str], tmp_path: Path
) -> None:
    root = _folder(tmp_path, *names)
    files, _ = folders.files_of(root, split, config)
    assert [str(path.relative_to(root)) for path in files] == found


@pytest.mark.parametrize(
    ("names", "split", "config", "said"),
    [
        ((), "train", None, "holds no file of rows"),
        (("README.md", ".hidden.jsonl"), "train", None, "holds no file of rows"),
        (("train.jsonl",), "test", None, "no split test; it has train"),
        (("a.jsonl", "b.parquet"), "train", None, "several kinds: a.jsonl"),
        (("main/train.jsonl", "easy/train.jsonl"), "train", None, "configurations easy, main"),
        (("main/train.jsonl",), "train", "mian", "no configuration mian; its folders: main"),
        (("main/train.jsonl",), "train", "../x", "no configuration"),
        (HUB_STYLE[:1], "train", None, "lacks part 00001 of 2"),
    ],
)
def test_folders_that_are_refused(
    names: tuple[str, ...], split: str, config: str | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        folders.files_of(_folder(tmp_path, *names), split, config)
    assert caught.value.remedy
    assert str(tmp_path) in caught.value.where


def test_a_folder_as_a_source(tmp_path: Path) -> None:
    task = _task(path={"path": str(_folder(tmp_path, *HUB_STYLE, "more.jsonl"))},
                 train_path=str(tmp_path))  # fmt: skip
    assert [one.id for one in task.examples("train")] == ["train-1", "train-2"]
    assert [one.question for one in task.examples("test")] == [f"{HUB_STYLE[2]} 2?"]
    assert task.sources[0].source == f"{tmp_path.parent.name}/{tmp_path.name}, split train"
    assert task.sources[0].notes == (
        f"{tmp_path.name}: not read, for no split is named: more.jsonl",
    )
    with pytest.raises(StudyError, match="is a file, which has neither splits"):
        _task(path={"path": _write(tmp_path / "x.jsonl", 1), "split": "train"}).examples("test")


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
             "label": i} for i in range(5)]  # fmt: skip
    made = datasets.Dataset.from_list(rows)
    made.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": made, "test": made.select(range(2))}).save_to_disk(
        tmp_path / "d"
    )
    for path, split, count in (("one", "train", 5), ("d", "train", 5), ("d", "test", 2)):
        task = _task(path=str(tmp_path / path), train_path=str(tmp_path / path))
        found = task.examples(split)
        assert [one.target for one in found] == ["a"] * count
        assert found[0].messages[0].content == "q"
    with pytest.raises(DataError, match="no split validation; it has train, test"):
        _task(path={"path": str(tmp_path / "d"), "split": "validation"}).examples("test")
    (tmp_path / "one/state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(DataError, match="names no data files of its folder"):
        folders.files_of(tmp_path / "one", "train")
    (tmp_path / "one/state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        folders.files_of(tmp_path / "one", "train")


class _Hub:
    """Stands for `datasets.load_dataset`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]] | None) -> None:
        self.asked: list[Any] = []
        self.rows = rows
        module = ModuleType("datasets")
        module.load_dataset = self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)

    def __call__(self, *names: Any, **options: Any) -> Any:
        import pyarrow as arrow

        self.asked.append((names, options))
        if self.rows is None:
            raise ConnectionError("no way\x1b[31m there\nand more")
        table = arrow.Table.from_pylist(self.rows)
        held = type("Held", (), {"table": table})()
        return type("Set", (), {"with_format": lambda one, _: one, "data": held})()


def test_a_set_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = _Hub(monkeypatch, [{"question": f"q{i}", "answer": "a", "x": 1} for i in range(4)])
    spec = {"hub": "owner/name", "config": "main", "split": "dev", "revision": "abc", "count": 2}
    task = _task(path=_write(tmp_path / "a.jsonl", 1), train_path=spec)
    found = task.examples("train")
    assert there.asked == [(("owner/name", "main"), {"split": "dev", "revision": "abc"})]
    assert len(found) == 2
    assert found[0].source == "name:train"
    assert task.sources == (SourceUse("owner/name (main), split dev", "train", 4, 2),)
    assert FieldUse("owner/name (main), split dev", "x", "ignored", 4) in task.fields


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    _Hub(monkeypatch, None)
    monkeypatch.setattr("holdfast.memory.model.hub.down", lambda: "")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    with pytest.raises(DataError, match="cannot be loaded from the hub: no way") as caught:
        hub.table("owner/name", None, "train", None)
    assert caught.value.where == "owner/name, split train"
    for said in ("HF_ENDPOINT", "mirror.example", "HF_HUB_OFFLINE", "path"):
        assert said in caught.value.remedy
    assert "\x1b" not in str(caught.value)
    assert "and more" not in str(caught.value)
    with pytest.raises(DataError, match="no set on the hub"):
        hub.table("data/train.jsonl", None, "train", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="datasets"):
        hub.table("owner/name", None, "train", None)
