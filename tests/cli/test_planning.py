"""`holdfast plan` takes a study or a model, writes the script, and refuses before it plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.paths import ROOT

from holdfast.cli import call

MODEL = ["plan", "--model", "qwen2.5-7b-instruct", "--gpus", "2x24GiB", "--dry-run"]


def test_a_study_is_launched_with_what_was_changed(capsys: pytest.CaptureFixture[str]) -> None:
    file = str(ROOT / "examples" / "qwen2.5-7b-2x24g.yaml")
    assert call(["plan", file, "--model", "Qwen/Qwen2.5-3B-Instruct", "--dry-run", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["chosen"]["launch"] == [f"holdfast run {file} model=Qwen/Qwen2.5-3B-Instruct"]
    assert value["script"] is None
    assert call(["plan", file, "--gpus", "1x2GiB", "--dry-run", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["chosen"] is None


def test_the_script_has_the_settings_of_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(ROOT / "examples" / "qwen2.5-7b-2x24g.yaml")
    script = tmp_path / "train.py"
    assert call(["plan", file, "--dry-run", "--json", "--export", str(script)]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["script"] == str(script)
    assert value["chosen"]["launch"][0].endswith(
        "torchrun --standalone --nproc_per_node 2 train.py"
    )
    assert "1126" in script.read_text("utf-8") and "0.0002" in script.read_text("utf-8")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--lang", "fr"], "no language 'fr'"),
        (["--method", "lorra"], "did you mean 'lora'"),
        (["--export", "{}/mine.py"], "exists already"),
    ],
)
def test_refused(
    more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("mine")
    assert call([*MODEL, *(word.format(tmp_path) for word in more)]) == 3
    assert said in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "mine"


def test_neither_study_nor_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", "--gpus", "2x24GiB"]) == 3
    assert "give a study file or --model" in capsys.readouterr().err
