"""A model's own class says how many parameters it has, where its fields do not."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import ModelError, StudyError
from holdfast.memory.model.catalogue import Found, locate
from holdfast.memory.model.paths import pattern_of
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.targets import lora_parameters
from holdfast.memory.planner.counting import counted, shape_by_class
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.trace import answers, counts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
STABLELM = {**SIZES, "model_type": "stablelm", "num_key_value_heads": 2, "intermediate_size": 48,
            "use_qkv_bias": True}  # fmt: skip
OPT = {"model_type": "opt", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2,
       "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32,
       "max_position_embeddings": 64}  # fmt: skip
WIDE = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48}
EXPERTS = {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2}
SPARSE = {**WIDE, "moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2,
          "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
          "num_hidden_layers": 3}  # fmt: skip
STATES = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1,
          "mamba_expand": 2}  # fmt: skip
PICTURES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
FAMILIES: dict[str, dict[str, object]] = {
    "stablelm": STABLELM,
    "opt": OPT,
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "starcoder2": {**WIDE, "use_bias": True, "tie_word_embeddings": True},
    "cohere": {**WIDE, "tie_word_embeddings": True},
    "gpt_oss": {**EXPERTS, "layer_types": ["sliding_attention", "full_attention"]},
    "granitemoe": EXPERTS,
    "glm4_moe": {**SPARSE, "num_nextn_predict_layers": 1},
    "deepseek_v3": {**SPARSE, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
                    "qk_nope_head_dim": 8, "v_head_dim": 8},
    "bamba": {**WIDE, **STATES, "attn_layer_indices": [1]},
    "lfm2": {**WIDE, "layer_types": ["conv", "full_attention"]},
    "electra": {**SIZES, "embedding_size": 16, "intermediate_size": 48, "is_decoder": True},
    "bart": {"vocab_size": 96, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4,
             "decoder_ffn_dim": 48, "max_position_embeddings": 64},
    "llava": {"text_config": {"model_type": "llama", **WIDE},
              "vision_config": {"model_type": "clip_vision_model", "projection_dim": 16,
                                **PICTURES}},
    "qwen2_5_vl": {
        "text_config": {"model_type": "qwen2_5_vl_text", **WIDE,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                            "mrope_section": [1, 1, 2]}},
        "vision_config": {"depth": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24,
                          "out_hidden_size": 32, "fullatt_block_indexes": [1]},
    },
}  # fmt: skip
"""Other biases, other names, no gate, one norm, shared experts, several heads, states, towers."""
ODD = """
from transformers import LlamaConfig, LlamaForCausalLM
class OddConfig(LlamaConfig):
    model_type = 'odd'
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


