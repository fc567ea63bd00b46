"""Does every worked example of `docs/plugins.md` run as it stands, from data to report?"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import pages

from holdfast.cli import call
from holdfast.grading.answer import read_replies
from holdfast.grading.grade import read_readings
from holdfast.grading.judge import read_verdicts
from holdfast.runs import store

FILES = {
    "digits.py", "sorry.py", "shorter.py", "milder.py", "dft.py", "parrot.py", "study.yaml",
}  # fmt: skip


def test_the_examples_are_short() -> None:
    files, _ = pages.blocks("plugins.md", FILES)
    assert set(files) == FILES
    for name, body in files.items():
        assert len(body.splitlines()) <= 40, name


def test_the_worked_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, commands = pages.blocks("plugins.md", FILES)
    pages.write(files, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "holdfast" and call(arguments) == 0, capsys.readouterr().err
    run = tmp_path / "runs" / "mine"

    assert [one.example_id for one in read_readings(run / "readings/base/digits")] == [
        f"test-{n}" for n in range(4)
    ]
    verdicts = read_verdicts(run / "verdicts/base/lab_refuse")
    assert {one.by for one in verdicts} == {"sorry-1"} and len(verdicts) == 4

    def summary(stage: str) -> dict[str, object]:
        return dict(store.read_json(run / stage / store.RECORD)["summary"])

    assert summary("data/shorter")["examples"] == 5, "40 % of twelve"
    assert "5 of 12 examples" in str(summary("data/shorter")["notes"])
    losses = {
        arm: store.read_json(run / f"train/{arm}/seed1" / store.RECORD)["summary"]
        for arm in ("sft", "milder", "dft")
    }
    assert all(losses[arm]["loss"] != losses["sft"]["loss"] for arm in ("milder", "dft"))
    assert losses["dft"]["examples_seen"] == losses["sft"]["examples_seen"]
    assert losses["dft"]["supervised_tokens"] == losses["sft"]["supervised_tokens"] > 0
    assert losses["dft"]["tokens"] == losses["sft"]["tokens"]

    page = (run / "report/index.html").read_text("utf-8")
    for words in ("next number right", "sorry-1", "dynamic fine-tuning, by TRL", "milder"):
        assert words.casefold() in page.casefold(), words
    said = read_replies(tmp_path / "runs/floor/replies/base/digits")
    assert {one.text for one in said} == {f"What is {n} + 1?" for n in range(4)}
    (compared,) = (path for path in (tmp_path / "runs").iterdir() if "vs" in path.name)
    assert len(read_readings(compared / "readings/base/Digits")) == 4
    identities = [
        json.dumps(store.read_json(path)) for path in (tmp_path / "runs").rglob(store.RECORD)
    ]
    identities = [text.partition('"summary"')[0] for text in identities]
    for name in FILES - {"study.yaml"}:
        assert not any(name in text for text in identities), f"{name}: a path in an identity"


@pytest.mark.parametrize(
    "line",
    [
        "from holdfast.tasks import Task",
        "from holdfast.judges import Judge",
        "from holdfast.engines import Engine",
        "from holdfast.methods import AskMethod, DataMethod, LossMethod, WeightMethod",
    ],
)
def test_the_bases_need_no_torch(line: str) -> None:
    code = f"import sys\n{line}\nassert not {{'torch', 'transformers', 'trl'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
