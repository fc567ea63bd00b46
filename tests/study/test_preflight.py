"""Does everything that can fail do so before anything is written, and is the rest said?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import run_study, write_study

from holdfast import cli, study
from holdfast.config import load
from holdfast.errors import (
    FolderError,
    HoldfastError,
    MissingDependency,
    ModelError,
    StudyError,
)
from holdfast.runs import store
from holdfast.runs.plan import NOTICES
from holdfast.study import preflight, readiness

ONE = {"arms": {"sft": {}}, "seeds": [1]}


def prepared(file: Path, runs: Path) -> Any:
    loaded = load.load(file)
    return study.prepare(loaded, runs / loaded.name, str(file))


def test_a_disk_that_is_clearly_too_small(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(tmp_path, tiny_model, **ONE)
    needed = readiness.checkpoint_bytes(prepared(file, tmp_path / "runs"))
    from holdfast.memory.model.reading import read_shape
    from holdfast.memory.model.targets import lora_parameters

    trained = lora_parameters(read_shape(str(tiny_model)), 16)
    assert needed == trained * (2 * readiness.SAVED + readiness.MOMENTS), "two checkpoints"
    usage = shutil.disk_usage(tmp_path)
    for free in (needed - 1, needed):
        left = usage._replace(free=free)
        monkeypatch.setattr("holdfast.study.readiness.shutil.disk_usage", lambda _, left=left: left)
        if free == needed:
            readiness.room(prepared(file, tmp_path / "runs"))
            continue
        with pytest.raises(FolderError, match="GiB free") as caught:
            run_study(file, tmp_path / "runs")
        assert "train.checkpoints" in caught.value.remedy and caught.value.exit_code == 3
        assert not (tmp_path / "runs").exists()


def test_a_package_that_cannot_be_imported(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match="needs datasets"):
        run_study(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_judge_that_is_broken(tiny_model: Path, tmp_path: Path) -> None:
    guard = Path(shutil.copytree(tiny_model, tmp_path / "guard"))
    value = json.loads((guard / "tokenizer.json").read_text())
    (guard / "tokenizer.json").write_text(json.dumps(value | {"model": {"type": "Zip"}}))
    tasks = {
        "lab_math": {"role": "target", "items": 2, "train_items": 8},
        "lab_refuse": {"items": 2, "judge": {"qwen3guard": {"model": str(guard)}}},
    }
    file = write_study(tmp_path, tiny_model, tasks=tasks, **ONE)
    with pytest.raises(ModelError, match="tokenizer cannot be loaded") as caught:
        run_study(file, tmp_path / "runs")
    assert str(guard) in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_looks_at_models_too(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    file = write_study(tmp_path, model, **ONE)
    line = ["run", str(file), "--dry-run", "--runs-dir", str(tmp_path / "runs")]
    assert cli.call(line) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"Checked: {preflight.CHECKED}." in said
    assert "9 tensors of its files have no place in the model" in said
    assert cli.call([*line, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["checked"] is True and any("9 tensors" in one for one in about["notices"])
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert cli.call(line) == 3
    assert "layers.2." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_notices_are_kept_and_shown(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    train = {"max_steps": 1, "checkpoints": 1, "optim": "adamw_torch"}
    run_study(write_study(tmp_path, model, train=train, **ONE), tmp_path / "runs")
    (notice,) = store.read_json(tmp_path / "runs" / "s" / NOTICES)["notices"]
    assert "9 tensors" in notice
    results = store.read_json(tmp_path / "runs" / "s" / "stats" / "results.json")
    assert notice in results["warnings"]


def test_a_dry_run_without_torch_says_what_it_left_out(tiny_model: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, tiny_model, **ONE)
    code = (
        "import sys\nfrom importlib.machinery import PathFinder\nreal = PathFinder.find_spec\n"
        "def found(name, *more):\n"
        "    gone = name.split('.')[0] in ('torch', 'transformers', 'peft', 'trl')\n"
        "    return None if gone else real(name, *more)\n"
        "PathFinder.find_spec = found\n"
        "from holdfast.cli import call\n"
        f"sys.exit(call(['run', {str(file)!r}, '--dry-run', '--runs-dir', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "Not checked, because torch is not installed" in done.stdout


def test_nothing_is_looked_at_when_all_is_done(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight, "CHECKS", (lambda _: 1 / 0,))
    line = ["run", str(finished / "study.yaml"), "--dry-run", "--runs-dir", str(finished / "runs")]
    assert cli.call(line) == 0
    assert "Checked" not in capsys.readouterr().out


def test_a_name_that_is_a_folder_to_one_and_an_id_to_the_other(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    file = write_study(tmp_path / "configs", Path("mine"), **ONE)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "mine")
    with pytest.raises(StudyError, match="which is meant") as caught:
        prepared(file, tmp_path / "runs")
    assert f"model={tmp_path / 'mine'}" in caught.value.remedy
    named = load.load(file, ["model=mine"])
    assert study.prepare(named, tmp_path / "runs" / "s", str(file)).plan.model.base == str(
        tmp_path / "mine"
    ), "on the command line it is the working folder's"
    shutil.move(tmp_path / "mine", tmp_path / "configs" / "mine")
    found = prepared(file, tmp_path / "runs").plan.model.base
    assert found == str(tmp_path / "configs" / "mine"), "beside the file"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hardware": {"device": "cuda"}}, "torch sees no GPU"),
        ({"train": {"fp16": True}}, "float16"),
        ({"train": {"kernels": "liger"}}, "run on GPUs only"),
    ],
)
def test_devices_are_looked_at_where_the_stages_are_made(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """A login node without a GPU refuses nothing that the nodes may have; each of them would."""
    base: dict[str, Any] = {"optim": "adamw_torch", "max_steps": 2, "checkpoints": 1}
    if "train" in changes:
        changes = {"train": base | changes["train"]}
    session = prepared(write_study(tmp_path, tiny_model, **ONE, **changes), tmp_path / "runs")
    for look in (preflight.check, preflight.check_devices):
        with pytest.raises(HoldfastError, match=words):
            look(session)
    preflight.check(session, elsewhere=True)
    steps = study.schedule(session.plan)
    assert preflight.LATER in preflight.looked_at(session, steps, elsewhere=True).lines


def test_what_needs_no_device_is_refused_before_a_job_waits_for_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    file = write_study(tmp_path, tiny_model, **ONE, train={"optim": "adamw_torhc", "max_steps": 2})
    with pytest.raises(StudyError, match="adamw_torhc"):
        preflight.check(prepared(file, tmp_path / "runs"), elsewhere=True)


def test_a_notice_is_kept_once(tmp_path: Path) -> None:
    assert preflight.add_notices(tmp_path, ["a"]) == ["a"]
    assert preflight.add_notices(tmp_path, ["a", "b"]) == ["b"]
    assert store.read_json(tmp_path / NOTICES)["notices"] == ["a", "b"]
