"""Attention and rotary scaling: checked from the configuration, in force wherever a model loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import models
from holdfast.config import ModelSpec
from holdfast.errors import HoldfastError, MissingDependency, StudyError
from holdfast.models import ModelRef, attention
from holdfast.runs.store import fingerprint


def _ref(folder: Path, **settings: Any) -> ModelRef:
    return models.reference(ModelSpec(id=str(folder), **settings))


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_the_positions_are_stretched_and_the_rest_is_as_it_was(name: str, tiny_model: Path) -> None:
    wanted = {"rope_type": "linear", "factor": 4.0}
    ref = _ref(tiny_model, attn_implementation="eager", **{name: wanted})
    model = models.load_model(ref, torch.float32, "cpu")
    plain = models.load_model(_ref(tiny_model), torch.float32, "cpu")
    assert model.config._attn_implementation == "eager"
    one, other = (each.model.rotary_emb.inv_freq for each in (model, plain))
    assert torch.allclose(one * 4, other)
    same = zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
    assert all(torch.equal(left, right) for left, right in same)
    attention.check(ref, "cpu")


def test_they_are_part_of_what_the_model_is_where_they_are_given(tiny_model: Path) -> None:
    plain = models.identity(_ref(tiny_model))
    assert "rope" not in plain and "attention" not in plain
    rope = models.identity(_ref(tiny_model, rope_scaling={"rope_type": "linear", "factor": 2.0}))
    eager = models.identity(_ref(tiny_model, attn_implementation="eager"))
    assert len({fingerprint(one) for one in (plain, rope, eager)}) == 3


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"rope_type": "yarn", "factor": 2.0}, ""),
        ({"type": "dynamic", "factor": 2.0}, ""),
        ({"factor": 2.0}, "needs rope_type"),
        ({"rope_type": "yarm", "factor": 2.0}, "did you mean 'yarn'"),
        ({"rope_type": "linear", "factr": 2.0}, "unknown key factr .did you mean 'factor'"),
        ({"rope_type": "linear", "factor": -2}, "from 1 on, not -2"),
        ({"rope_type": "linear", "factor": "x"}, "from 1 on, not 'x'"),
        ({"rope_type": "yarn"}, "factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "low_freq_factor"),
        ({"rope_type": "longrope", "factor": 8.0}, "short_factor"),
    ],
)
def test_a_scaling_that_cannot_be(rope: dict[str, Any], message: str, tiny_model: Path) -> None:
    ref = _ref(tiny_model, rope_scaling=rope)
    if not message:
        attention.check(ref, "cpu")
        return
    with pytest.raises(StudyError, match=message) as caught:
        attention.check(ref, "cpu")
    assert caught.value.where == "model.rope_scaling" and caught.value.remedy


def _config(folder: Path, config: Any) -> ModelRef:
    config.save_pretrained(folder)
    return ModelRef(str(folder), rope={"rope_type": "linear", "factor": 2.0})


def test_models_without_one_kind_of_rotary_positions(tmp_path: Path) -> None:
    from transformers import Gemma3TextConfig, GPT2Config

    with pytest.raises(StudyError, match="gpt2 has no rotary positions"):
        attention.check(_config(tmp_path / "a", GPT2Config(n_layer=1)), "cpu")
    with pytest.raises(StudyError, match="of several kinds"):
        attention.check(_config(tmp_path / "b", Gemma3TextConfig(num_hidden_layers=6)), "cpu")


@pytest.mark.parametrize("name", ["eager", "sdpa", "flex_attention"])
def test_an_attention_that_is_there(name: str, tiny_model: Path) -> None:
    attention.check(_ref(tiny_model, attn_implementation=name), "cpu")


def test_flash_attention_needs_a_gpu_and_its_package(tiny_model: Path) -> None:
    ref = _ref(tiny_model, attn_implementation="flash_attention_2")
    with pytest.raises(StudyError, match="runs on GPUs only"):
        attention.check(ref, "cpu")
    with pytest.raises(HoldfastError) as caught:
        attention.check(ref, "cuda")
    assert isinstance(caught.value, MissingDependency) and "flash-attn" in caught.value.remedy
