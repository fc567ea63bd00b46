"""What gets an adapter, on the kinds of models that people bring; built on the meta device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fixtures.timing import worked

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import HoldfastError, ModelError, StudyError
from holdfast.models import ModelRef
from holdfast.train.adapter_check import build, check_mergeable, check_model, on_meta

S: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DELTA = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
         "linear_value_head_dim": 16, "head_dim": 16}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
EYES = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
        "out_hidden_size": 64}  # fmt: skip
QKVO, GUD = (
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    ("mlp.gate_proj mlp.up_proj mlp.down_proj"),
)
EXPERTS = "experts.base_layer mlp.experts"
TRANSLATED = r"no dropout.*0 instead of 0\.05"
BY_NAME = "does not adapt by itself"
UNSEEN = r"without calling their layer.*out_proj"
TOWER = "pictures or sounds"

MODELS: dict[str, tuple[dict[str, Any], str, str]] = {
    # model_type: its configuration, what all-linear adapts, what is said
    "llama": ({}, f"{QKVO} {GUD}", ""),
    "phi3": ({}, "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj", ""),
    "gpt2": (
        {"n_embd": 64, "n_layer": 2, "n_head": 4},
        "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj", "",
    ),
    "gpt_neox": (
        {}, "attention.query_key_value attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h", "",
    ),
    "falcon": (
        {}, "self_attention.query_key_value self_attention.dense mlp.dense_h_to_4h "
        "mlp.dense_4h_to_h", "",
    ),
    "opt": (
        {"word_embed_proj_dim": 64, "ffn_dim": 64, "max_position_embeddings": 64},
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj *.fc1 *.fc2", "",
    ),
    "mixtral": ({"num_local_experts": 4}, f"{QKVO} {EXPERTS}", TRANSLATED),
    "qwen3_moe": ({**MOE, "head_dim": 16}, f"{QKVO} {EXPERTS}", TRANSLATED),
    "olmoe": ({"num_experts": 4}, f"{QKVO} {EXPERTS}", TRANSLATED),
    "qwen2_moe": (
        {**MOE, "shared_expert_intermediate_size": 16},
        f"{QKVO} shared_expert.gate_proj shared_expert.up_proj shared_expert.down_proj "
        "mlp.shared_expert_gate", BY_NAME,
    ),
    "qwen3_next": (
        {**MOE, **DELTA, "shared_expert_intermediate_size": 16},
        f"{QKVO} {EXPERTS} mlp.shared_expert_gate linear_attn.in_proj_qkvz linear_attn.in_proj_ba "
        "linear_attn.out_proj", r"takes these.*shared_expert\.gate_proj",
    ),
    "deepseek_v3": (
        {"num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
         "topk_group": 1, "moe_intermediate_size": 16, "q_lora_rank": 16, "kv_lora_rank": 16,
         "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
         "first_k_dense_replace": 1},
        f"self_attn.q_a_proj self_attn.q_b_proj self_attn.kv_a_proj_with_mqa self_attn.kv_b_proj "
        f"self_attn.o_proj {EXPERTS}", r"takes these.*mlp\.gate_proj",
    ),
    "gpt_oss": (
        {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}, QKVO, BY_NAME,
    ),
    "granitemoe": ({"num_local_experts": 4}, QKVO, BY_NAME),
    "falcon_h1": (
        {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16},
        f"{QKVO} {GUD.replace('mlp', 'feed_forward')} mamba.in_proj", UNSEEN,
    ),
    "mamba2": (
        {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1}, "mixer.in_proj", UNSEEN,
    ),
    "bamba": (
        {**MAMBA, "attn_layer_indices": [1]},
        f"{QKVO} {GUD.replace('mlp', 'feed_forward')} mamba.in_proj", UNSEEN,
    ),
    "qwen3_5_text": (
        DELTA, f"{QKVO} {GUD} linear_attn.in_proj_qkv linear_attn.in_proj_z linear_attn.in_proj_a "
        "linear_attn.in_proj_b linear_attn.out_proj", "",
    ),
    "gemma3": (
        {"text_config": {**S, "head_dim": 16}, "vision_config": VISION}, f"{QKVO} {GUD}", TOWER,
    ),
    "qwen2_5_vl": ({"text_config": S, "vision_config": EYES}, f"{QKVO} {GUD}", TOWER),
    "llava": (
        {"text_config": {**S, "model_type": "llama"},
         "vision_config": {**VISION, "model_type": "clip_vision_model"}}, f"{QKVO} {GUD}", TOWER,
    ),
    "llama4_text": (
        {"head_dim": 16, "num_local_experts": 4, "intermediate_size_mlp": 64},
        f"{QKVO} shared_expert.gate_proj shared_expert.up_proj shared_expert.down_proj",
        "chooses experts.*router",
    ),
}  # fmt: skip
PATTERN = r"model\.language_model\.layers\.[\d]+\.(mlp|self_attn)\.(up|down|q|k|v)_proj"


def model_of(kind: str) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    given = MODELS[kind][0]
    fields = given if "text_config" in given else {**S, **given}
    config = AutoConfig.for_model(kind, **fields)
    pictures = kind in ("qwen2_5_vl", "llava")
    with torch.device("meta"):
        made = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
        return made.from_config(config)


def spec_of(**lora: Any) -> TrainSpec:
    return TrainSpec(lora=LoraSpec(**{"r": 4, **lora}))


def kinds_of(adapted: Any) -> set[str]:
    """The last two parts of the names of what has an adapter; numbers are stars."""
    found = set()
    for name, _ in adapted.named_parameters():
        head, here, _ = name.partition(".lora_A.")
        head, here = (head, here) if here else name.partition(".lora_embedding_A")[:2]
        if here:
            parts = ["*" if part.isdigit() else part for part in head.split(".")]
            found.add(".".join(parts[-2:]))
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_all_linear_with_the_starting_recipe(kind: str) -> None:
    adapted, targets = build(model_of(kind), TrainSpec())
    assert kinds_of(adapted) == set(MODELS[kind][1].split())
    said = " | ".join(targets.notices)
    assert re.search(MODELS[kind][2], said) if MODELS[kind][2] else not said
    assert targets.dropout == (0.0 if targets.parameters else 0.05)
    trained = [name for name, one in adapted.named_parameters() if one.requires_grad]
    never = ("vision", "visual", "router", "mlp.gate.")
    assert trained and not any(part in name for name in trained for part in never)


@pytest.mark.parametrize("kind", [one for one in MODELS if one not in ("mamba2",)])
def test_presets_on_every_model(kind: str) -> None:
    everything = set(MODELS[kind][1].split())
    attention = kinds_of(build(model_of(kind), spec_of(target_modules="attention"))[0])
    assert attention and attention <= everything
    assert all("attn" in one or "attention" in one for one in attention)
    if kind in ("gpt_oss", "granitemoe"):  # nothing but stacked experts
        with pytest.raises(StudyError, match=r"target_parameters"):
            build(model_of(kind), spec_of(target_modules="mlp"))
        return
    mlp = kinds_of(build(model_of(kind), spec_of(target_modules="mlp"))[0])
    assert mlp and not mlp & attention and everything - attention - mlp <= {"mamba.in_proj"}


def test_layers_and_experts_go_together() -> None:
    """PEFT alone forgets the layers of stacked experts."""
    adapted, targets = build(model_of("qwen3_moe"), spec_of(layers=(1,), dropout=0))
    trained = [name for name, one in adapted.named_parameters() if one.requires_grad]
    assert trained and all(".layers.1." in name for name in trained)
    assert any("experts" in name for name in trained)
    assert targets.parameters == tuple(
        f"model.layers.1.mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")
    )


@pytest.mark.parametrize("variant", ["dora", "oft", "osf", "corda"])
def test_other_variants_leave_stacked_experts(variant: str) -> None:
    adapted, targets = build(model_of("qwen3_moe"), spec_of(variant=variant, dropout=0))
    trained = [name for name, one in adapted.named_parameters() if one.requires_grad]
    assert trained and not any("experts" in name for name in trained)
    assert "they stay as they are" in " ".join(targets.notices)


def test_experts_by_name() -> None:
    spec = spec_of(target_parameters=("experts.gate_up_proj",))
    adapted, targets = build(model_of("gpt_oss"), spec)
    assert kinds_of(adapted) == {*QKVO.split(), "mlp.experts"}
    assert targets.dropout == 0 and "no dropout" in " ".join(targets.notices)
    with pytest.raises(StudyError, match=r"no parameter called 'experts\.gate'.*\n.*down_proj"):
        build(model_of("gpt_oss"), spec_of(target_parameters=("experts.gate",)))


def test_a_bare_name_means_the_language_model_and_a_longer_one_the_tower() -> None:
    adapted, targets = build(model_of("gemma3"), spec_of(target_modules=("q_proj", "v_proj")))
    names = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    assert len(names) == 8 and all("language_model" in name for name in names)
    assert TOWER in targets.notices[0]
    adapted, targets = build(
        model_of("gemma3"), spec_of(target_modules=r".*\.vision_tower\..*\.(q|v)_proj")
    )
    names = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    assert len(names) == 4 and all("vision_tower" in name for name in names)
    assert not targets.notices


def test_regular_expressions_match_whole_names() -> None:
    adapted, _ = build(model_of("gemma3"), spec_of(target_modules=PATTERN))
    assert kinds_of(adapted) == {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj",
    }  # fmt: skip
    adapted, targets = build(
        model_of("llama"),
        spec_of(target_modules=r".*\.layers\.[01]\.mlp.*", exclude_modules="up_proj"),
    )
    names = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    assert kinds_of(adapted) == {"mlp.gate_proj", "mlp.down_proj"} and len(names) == 4
    assert "act_fn" in targets.notices[0]


def test_patterns_of_ranks_and_scales() -> None:
    spec = spec_of(rank_pattern={"q_proj": 2, r".*\.mlp\.up_proj": 8}, alpha_pattern={"q_proj": 6})
    adapted, _ = build(model_of("llama"), spec)
    layer = adapted.get_submodule("base_model.model.model.layers.0")
    assert layer.self_attn.q_proj.r["default"] == 2
    assert layer.self_attn.q_proj.scaling["default"] == 3
    assert layer.mlp.up_proj.r["default"] == 8 and layer.mlp.down_proj.r["default"] == 4


def test_an_embedding_and_transposed_matrices() -> None:
    adapted, _ = build(model_of("llama"), spec_of(target_modules=("embed_tokens", "q_proj")))
    assert kinds_of(adapted) == {"model.embed_tokens", "self_attn.q_proj"}
    adapted, targets = build(model_of("gpt2"), spec_of())
    assert targets.transposed and adapted.peft_config["default"].fan_in_fan_out
    shape = adapted.get_submodule("base_model.model.transformer.h.0.mlp.c_fc").lora_B
    assert shape["default"].weight.shape == (256, 4)


@pytest.mark.parametrize(
    ("kind", "lora", "message"),
    [
        ("llama", {"target_modules": r"q_proj|k_proj"}, r"as a whole name.*\n.*model\.layers"),
        ("llama", {"target_modules": "mlp", "exclude_modules": ["gate_proj", "up_proj",
                                                                "down_proj"]}, "would leave"),
        ("llama", {"target_modules": ("q_prj",)}, "called 'q_prj'"),
        ("llama", {"target_modules": ("q_proj", "lm_head")}, r"output head.*\n.*modules_to_save"),
        ("llama", {"layers": (9,)}, "no layer 9"),
        ("llama", {"modules_to_save": ["embed_token"]}, r"no module called.*\n.*embed_tokens"),
        ("llama", {"trainable_token_indices": [64]}, r"vocabulary of 64 rows.*\n.*resize"),
        ("gemma3", {"target_modules": ("embed_tokens",)}, "output head too"),
        ("gemma3", {"trainable_token_indices": [3]}, r"output head is the embedding"),
        ("falcon_h1", {"target_modules": ("out_proj",)}, r"cannot be put.*incompatible"),
        ("qwen3_moe", {"target_modules": ("gate_proj",)}, "half of a fused pair"),
        ("llama", {"rank_pattern": {"nothing": 2}}, r"means nothing that has an adapter"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(kind: str, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as told:
        build(model_of(kind), spec_of(**lora))
    assert str(told.value.where).startswith("train.lora") and told.value.remedy


def test_modules_trained_whole() -> None:
    spec = spec_of(modules_to_save=["embed_tokens", "lm_head"])
    trained = {name.rpartition(".modules_to_save")[0].rpartition(".")[2]
               for name, one in build(model_of("llama"), spec)[0].named_parameters()
               if one.requires_grad and "modules_to_save" in name}  # fmt: skip
    assert trained == {"embed_tokens", "lm_head"}
    assert not spec.lora.adds
    tied, targets = build(model_of("gemma3"), spec_of(modules_to_save=["embed_tokens"]))
    assert "both are trained as one" in targets.notices[-1]
    assert tied.peft_config["default"].ensure_weight_tying


def _folder(tmp_path: Path, kind: str, **more: Any) -> ModelRef:
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind, **{**S, **MODELS.get(kind, ({},))[0], **more})
    config.save_pretrained(tmp_path)
    return ModelRef(str(tmp_path))


def test_it_is_told_from_the_configuration_alone_and_fast(tmp_path: Path) -> None:
    ref = _folder(
        tmp_path, "qwen2", hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, vocab_size=152064,
    )  # fmt: skip
    check_model(ref, TrainSpec())  # imports
    found: list[str] = []
    assert worked(lambda: found.extend(check_model(ref, TrainSpec()))) < 2
    assert found == []


def test_merging_needs_plain_matrices(tmp_path: Path) -> None:
    ref = _folder(tmp_path, "qwen3_moe")
    check_mergeable(ref, spec_of(target_modules="attention"))
    with pytest.raises(StudyError, match=r"experts\.gate_up_proj is none"):
        check_mergeable(ref, spec_of())
    with pytest.raises(StudyError, match=r"lora_embedding"):
        check_mergeable(_folder(tmp_path / "b", "llama"), spec_of(target_modules=("embed_tokens",)))


def test_models_that_are_none(tmp_path: Path) -> None:
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path / "pictures")
    with pytest.raises(ModelError, match=r"no causal language model.*ViTConfig"):
        on_meta(ModelRef(str(tmp_path / "pictures")))
    with pytest.raises(HoldfastError) as told:
        check_model(ModelRef(str(tmp_path / "nothing")), TrainSpec())
    assert isinstance(told.value, ModelError)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError):
        on_meta(ModelRef(str(tmp_path / "torn")))
