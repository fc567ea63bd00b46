"""A study with held-out examples: nobody trains on them, and a training may end on their loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import run_study, write_study

from holdfast import study
from holdfast.config import load
from holdfast.errors import LeakError, StudyError
from holdfast.runs import store
from holdfast.study import prepare
from holdfast.study.session import Session

TRAIN: dict[str, Any] = {
    "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 6, "checkpoints": 3,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}  # fmt: skip


def _write(folder: Path, model: Path | str, **train: Any) -> Path:
    tasks = {"lab_math": {"role": "target", "items": 4, "train_items": 24}}
    return write_study(
        folder, Path(model), seeds=[1], tasks=tasks, train=TRAIN | train, arms={"sft": {}},
        meters={"probes": 0}, answer={"sampling": {"max_new_tokens": 4}, "repeats": 1},
    )  # fmt: skip


def test_a_training_ends_on_the_loss_and_the_study_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    early = {"early_stopping_patience": 1, "early_stopping_threshold": 50}
    path = _write(tmp_path, tiny_model, val_size=0.25, eval_steps=1, **early)
    run_study(path, tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    held = {one["id"] for _, one in store.read_objects(folder / "validation" / "examples.jsonl")}
    trained = {one["id"] for _, one in store.read_objects(folder / "data/sft/examples.jsonl")}
    assert len(held) == 6 and len(trained) == 18 and not held & trained
    run = folder / "train" / "sft" / "seed1"
    read = [one["step"] for _, one in store.read_objects(run / "validation.jsonl")]
    assert read == [1, 2], "patience had run out at the first checkpoint"
    assert store.read_json(run / "record.json")["summary"]["stopped_at"] == 2
    results = store.read_json(folder / "stats" / "results.json")
    (arm,) = [one for one in results["arms"] if one["name"] == "sft"]
    assert arm["steps"] == 2
    assert any("loss of held-out examples was no longer lower" in one for one in arm["notes"])
    assert any("lowest loss of held-out examples" in one for one in arm["notes"])
    assert any("6 examples are held out" in one for one in results["warnings"])
    again = study.schedule(study.plan(load.load(path), folder))
    assert all(step.done for step in again)


def _session(folder: Path, **train: Any) -> Session:
    path = _write(folder, "lab", **train)
    return prepare(load.load(path), folder / "runs", "study.yaml")


def test_the_same_are_held_out_for_every_arm_and_nothing_else_changes(tmp_path: Path) -> None:
    plain, split = _session(tmp_path), _session(tmp_path, val_size=5)
    assert not plain.held and "validation" not in [one.name for one in plain.stages]
    assert len(split.held) == 5 and len(split.plain) == 19
    assert {one.id for one in plain.plain} == {one.id for one in (*split.plain, *split.held)}
    assert split.plan.training_items == 19
    assert split.plan.notices == (
        "5 examples are held out: no arm trains on them, and their loss is read at every "
        "checkpoint",
    )
    (stage,) = [one for one in split.stages if one.name.startswith("train/")]
    assert "validation" in stage.needs and stage.identity["train"]["val_size"] == 5
    (before,) = [one for one in plain.stages if one.name.startswith("train/")]
    assert "val_size" not in before.identity["train"], "fingerprints of before stay"


def _jsonl(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"question": asked, "answer": said}) for asked, said in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _own(folder: Path, held: list[tuple[str, str]], **train: Any) -> Session:
    rows = [(f"What is {n} plus {n} in all the numbers?", str(2 * n)) for n in range(12)]
    tests = [(f"Say the name of city number {n} of the list", str(n)) for n in range(4)]
    mine = {
        "kind": "jsonl", "role": "target", "grader": "number",
        "train_path": str(_jsonl(folder / "train.jsonl", rows)),
        "path": str(_jsonl(folder / "test.jsonl", tests)),
    }  # fmt: skip
    settings = TRAIN | {"val_path": str(_jsonl(folder / "held.jsonl", held))} | train
    text = {"name": "s", "model": "lab", "tasks": {"mine": mine}, "train": settings,
            "arms": {"sft": {}}}  # fmt: skip
    return prepare(load.load(text), folder / "runs", "study.yaml")


def test_a_file_of_its_own(tmp_path: Path) -> None:
    shared = ("What is 3 plus 3 in all the numbers?", "6")
    found = _own(tmp_path, [("How many legs has a spider?", "8"), shared])
    assert [one.question for one in found.held] == ["How many legs has a spider?", shared[0]]
    assert len(found.plain) == 11 and shared[0] not in {one.question for one in found.plain}
    assert "1 training examples that ask the same are left out" in found.plan.notices[0]


def test_evaluation_questions_are_not_held_out_either(tmp_path: Path) -> None:
    with pytest.raises(LeakError) as caught:
        _own(tmp_path, [("Say the name of city number 2 of the list", "2")])
    assert "val_path" in caught.value.where


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"val_size": 24}, "leaves nothing of 24 examples"),
        ({"val_path": "held.jsonl"}, "lab_math has no train_path"),
    ],
)
def test_what_cannot_be_held_out(train: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        _session(tmp_path, **train)
    assert "train.val_" in caught.value.where