def _folder(at: Path, config: dict[str, object], code: str = "") -> str:
    at.mkdir(parents=True)
    (at / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if code:
        (at / "odd.py").write_text(code, encoding="utf-8")
    return str(at)


def _built(config: Mapping[str, object]) -> PreTrainedModel:
    """By transformers itself, as training loads it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    values = dict(config)
    made = AutoConfig.for_model(str(values.pop("model_type")), **values)
    pictures = AutoModelForImageTextToText if "vision_config" in values else AutoModelForCausalLM
    with torch.device("meta"):
        model: PreTrainedModel = pictures.from_config(made)
    return model


def _true(config: Mapping[str, object]) -> int:
    return sum(one.numel() for one in _built(config).parameters())


def _adapted(config: Mapping[str, object], **lora: object) -> int:
    """Parameters of the adapters as training makes them."""
    from holdfast.config import LoraSpec, TrainSpec
    from holdfast.train.adapter_check import build

    made = build(_built(config), TrainSpec(lora=LoraSpec(r=8, **lora)))[0]
    return sum(one.numel() for one in made.parameters() if one.requires_grad)


def _here(question: Mapping[str, object]) -> dict[str, object]:
    """The class, asked in this process."""
    from holdfast.memory.trace.class_counter import answer

    return answer(question)


def _of(name: str, at: Path) -> tuple[dict[str, object], Found]:
    config = {"model_type": name, **FAMILIES[name]}
    return config, locate(_folder(at / "m", config))


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_and_adapters_are_those_of_the_class(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_asked", _here)
    config, found = _of(name, tmp_path)
    shape = shape_by_class(found, None, False, tmp_path)
    assert shape.parameters == _true(config)
    assert lora_parameters(shape, 8) == _adapted(config, target_modules="all-linear")
    attention = _adapted(config, target_modules="attention")
    assert lora_parameters(shape, 8, "attention") == attention > 0


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("glm4_moe", ["gate_proj", "up_proj", "down_proj"]),  # to PEFT all of these are experts
        ("bamba", ["out_proj"]),  # a mixer's, which "all-linear" leaves out
        ("bamba", ["layers.1.self_attn.q_proj"]),
        ("bamba", r".*layers\.1\..*_proj"),
        ("llava", ["q_proj", "v_proj"]),  # the tower has such names too
        ("llava", ["fc1"]),  # only the tower has
        ("llava", ["encoder.layers.0.self_attn.q_proj", "multi_modal_projector.linear_1"]),
        ("llava", r".*vision_tower.*\.layers\.[12]\..*fc\d"),
    ],
)
def test_what_is_named_gets_adapters_whether_tower_or_mixer(
    name: str, targets: list[str] | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_asked", _here)
    config, found = _of(name, tmp_path)
    shape = shape_by_class(found, None, False, tmp_path)
    assert lora_parameters(shape, 8, targets) == _adapted(config, target_modules=targets)


def test_adapters_on_some_layers_leave_the_rest_and_wrong_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_asked", _here)
    config, found = _of("llava", tmp_path)
    shape = shape_by_class(found, None, False, tmp_path)
    assert lora_parameters(shape, 8, layers=[1]) == _adapted(config, layers=[1])
    config, found = _of("bamba", tmp_path / "hybrid")
    hybrid = shape_by_class(found, None, False, tmp_path)
    assert lora_parameters(hybrid, 8, layers=[1]) == _adapted(config, layers=[1])
    with pytest.raises(StudyError, match="no linear layer called 'q_porj'"):
        lora_parameters(shape, 8, ["q_porj"])
    assert "vision tower is loaded too" in shape.note and shape.tower_parameters > 0


def test_a_plain_script_adapts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_asked", _here)
    config, found = _of("llava", tmp_path)
    pattern, stacked = pattern_of(shape_by_class(found, None, False, tmp_path), "all-linear")
    assert isinstance(pattern, str) and not stacked
    names = [name for name, one in _built(config).named_modules() if hasattr(one, "in_features")]
    meant = {name for name in names if re.fullmatch(pattern, name)}
    assert meant == {name for name in names if ".language_model." in name}
    _, found = _of("bamba", tmp_path / "hybrid")
    some, _ = pattern_of(shape_by_class(found, None, False, tmp_path), "all-linear")
    assert "in_proj" in some and "out_proj" not in some, "a mixer reads it without calling it"
    _, found = _of("stablelm", tmp_path / "plain")
    assert pattern_of(shape_by_class(found, None, False, tmp_path), "all-linear")[0] == "all-linear"


@pytest.mark.parametrize("config", [STABLELM, OPT], ids=["other biases", "other names"])
def test_a_family_that_is_not_counted_by_its_fields_is_counted_by_its_class(
    config: dict[str, object], tmp_path: Path
) -> None:
    found = locate(_folder(tmp_path / "m", config))
    shape, told = counted(found, None, False, tmp_path)
    assert shape.parameters == _true(config)
    assert shape.linear_parameters > 0 and told and told.key.startswith("counted_")
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
    assert any("ounted by the code that the model brings" in note for note in report.notes)


def test_own_code_that_cannot_be_built_is_refused_with_what_to_do(tmp_path: Path) -> None:
    config = {**SIZES, "model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig"}}
    model = _folder(tmp_path / "m", config, "import a_package_that_is_not_there\n")
    with pytest.raises(ModelError, match="a_package_that_is_not_there") as caught:
        plan(PlanRequest(model, "1x8GiB", trace=False, trust=True))
    assert caught.value.remedy


def test_where_the_class_cannot_be_asked_no_size_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    answer = {"reason": "ValueError: a bad head", "passing": False}
    monkeypatch.setattr(counts, "_asked", lambda question: asked.append(question) or answer)
    found = locate(_folder(tmp_path / "m", STABLELM))
    said = set()
    for _ in range(2):
        with pytest.raises(ModelError, match="do not tell the size of a stablelm") as caught:
            shape_by_class(found, None, False, tmp_path, ask=False)
        said.add(str(caught.value))
    assert len(said) == len(asked) == 1 and "a bad head" in said.pop() and caught.value.remedy
    llama = locate(_folder(tmp_path / "l", {**WIDE, "model_type": "llama"}))
    shape, told = counted(llama, None, False, tmp_path)
    assert shape.parameters == _true(llama.config) and told and "a bad head" in told.words("en")
    assert len(asked) == 2
    assert counted(llama, None, False, tmp_path / "else", ask=False) == (shape, None)
    assert len(asked) == 2, "its fields tell it"


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "versions", lambda: {"torch": "2"})
    with pytest.raises(ModelError, match="transformers not installed") as caught:
        shape_by_class(locate(_folder(tmp_path / "m", OPT)), None, False, tmp_path)
    assert "install" in str(caught.value.remedy) and not list(tmp_path.glob("*.json"))


def test_a_failure_that_may_pass_is_believed_for_an_hour(tmp_path: Path) -> None:
    file = answers.place(tmp_path, "a question")
    answers.keep(file, answers.failure("took longer than 60 s", 60.0))
    assert answers.read(file, 60.0) == answers.failure("took longer than 60 s", 60.0)
    assert answers.read(file, 120.0) is None, "who waits longer asks again"
    old = time.time() - answers.BELIEVED_S - 1
    os.utime(file, (old, old))
    assert answers.read(file, 60.0) is None
    answers.keep(file, {"reason": "its code is wrong"})
    os.utime(file, (old, old))
    assert answers.read(file, 60.0) == {"reason": "its code is wrong"}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llava", "text_config": {"model_type": "no_such_kind", **WIDE}},
        {"model_type": "vit", **WIDE},
        {"model_type": "stablelm", **WIDE, "num_attention_heads": 0},
    ],
    ids=["unknown inside", "no language model", "impossible"],
)
def test_what_transformers_cannot_build_is_refused(
    config: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(question: Mapping[str, object]) -> dict[str, object]:
        try:
            return _here(question)
        except Exception as error:
            return {"reason": f"{type(error).__name__}: {error}"}

    monkeypatch.setattr(counts, "_asked", asked)
    with pytest.raises(ModelError, match="cannot build its class") as caught:
        shape_by_class(locate(_folder(tmp_path / "m", config)), None, False, tmp_path)
    assert caught.value.remedy


def test_bases_in_few_bits_are_counted_as_they_are_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "_asked", _here)
    config = {"model_type": "gpt_oss", **FAMILIES["gpt_oss"]}
    stored = {**config, "quantization_config": {"quant_method": "mxfp4"}}
    shape = shape_by_class(locate(_folder(tmp_path / "m", stored)), None, False, tmp_path)
    assert shape.parameters == _true(config) and shape.stored and shape.stored.kind == "mxfp4"


def test_what_a_plan_was_told_holds_for_the_study_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(counts, "_asked", _here)
    model = _folder(tmp_path / "m", STABLELM)
    before = read_shape(model).parameters
    shape = shape_by_class(locate(model), None, False)
    assert read_shape(model).parameters == shape.parameters != before


def test_families_that_are_counted_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: object) -> dict[str, object]:
        raise AssertionError

    monkeypatch.setattr(counts, "_asked", never)
    for name in ("Qwen/Qwen2.5-7B", "openai/gpt-oss-20b", "mistralai/Mixtral-8x7B-v0.1"):
        assert shape_by_class(locate(name), None, False).parameters > 10**9
