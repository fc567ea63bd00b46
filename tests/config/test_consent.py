"""Is code that a run folder names run only by consent, and nothing outside of it read?"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from holdfast import shipping, study
from holdfast.cli import call
from holdfast.config import consent, load
from holdfast.errors import FolderError, UsageError
from holdfast.progress import Silent
from holdfast.report import run as runs
from holdfast.runs import run_folder, store
from holdfast.runs.plan import read_plan, write_plan

CODE = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
from holdfast.lab.tasks import LabMath
from holdfast.judges import Judge
class Mine(LabMath):
    name = "mine"
"""


@pytest.fixture(autouse=True)
def _nothing_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def _study(folder: Path, **changes: object) -> Path:
    """A study file whose task is a class of a Python file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    given = {
        "name": "s", "model": "lab",
        "tasks": {"math": {"kind": "own.py:Mine", "role": "target"}},
    } | changes  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    return folder / "study.yaml"


def _received(folder: Path, **changes: object) -> Path:
    """The same in a run folder."""
    file = _study(folder, **changes)
    store.write_json(folder / "run.json", {"format": run_folder.FORMAT})
    return file


def _code(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = call(line.split())
    return code, "".join(capsys.readouterr())


def test_a_study_of_ones_own_is_consent(tmp_path: Path) -> None:
    study.plan(_study(tmp_path), tmp_path / "runs")
    assert (tmp_path / "own.ran").exists()


@pytest.mark.parametrize(
    "command",
    ["run {} --dry-run", "run {}", "plan {} --gpus 1x16GiB", "compare a b --study {} --dry-run"],
)
def test_a_study_of_a_run_folder_is_not(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _received(tmp_path / "r")
    code, said = _code(command.format(file), capsys)
    assert code == 3
    assert str(tmp_path / "r" / "own.py") in said and "--trust-code" in said
    assert not (tmp_path / "r" / "own.ran").exists()


def test_consent_holds_for_this_code_and_no_other(tmp_path: Path) -> None:
    file = _received(tmp_path / "r")
    load.load(file, trust_code=True)
    study.plan(file)
    assert (tmp_path / "r" / "own.ran").exists()
    (tmp_path / "r" / "own.py").write_text(CODE + "# changed\n", encoding="utf-8")
    with pytest.raises(UsageError, match="never run here"):
        study.plan(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": {"a": {"data": [{"own.py:Other": {}}]}}},
        {"answer": {"engine": "own.py:Engine"}},
        {"model": {"id": "somebody/model", "trust_remote_code": True}},
        {"tasks": {"math": {"kind": "lab_math", "role": "target"},
                   "b": {"kind": "lab_refuse", "judge": {"own.py:J": {}}}}},
        {"tasks": {"math": {"kind": "lab_math", "role": "target"},
                   "b": {"kind": "lab_refuse", "judge": {"ensemble": {"judges": ["own.py:J"]}}}}},
        {"tasks": {"x": {"kind": "harness", "task": "t.yaml", "role": "target"}}},
        {"tasks": {"x": {"kind": "harness", "task": "t", "include_path": ".", "role": "target"}}},
    ],
)  # fmt: skip
def test_every_way_of_naming_code_is_seen(tmp_path: Path, changes: dict[str, object]) -> None:
    file = _received(tmp_path / "r", **({"tasks": {"lab_math": {"role": "target"}}} | changes))
    (tmp_path / "r" / "t.yaml").write_text("task: t\ndoc_to_text: !function own.f\n")
    with pytest.raises(UsageError, match="names code that was never run here"):
        load.load(file)
    assert not (tmp_path / "r" / "own.ran").exists()


def test_a_study_without_code_of_its_own_is_asked_nothing(tmp_path: Path) -> None:
    file = _received(tmp_path / "r", tasks={"lab_math": {"role": "target"}})
    assert load.load(file).name == "s"


OWN = {"lab_math": {"role": "target"}}
EVIL = "http://evil.example/v1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"track": [{"mlflow": {"uri": EVIL}}]}, "trackers that nothing was sent to from here: "
         f'mlflow.uri="{EVIL}"'),
        ({"track": [{"trackio": {"space": "evil/space"}}]}, "trackio.space"),
        ({"track": [{"tensorboard": {"path": "/etc/board"}}]}, "tensorboard.path"),
        ({"tasks": OWN | {"b": {"kind": "lab_refuse", "judge": {"remote": {
            "url": EVIL, "model": "m", "format": "yes_no", "key_env": "AWS_SECRET"}}}}},
         f"servers that no key was sent to from here: $AWS_SECRET to {EVIL}"),
        ({"answer": {"engine": "remote", "server": f"{EVIL}?key_env=AWS_SECRET#m"}},
         "servers that no key was sent to from here"),
        ({"model": f"{EVIL}#m"}, "servers that no key was sent to from here"),
    ],
    ids=["mlflow", "trackio", "a folder", "judge", "answering", "model"],
)  # fmt: skip
def test_keys_go_where_a_received_study_says_by_consent_only(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    file = _received(tmp_path / "r", **({"tasks": OWN} | changes))
    with pytest.raises(UsageError) as caught:
        load.load(file)
    assert said in str(caught.value) and "--trust-code" in caught.value.remedy
    load.load(file, trust_code=True)
    load.load(file)
    other = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(other).replace("evil", "worse").replace("/etc", "/usr"))
    with pytest.raises(UsageError):
        load.load(file)
    assert load.load(_study(tmp_path / "own", **({"tasks": OWN} | changes))), "one's own is consent"


def test_a_server_without_a_key_and_a_tracker_without_settings_are_asked_nothing(
    tmp_path: Path,
) -> None:
    judge = {"remote": {"url": "http://127.0.0.1:9/v1", "model": "m", "format": "yes_no"}}
    tasks = OWN | {"b": {"kind": "lab_refuse", "judge": judge}}
    assert load.load(_received(tmp_path / "r", tasks=tasks, track=["mlflow"]))


def test_what_cannot_be_remembered_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(FolderError, match="cannot be written") as caught:
        load.load(_received(tmp_path / "r"), trust_code=True)
    assert "XDG_STATE_HOME" in caught.value.remedy
    consent.give(load.load(_study(tmp_path / "own")), must=False)


# links, pipes, names


def _plan(folder: Path) -> Path:
    """A run folder with a plan, and nothing done."""
    file = _received(folder, tasks={"lab_math": {"role": "target", "items": 4, "train_items": 8}},
                     arms={"sft": {}}, train={"max_steps": 2})  # fmt: skip
    write_plan(study.plan(load.load(file), folder))
    return folder


@pytest.mark.parametrize("kind", ["folder", "file", "broken", "pipe", "deep"])
def test_nothing_outside_of_a_run_folder_is_read_or_deleted(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, outside = _plan(tmp_path / "r"), tmp_path / "outside"
    (outside / "checkpoint-1").mkdir(parents=True)
    (outside / "readings.jsonl").write_text("{}")
    place = folder / "replies" / "base" / "x"
    place.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "deep":
        (folder / "readings").mkdir()
        (folder / "readings" / "base").symlink_to("../../outside")
    else:
        target = {"folder": outside, "file": outside / "readings.jsonl"}.get(kind, outside / "no")
        place.symlink_to(target)
    for line in ("report {} --replies 2", "ship {} --dry-run", "run {}/study.yaml --runs-dir {}/..",
                 "run {}/study.yaml --rebuild * --runs-dir {}/.. --dry-run"):  # fmt: skip
        if line.startswith("run"):
            shutil.copy(folder / "study.yaml", tmp_path / "own.yaml")
            line = line.replace("{}/study.yaml", str(tmp_path / "own.yaml")) + " name=r"
        code, said = _code(line.replace("{}", str(folder)), capsys)
        assert code == 3, said
        assert "out of the run folder" in said or "no file, but a pipe" in said
    with pytest.raises(FolderError):
        runs.open_run(folder)
    assert (outside / "checkpoint-1").is_dir() and (outside / "readings.jsonl").is_file()


def test_links_within_a_run_folder_and_to_it_are_followed(tmp_path: Path) -> None:
    folder = _plan(tmp_path / "r")
    (folder / "latest").symlink_to("study.yaml")
    (tmp_path / "elsewhere").symlink_to(folder)
    assert read_plan(tmp_path / "elsewhere").study.name == "s"


@pytest.mark.parametrize("name", ["../outside", "/etc", "a/../../b", "", "a//b", "a\0b", "sft.tmp"])
@pytest.mark.parametrize("where", ["arms", "tasks", "stages"])
def test_a_plan_names_places_in_its_folder_only(tmp_path: Path, where: str, name: str) -> None:
    folder = _plan(tmp_path / "r")
    value = json.loads((folder / "plan.json").read_text())
    value[where][-1]["name"] = name
    value.pop("seal")  # whoever means harm can seal anew
    (folder / "plan.json").write_text(json.dumps(value))
    with pytest.raises(FolderError, match="no place in a run folder"):
        runs.open_run(folder)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("seeds", ["../../x"]), ("places", [["../x", 1.0]]), ("places", [[1, "x"]]), ("name", 5),
     ("places", [[True, 1.0]])],
)  # fmt: skip
def test_seeds_steps_and_scales_are_numbers(tmp_path: Path, field: str, wrong: object) -> None:
    folder = _plan(tmp_path / "r")
    value = json.loads((folder / "plan.json").read_text())
    value["arms"][0][field] = wrong
    value.pop("seal")  # whoever means harm can seal anew
    (folder / "plan.json").write_text(json.dumps(value))
    with pytest.raises(FolderError):
        runs.open_run(folder)


def test_shipping_asks_before_it_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _plan(tmp_path / "r")
    value = json.loads((folder / "plan.json").read_text())
    value["study"]["tasks"]["lab_math"]["kind"] = f"{folder}/own.py:Mine"
    value.pop("seal")  # whoever means harm can seal anew
    (folder / "plan.json").write_text(json.dumps(value))
    chosen = SimpleNamespace(answer="ship", chosen=SimpleNamespace(point=None), runner_up=None)
    monkeypatch.setattr(shipping, "_finished", read_plan)
    monkeypatch.setattr(shipping.from_run, "gather", lambda plan: None)
    monkeypatch.setattr(shipping.from_run, "decide", lambda plan, evidence: chosen)
    monkeypatch.setattr(shipping.from_run, "as_decision", lambda decision: decision)
    shipping.ship(folder, dry_run=True)
    with pytest.raises(UsageError, match="names code that was never run here"):
        shipping.ship(folder, tmp_path / "out", Silent())
    assert not (folder / "own.ran").exists() and not (tmp_path / "out").exists()
