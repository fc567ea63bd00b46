"""Commands on a run folder or a model: power, clean, export, merge, chat."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from fixtures.study import run_study
from fixtures.tiny_model import make_adapter

from holdfast import cli
from holdfast.runs import store
from holdfast.runs.plan import read_plan


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def _call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.call([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_power_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _call(capsys, "power", "--items", 200, "--flips", 0.02, "--margin", -0.03)
    assert code == 0
    assert "(assumed)" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = _call(capsys, "power", "--items", 200, "--seeds", 3, "--json")
    (one,) = json.loads(out)
    assert one["design"]["seeds"] == 3
    code, _, err = _call(capsys, "power", "--margin", 2)
    assert (code, "write 0.02 for two points" in err) == (3, True)


def test_power_of_a_run(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = _call(capsys, "power", run, "--json")
    assert code == 0
    found = {one["task"]: one for one in json.loads(out)}
    assert set(found) == {"lab_math", "lab_refuse"}
    assert found["lab_math"]["design"]["items"] == 8
    assert found["lab_math"]["observed"] is True
    assert found["lab_math"]["design"]["seeds"] == len(read_plan(run).study.seeds)
    code, out, _ = _call(capsys, "power", run, "--items", 5000, "--flips", 0.01, "--seeds", 1)
    assert "5,000" in out and "(assumed)" in out
    code, _, err = _call(capsys, "power", run.parent)
    assert (code, "is not a run folder" in err) == (3, True)


def test_clean_says_first_and_keeps_what_is_needed(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    plan = read_plan(run)
    left = run / "replies" / "base" / "lab_math.tmp"
    left.mkdir()
    (left / "x").write_text("12345", encoding="utf-8")
    there = sorted(run.rglob("checkpoint-*"))
    code, out, _ = _call(capsys, "clean", run)
    assert code == 0
    assert "5 bytes" in out and "can be freed" in out and "--yes" in out
    assert sorted(run.rglob("checkpoint-*")) == there and left.exists(), "only said"
    code, out, _ = _call(capsys, "clean", run, "--yes", "--json")
    gone = {Path(one["path"]) for one in json.loads(out)["spare"]}
    assert left in gone and not any(path.exists() for path in gone)
    last = max(plan.save_at)
    for arm, seed in plan.trained:
        assert (run / plan.checkpoint(arm, seed, last)).is_dir()
    assert _call(capsys, "ship", run, "--dry-run")[0] in (0, 2), "it is whole for what reads it"
    study = run / "study.yaml"
    before = {one: one.stat().st_mtime_ns for one in run.rglob(store.RECORD)}
    run.rename(run.parent / "s")
    moved = run.parent / "s"
    run_study(moved / study.name, moved.parent, only="stats")
    assert {run / one.relative_to(moved): one.stat().st_mtime_ns
            for one in moved.rglob(store.RECORD)} == before, "nothing is done again"  # fmt: skip
    assert "Nothing can be freed" in _call(capsys, "clean", moved)[1]


def test_clean_leaves_an_unfinished_run_alone(
    capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    shutil.rmtree(run / "stats")
    work = run / "stats.tmp"
    work.mkdir()
    assert "Nothing can be freed" in _call(capsys, "clean", run, "--yes")[1]
    assert work.exists()


def test_exported_items_come_back(
    capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "items.jsonl"
    code, out, _ = _call(capsys, "export", run, "--items", "lab_math", "--to", file)
    assert code == 0
    assert f"--study {run / 'study.yaml'}" in out
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert len(rows) == 8
    assert rows[0]["messages"][-1]["role"] == "user" and rows[0]["reply"] is None
    code, _, err = _call(capsys, "export", run, "--items", "lab_math", "--to", file)
    assert (code, "exists already" in err) == (3, True)
    code, _, err = _call(capsys, "export", run, "--items", "lab_maths")
    assert (code, "did you mean 'lab_math'" in err) == (3, True)
    for name, text in (("base", "I do not know."), ("tuned", "#### 7")):
        lines = (json.dumps({**row, "reply": text}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    line = ["compare", "--replies", tmp_path / "base.jsonl", tmp_path / "tuned.jsonl",
            "--tasks", "lab_math", "--study", run / "study.yaml", "--runs-dir",
            tmp_path / "runs", "--json"]  # fmt: skip
    code, out, err = _call(capsys, *line)
    assert code == 0, err
    (task,) = json.loads(out)["tasks"]
    assert (task["name"], task["n"]) == ("lab_math", 8)
    unfilled = [*line[:2], file, file, *line[4:]]
    code, out, _ = _call(capsys, *unfilled)
    assert (code, "has no reply" in out) == (3, True)


def test_merge_writes_what_the_adapter_says(
    capsys: pytest.CaptureFixture[str], tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shutil.copytree(tiny_model, tmp_path / "tiny")
    make_adapter(tmp_path / "tiny", tmp_path / "lora")
    code, out, err = _call(capsys, "merge", tmp_path / "tiny", tmp_path / "lora",
                           "--to", tmp_path / "whole")  # fmt: skip
    assert code == 0, err
    assert "was not measured" in out and "holdfast compare" in out
    ids = torch.arange(5, 15)[None]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    with torch.inference_mode():
        wanted = PeftModel.from_pretrained(base, tmp_path / "lora").eval()(ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()(ids).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert (tmp_path / "whole" / "tokenizer.json").is_file()
    for words, said in (
        (("tiny", "lora", "whole"), "holds something already"),
        (("tiny", "tiny", "other"), "is no adapter"),
    ):
        base_, adapter, to = (tmp_path / word for word in words)
        code, _, err = _call(capsys, "merge", base_, adapter, "--to", to)
        assert (code, said in err) == (3, True), err
    assert not (tmp_path / "other").exists()


def test_chat_in_a_pipe(
    capsys: pytest.CaptureFixture[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 2 + 3?\n\n/new\nAnd 4?\n"))
    code, out, err = _call(capsys, "chat", run, "--arm", "sft", "--max-tokens", 4)
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["base", "sft", "base", "sft"]
    assert ">" not in err, "no prompt in a pipe"
    code, _, err = _call(capsys, "chat", run, "--arm", "sfd")
    assert (code, "did you mean 'sft'" in err) == (3, True)


def test_each_side_of_a_talk_remembers_its_own(run: Path) -> None:
    from holdfast.comparison.opened import Talk

    talk = Talk(run, ["sft"], 3)
    try:
        first = dict(talk.say("What is 2 + 3?"))
        talk.say("And 4?")
        for side in talk.sides:
            assert [turn.role for turn in side.turns] == ["user", "assistant"] * 2
            assert side.turns[1].content == first[side.name]
        talk.forget()
        assert dict(talk.say("What is 2 + 3?")) == first
    finally:
        talk.close()
