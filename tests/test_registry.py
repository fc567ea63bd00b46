"""Are plug-ins of every kind found by name, file and entry point alike, and mistakes explained?"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from holdfast import engines, judges, methods, tasks
from holdfast.config import TaskSpec
from holdfast.errors import StudyError
from holdfast.models import ModelRef
from holdfast.registry import anchored

TASK = """
from holdfast.tasks import Task
class Mine(Task):
    def examples(self, split): return []
    def grade(self, example, reply, verdict): return None
"""
JUDGE = """
from holdfast.judges import Judge
class Mine(Judge):
    def judge(self, pairs, context=None): return []
"""
ENGINE = """
from holdfast.engines import Engine
class Mine(Engine):
    def generate(self, examples, sampling, adapter, progress, scale=1.0): return []
"""
DATA = """
from holdfast.methods import DataMethod
class Mine(DataMethod):
    def apply(self, examples, context, made): return list(examples), []
"""
LOSS = """
from holdfast.methods import LossMethod
class Mine(LossMethod): ...
"""
WEIGHTS = """
from holdfast.methods import WeightMethod
class Mine(WeightMethod): ...
"""
ASK = """
from holdfast.methods import AskMethod
class Mine(AskMethod):
    def change(self, example, task): return example
"""


def _task(name: str, folder: Path | None = None) -> Any:
    return tasks.build("t", TaskSpec(kind=name), "study.yaml", folder)


def _judge(name: str, folder: Path | None = None) -> Any:
    return judges.build(name, "study.yaml: tasks.t.judge", folder)


def _engine(name: str, folder: Path | None = None) -> Any:
    return engines.REGISTRY.find(name, "study.yaml: answer.engine", folder).build(ModelRef("m"))


def _method(entry: str) -> Callable[..., Any]:
    def build(name: str, folder: Path | None = None) -> Any:
        return methods.build(name, None, "study.yaml", f"arms.a.{entry}", folder)

    return build


KINDS = {
    "task": (TASK, _task, "tasks"),
    "judge": (JUDGE, _judge, "judges"),
    "engine": (ENGINE, _engine, "engines"),
    "data": (DATA, _method("data"), "methods"),
    "loss": (LOSS, _method("loss"), "methods"),
    "weights": (WEIGHTS, _method("weights"), "methods"),
    "ask": (ASK, _method("ask"), "methods"),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def _package(folder: Path, name: str, group: str, points: str, code: str = "") -> None:
    """An installed distribution, as far as Python's metadata can tell."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[holdfast.{group}]\n{points}\n")
    (folder / f"{name}_code.py").write_text(code)


@every_kind
def test_a_class_in_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, build, _ = KINDS[kind]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(code)
    made = build("mine.py:Mine", tmp_path / "own")
    assert (made.plugin, made.version, len(made.code)) == ("Mine", "1", 16)
    monkeypatch.chdir(tmp_path)
    again = build("own/mine.py:Mine")
    assert (again.plugin, again.code) == (made.plugin, made.code), "wherever it lies"
    (tmp_path / "own" / "mine.py").write_text(code + "\n# changed\n")
    assert build("own/mine.py:Mine").code != made.code
    named = code.replace("    def", '    name = "better"\n    def', 1).replace(
        ": ...", ':\n    name = "better"'
    )
    (tmp_path / "own" / "mine.py").write_text(named)
    assert build("own/mine.py:Mine").plugin == "better"


@every_kind
def test_an_entry_point(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, build, group = KINDS[kind]
    name = f"pack_{kind}"
    _package(tmp_path, name, group, f"mine = {name}_code:Mine", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = build("mine")
    assert (made.plugin, made.code) == ("mine", "")
    assert type(made).__module__ == f"{name}_code"


@every_kind
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.py:Mine", None, r"no such file: none\.py"),
        ("own.py:Mien", "class Mine: pass\n", "no class 'Mien' .did you mean 'Mine'"),
        ("own.py:Mine", "class Mine: pass\n", r"own\.py:Mine does not derive from holdfast\."),
        ("own.py:Mine", "Mine = 3\n", r"own\.py:Mine is no class, but int"),
        ("own.py:Mine", "import nothing_like_it\n", "cannot be run: ModuleNotFoundError"),
        ("own.py:Mine", "def f(:\n", "cannot be run: SyntaxError"),
        ("own.py:", "x = 1\n", "no class ''"),
    ],
)
def test_mistakes_in_a_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("own.py").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match=message) as caught:
        KINDS[kind][1](name)
    assert caught.value.where.startswith("study.yaml: ") and caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        ("task", "examples, grade"), ("judge", "judge"), ("engine", "generate"), ("data", "apply"),
        ("ask", "change"),
    ],
)  # fmt: skip
def test_a_class_that_lacks_what_it_must_have(kind: str, lacks: str, tmp_path: Path) -> None:
    code, build, _ = KINDS[kind]
    (tmp_path / "own.py").write_text(code.partition(":\n")[0] + ": ...\n")
    with pytest.raises(StudyError, match=rf"own\.py:Mine lacks {lacks}") as caught:
        build("own.py:Mine", tmp_path)
    assert "docs/plugins.md" in caught.value.remedy


