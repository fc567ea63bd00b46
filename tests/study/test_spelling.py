"""Is training text that the tokenizer does not know noticed before it is learned?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import write_study

from holdfast.config import load
from holdfast.errors import StudyError
from holdfast.lab import TARGET_STEPS, model_folder
from holdfast.lab.problems import problems
from holdfast.study import preflight, prepare, readiness
from holdfast.study.session import Session

TRAIN = {"max_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
KNOWN, FOREIGN = "How many nuts are 3 and 4?", "三个坚果和四个坚果一共是多少？"


def _session(folder: Path, task: dict[str, Any]) -> Session:
    held = folder / "held.jsonl"
    held.write_text(json.dumps({"prompt": "How many nuts are 9 and 9?", "completion": "18"}))
    tasks = {"mine": {"role": "target", "path": str(held)} | task, "lab_refuse": {"items": 4}}
    path = write_study(folder, model_folder(), tasks=tasks, seeds=[1], train=TRAIN,
                       arms={"sft": {}}, answer={"sampling": {"max_new_tokens": 4}})  # fmt: skip
    return prepare(load.load(path), folder / "runs", "study.yaml")


def _rows(folder: Path, foreign: int, answer: str = "7") -> Session:
    shown = [(FOREIGN, answer)] * foreign + [(KNOWN, "7")] * (60 - foreign)
    rows = [{"prompt": f"{n}. {one}", "completion": said} for n, (one, said) in enumerate(shown)]
    file = folder / "learn.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return _session(folder, {"kind": "jsonl", "train_path": str(file), "grader": "number"})


def test_training_text_that_the_tokenizer_does_not_know_is_told(tmp_path: Path) -> None:
    (notice,) = readiness.check_spelled(_rows(tmp_path, 3))
    assert "tasks.mine: 3 of 60 training examples" in notice and "learned as <unk>" in notice
    assert not readiness.check_spelled(_rows(tmp_path, 0))


def test_plain_text_is_looked_at_window_by_window(tmp_path: Path) -> None:
    told = [one.question for one in problems("train", 6, TARGET_STEPS)]
    for name, text in (("learn", FOREIGN * 9), ("known", "\n".join(told[3:]))):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    held = tmp_path / "spared.txt"
    held.write_text("\n\n".join(told[:3]), encoding="utf-8")
    task = {"kind": "text", "path": str(held), "separator": "\n\n"}
    foreign = _session(tmp_path, task | {"train_path": str(tmp_path / "learn.txt")})
    assert "training examples hold" in readiness.check_spelled(foreign)[0]
    known = _session(tmp_path, task | {"train_path": str(tmp_path / "known.txt")})
    assert not readiness.check_spelled(known)


def test_a_window_that_the_model_cannot_read_is_refused_beforehand(tmp_path: Path) -> None:
    """The lab's model reads 512 tokens."""
    held = tmp_path / "held.txt"
    told = [one.question for one in problems("test", 4, TARGET_STEPS)]
    held.write_text("\n\n".join(told), encoding="utf-8")

    def checked(window: int) -> list[str]:
        prose = {"kind": "text", "path": str(held), "separator": "\n\n", "window": window}
        tasks = {"lab_math": {"role": "target", "train_items": 16}, "prose": prose}
        path = write_study(tmp_path, Path("lab"), tasks=tasks, seeds=[1], train=TRAIN,
                           arms={"sft": {}})  # fmt: skip
        session = prepare(load.load(path), tmp_path / "runs", "study.yaml")
        return preflight.check(session)

    assert isinstance(checked(512), list)
    with pytest.raises(StudyError, match=r"more than the 512 .*\n.*set window: 512") as caught:
        checked(513)
    assert "tasks.prose" in str(caught.value)
