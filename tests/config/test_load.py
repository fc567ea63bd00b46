"""Is every mistake in a study file named, with its place and its remedy?"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from holdfast import config
from holdfast.config import Study, TrainSpec, load
from holdfast.config.recipes import recipe_file
from holdfast.errors import StudyError

GOOD = """\
name: s
model: lab
tasks:
  lab_math: {role: target}
  lab_help:
train:
  learning_rate: 1e-4
arms:
  sft:
"""


def _load(tmp_path: Path, text: str, *overrides: str) -> Study:
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load.load(path, overrides)


def test_a_good_file(tmp_path: Path) -> None:
    study = _load(tmp_path, GOOD)
    assert study.target == "lab_math"
    assert study.model.id == "lab"
    assert study.train.learning_rate == 1e-4
    assert list(study.arms) == ["sft"]


def test_the_starting_recipe_is_the_default() -> None:
    train = TrainSpec()
    assert (train.lora.r, train.lora.alpha, train.lora.dropout) == (16, 16, 0.05)
    assert train.lora.target_modules == "all-linear"
    assert (train.per_device_train_batch_size, train.accumulation) == (1, 4)
    assert (train.optim, train.num_train_epochs) == ("paged_adamw_32bit", 2)
    assert (train.learning_rate, train.lr_scheduler_type) == (2e-4, "linear")
    assert (train.logging_steps, train.save_steps, train.group_by_length) == (0.1, 0.1, True)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("learning_rate", "learning_rat"), r"study\.yaml:7: train\.learning_rat.*'learning_rate'"),
        (("1e-4", "fast"), r"study\.yaml:7: train\.learning_rate: .*number.*'fast'"),
        (("1e-4", "-1"), r"train\.learning_rate: .*greater than 0"),
        (("role: target", "role: goal"), r"study\.yaml:4: tasks\.lab_math\.role: .*'target'"),
        (("role: target", "role: retained"), r"exactly one task needs `role: target`"),
        (("name: s", "nam: s"), r"line 1: nam: unknown key \(did you mean 'name'\?\)"),
        (("model: lab\n", ""), r"model: is required"),
        (("  sft:\n", "  base:\n"), r"cannot be called 'base'"),
        (("arms:\n  sft:\n", "arms: {}\n"), r"arms: .*at least 1"),
        (("name: s", "name: a/b"), r"study\.yaml:1: name: "),
        (("  sft:\n", "  sft: {data: [{a: {}, b: {}}]}\n"), r"each entry is one method"),
        (("train:\n", "train:\n  lora: {rnak: 3}\n"), r"train\.lora\.rnak: unknown key.*'rank'"),
        (("train:\n", "train:\n  global_batch_size: 3\n  micro_batch_size: 2\n"), "not a multiple"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: tuple[str, str], wanted: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(StudyError, match=wanted) as caught:
        _load(tmp_path, GOOD.replace(*change))
    assert "→" in str(caught.value), "every error names a remedy"


def test_broken_yaml_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"study\.yaml:2: is not valid YAML"):
        _load(tmp_path, "name: s\n  model: [")
    with pytest.raises(StudyError, match="empty"):
        _load(tmp_path, "")
    with pytest.raises(StudyError, match="No such file"):
        load.load(tmp_path / "none.yaml")


def test_overrides_win_under_any_name(tmp_path: Path) -> None:
    study = _load(tmp_path, GOOD, "train.lr=0.5", "seeds=[1, 2]", "arms.replay.data=[replay]")
    assert study.train.learning_rate == 0.5
    assert study.seeds == (1, 2)
    assert study.arms["replay"].data == ({"replay": None},)
    with pytest.raises(StudyError, match="not an override"):
        _load(tmp_path, GOOD, "train.lr")
    with pytest.raises(StudyError, match=r"train\.lrr: unknown key"):
        _load(tmp_path, GOOD, "train.lrr=1")
    with pytest.raises(StudyError, match="not a section"):
        _load(tmp_path, GOOD, "name.x=1")


@pytest.mark.parametrize("recipe", ["hw6", "jsonl", "lab"])
def test_recipes_are_valid_studies(recipe: str) -> None:
    assert load.load(recipe_file(recipe)).arms


def test_every_field_is_documented() -> None:
    sections = {
        one for one in vars(config).values() if isinstance(one, type) and issubclass(one, BaseModel)
    }
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no docstring"