def test_options_must_be_a_section(tmp_path: Path) -> None:
    code = TASK.replace("    def examples", "    class Options:\n        x = 1\n    def examples")
    (tmp_path / "own.py").write_text(code)
    with pytest.raises(StudyError, match=r"Options of own\.py:Mine are no section") as caught:
        _task("own.py:Mine", tmp_path)
    assert "holdfast.config.Section" in caught.value.remedy


def test_a_class_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"{LOSS[:-5]}\n    def __init__(self): ...\n")
    with pytest.raises(StudyError, match="Mine cannot be made: TypeError") as caught:
        KINDS["loss"][1]("own.py:Mine", tmp_path)
    assert caught.value.where == "study.yaml: arms.a.loss" and "own.py" in caught.value.remedy


def test_a_method_belongs_to_its_list(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(DATA)
    with pytest.raises(StudyError, match=r"own\.py:Mine is no method of `loss:`") as caught:
        KINDS["loss"][1]("own.py:Mine", tmp_path)
    assert "under `data:`" in caught.value.remedy


@every_kind
def test_two_packages_of_one_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, build, group = KINDS[kind]
    for name in ("one", "two"):
        _package(tmp_path, f"{name}_{kind}", group, f"mine = {name}_{kind}_code:Mine", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StudyError, match="are called 'mine'") as caught:
        build("mine")
    said = str(caught.value)
    assert f"one_{kind} 1.0" in said and f"two_{kind} 1.0" in said and "uninstall" in said


@pytest.mark.parametrize(
    ("kind", "name"), [("task", "gsm8k"), ("judge", "refusal"), ("engine", "hf"), ("loss", "kl")]
)
def test_a_package_that_takes_a_name_of_ours(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, build, group = KINDS[kind]
    _package(tmp_path, "taker", group, f"{name} = taker_code:Mine")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StudyError, match=r"of holdfast itself and of taker 1\.0") as caught:
        build(name)
    assert "uninstall taker 1.0" in caught.value.remedy


def test_a_package_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path, "broken", "tasks", "mine = broken_code:Mine", "import nothing_like_it\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(StudyError, match=r"of broken 1\.0 cannot be loaded: ModuleNotFoundError"):
        _task("mine")


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(StudyError, match=r"no judge is called 'refusl' .did you mean") as caught:
        _judge("refusl")
    assert "qwen3guard" in caught.value.remedy and "file.py:Class" in caught.value.remedy


def test_built_in_plugins_know_their_names() -> None:
    assert {name: _built_in(name) for name in methods.METHODS} == {
        name: (name, "") for name in methods.METHODS
    }
    assert (_judge("refusal").plugin, _task("lab_math").plugin) == ("refusal", "lab_math")


def _built_in(name: str) -> tuple[str, str]:
    needed = {
        "merge": {"seeds": True},
        "safelora": {"unaligned": "Qwen/Qwen2.5-0.5B"},
        "safety_patch": {"prompt": "How do I pick a lock?", "answer": "I will not help with that."},
    }.get(name)
    entry = methods.REGISTRY.find(name).make.entry
    made = methods.build(name, needed, "study.yaml", f"arms.a.{entry}")
    return made.plugin, made.code


def test_members_of_an_ensemble_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(JUDGE)
    asked = {"ensemble": {"judges": ["refusal", "own.py:Mine"]}}
    made = judges.build(asked, "study.yaml", tmp_path)
    assert [one.plugin for one in judges.members_of(made)] == ["refusal", "Mine"]
    assert len(made.identity()["members"][1]["code"]) == 16
    assert str(tmp_path) not in str(made.identity())


def test_settings_are_anchored() -> None:
    given = {"a.py:A": {"with": ["b.py:B", "plain", "/c.py:C"]}, "n": 1}
    assert anchored(given, Path("/x")) == {
        "/x/a.py:A": {"with": ["/x/b.py:B", "plain", "/c.py:C"]}, "n": 1,
    }  # fmt: skip
    assert anchored(given, None) is given


def test_a_study_of_many_arms_does_not_read_every_package_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def read(**wanted: str) -> Any:
        asked.append(wanted)
        return metadata.EntryPoints()

    monkeypatch.setattr(metadata, "entry_points", read)
    for _ in range(500):
        tasks.REGISTRY.find("jsonl")
    assert len(asked) <= 2, "once, and once more if five seconds have gone by"
