"""Sweeps are written out, and budgets kept equal."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.config import Study
from holdfast.config.sweeps import expand
from holdfast.errors import StudyError


def _study(**arms: dict[str, Any]) -> Study:
    return Study(
        name="s", model="lab", tasks={"lab_math": {"role": "target"}}, arms=arms,
        train={"lora": {"r": 8, "alpha": 16}},
    )  # fmt: skip


def test_a_list_is_a_sweep_and_the_other_settings_stay() -> None:
    found = expand(_study(sft={"train": {"learning_rate": [1e-5, 0.004], "weight_decay": 0.1}}))
    assert list(found) == ["sft-lr1e-05", "sft-lr0.004"]
    assert [one.family for one in found.values()] == ["sft", "sft"]
    assert [one.train.learning_rate for one in found.values()] == [1e-5, 0.004]
    assert {one.train.weight_decay for one in found.values()} == {0.1}
    assert {one.train.lora.r for one in found.values()} == {8}
    assert all(one.trains for one in found.values())


def test_several_lists_are_combined_and_aliases_are_understood() -> None:
    found = expand(_study(a={"train": {"lr": [1e-4, 1e-3], "lora": {"rank": [4, 16]}}}))
    assert list(found) == ["a-lr0.0001-r4", "a-lr0.0001-r16", "a-lr0.001-r4", "a-lr0.001-r16"]
    assert found["a-lr0.001-r4"].train.lora.r == 4
    assert found["a-lr0.001-r4"].train.lora.alpha == 16, "of the study"


def test_a_list_of_modules_is_one_setting() -> None:
    found = expand(_study(a={"train": {"lora": {"target_modules": ["q_proj", "v_proj"]}}}))
    assert list(found) == ["a"]
    assert found["a"].train.lora.target_modules == ("q_proj", "v_proj")
    several = expand(_study(a={"train": {"lora": {"target_modules": ["mlp", "attention"]}}}))
    assert [one.train.lora.target_modules for one in several.values()] == ["mlp", "attention"]
    swept = [["q_proj"], ["up_proj", "down_proj"]]
    found = expand(_study(a={"train": {"lora": {"target_modules": swept}}}))
    assert [one.train.lora.target_modules for one in found.values()] == [
        ("q_proj",), ("up_proj", "down_proj"),
    ]  # fmt: skip


def test_an_arm_may_use_the_training_of_another_sweep_included() -> None:
    found = expand(_study(
        sft={"train": {"learning_rate": [1e-4, 1e-3]}},
        scaled={"from": "sft", "weights": ["scale"]},
        told={"from": "base", "ask": ["system_prompt"]},
    ))  # fmt: skip
    assert list(found) == [
        "sft-lr0.0001",
        "sft-lr0.001",
        "scaled-lr0.0001",
        "scaled-lr0.001",
        "told",
    ]
    assert found["scaled-lr0.001"].source == "sft-lr0.001"
    assert not found["scaled-lr0.001"].trains
    assert found["scaled-lr0.001"].train.learning_rate == 1e-3
    assert found["told"].source == "base"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"train": {"num_train_epochs": 9}}}, "budgets would not be equal"),
        ({"a": {"train": {"epochs": [1, 2]}}}, "budgets would not be equal"),
        ({"a": {"train": {"lerning_rate": 1}}}, "did you mean 'learning_rate'"),
        ({"a": {"train": {"learning_rate": "fast"}}}, "train.learning_rate"),
        ({"a": {"train": {"learning_rate": []}}}, "the sweep is empty"),
        ({"a": {"train": {"lr": 1, "learning_rate": 2}}}, "given under two names"),
        ({"a": {"train": {"lora": {"r": [4, 8], "rank": 2}}}}, "given under two names"),
        ({"a": {"train": {"lora": 5}}}, "is no section"),
        ({"a": {"from": "sfd"}, "sft": {}}, "did you mean 'sft'"),
        ({"a": {"from": "b"}, "b": {"from": "sft"}, "sft": {}}, "no arm with a training"),
        ({"a-lr0.1": {}, "a": {"train": {"lr": [0.1, 0.2]}}}, "two arms are called 'a-lr0.1'"),
    ],
)
def test_what_cannot_be_is_said(arms: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        expand(_study(**arms), "study.yaml")
    assert "study.yaml" in caught.value.where
    assert caught.value.remedy
