"""A model's own class says how many parameters it has, where its fields do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.errors import ModelError
from holdfast.memory.model.catalogue import locate
from holdfast.memory.planner.planner import plan, shape_by_class
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.trace import measuring

SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
STABLELM = {**SIZES, "model_type": "stablelm", "num_key_value_heads": 2, "intermediate_size": 48,
            "use_qkv_bias": True}  # fmt: skip
OPT = {"model_type": "opt", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2,
       "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32,
       "max_position_embeddings": 64}  # fmt: skip
ODD = """
from transformers import LlamaConfig, LlamaForCausalLM
class OddConfig(LlamaConfig):
    model_type = 'odd'
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


def _folder(at: Path, config: dict[str, object], code: str = "") -> str:
    at.mkdir()
    (at / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if code:
        (at / "odd.py").write_text(code, encoding="utf-8")
    return str(at)


def _true(config: dict[str, object]) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(config)
    made = AutoConfig.for_model(str(values.pop("model_type")), **values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    return sum(one.numel() for one in model.parameters())


@pytest.mark.parametrize("config", [STABLELM, OPT], ids=["other biases", "other names"])
def test_a_family_that_is_not_counted_by_its_fields_is_counted_by_its_class(
    config: dict[str, object], tmp_path: Path
) -> None:
    found = locate(_folder(tmp_path / "m", config))
    shape = shape_by_class(found, None, False, tmp_path)
    assert shape.parameters == _true(config)
    assert shape.linear_parameters > 0 and "counted by its own class" in shape.note
    kept = list(tmp_path.glob("*.json"))
    assert len(kept) == 1, "the next plan does not ask again"
    kept[0].write_text(kept[0].read_text().replace('"total": ', '"total": 1'), encoding="utf-8")
    assert shape_by_class(found, None, False, tmp_path).parameters > shape.parameters


def test_a_models_own_code_counts_it_only_where_it_is_trusted(tmp_path: Path) -> None:
    auto = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    config = {**SIZES, "model_type": "odd", "auto_map": auto, "intermediate_size": 48,
              "num_key_value_heads": 2}  # fmt: skip
    ran = tmp_path / "ran"
    model = _folder(tmp_path / "m", config, f"open({str(ran)!r}, 'w').close()\n{ODD}")
    asked = PlanRequest(model, "1x8GiB", trace=False)
    with pytest.raises(ModelError, match="Python code of its own"):
        plan(asked)
    assert not ran.exists()
    report = plan(PlanRequest(model, "1x8GiB", trace=False, trust=True))
    llama = {**config, "model_type": "llama"}
    del llama["auto_map"]
    assert ran.exists() and report.comparison.shape.parameters == _true(llama)
    assert any("ounted by the code that it brings" in note for note in report.notes)


def test_own_code_that_cannot_be_built_is_refused_with_what_to_do(tmp_path: Path) -> None:
    config = {**SIZES, "model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig"}}
    model = _folder(tmp_path / "m", config, "import a_package_that_is_not_there\n")
    with pytest.raises(ModelError, match="a_package_that_is_not_there") as caught:
        plan(PlanRequest(model, "1x8GiB", trace=False, trust=True))
    assert caught.value.remedy


def test_where_the_class_cannot_be_asked_the_fields_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_asked", lambda _: {"reason": "no torch"})
    found = locate(_folder(tmp_path / "m", STABLELM))
    shape = shape_by_class(found, None, False, tmp_path)
    assert not shape.exact and not list(tmp_path.glob("*.json"))
    with pytest.raises(ModelError, match="intermediate_size"):
        shape_by_class(locate(_folder(tmp_path / "o", OPT)), None, False, tmp_path)


def test_families_that_are_counted_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: object) -> dict[str, object]:
        raise AssertionError

    monkeypatch.setattr(measuring, "_asked", never)
    for name in ("Qwen/Qwen2.5-7B", "openai/gpt-oss-20b", "mistralai/Mixtral-8x7B-v0.1"):
        assert shape_by_class(locate(name), None, False).parameters > 10**9
