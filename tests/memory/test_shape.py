"""The arithmetic on a config agrees with the model that transformers and PEFT build from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import ModelError, StudyError
from holdfast.memory.model import catalogue
from holdfast.memory.model.names import OWN_CODE
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.shape import Shape, from_config
from holdfast.memory.model.targets import lora_parameters

TINY: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    "vision_use_head": False,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen2 tied": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16},
    "qwen3 biased": {"attention_bias": True},
    "llama": {},
    "llama biased": {"attention_bias": True, "mlp_bias": True, "head_dim": 24},
    "llama without groups": {"num_key_value_heads": None},
    "mistral": {"head_dim": 16},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {"head_dim": 16},
    "gemma3": {},
    "gemma3 with pooling": {},
    "phi3": {"tie_word_embeddings": True},
    "smollm3": {},
    "olmo2": {},
    "granite": {"attention_bias": True, "mlp_bias": True},
    "qwen3_moe": {**EXPERTS, "head_dim": 16},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3_moe partly dense": {**EXPERTS, "num_hidden_layers": 5, "mlp_only_layers": [1, 3]},
    "qwen2_moe partly dense": {
        **EXPERTS,
        "num_hidden_layers": 5,
        "decoder_sparse_step": 2,
        "shared_expert_intermediate_size": 40,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
}
EVERY = {"qwen3_moe": ["q_proj", "gate_proj", "up_proj", "down_proj"], "phi3": ["qkv_proj"]}

PUBLISHED = {
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-2-27b": 27_227_128_320,
    "google/gemma-3-1b-pt": 999_885_952,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "microsoft/phi-4": 14_659_507_200,
    "mistralai/Mistral-Nemo-Base-2407": 12_247_782_400,
    "mistralai/Mistral-Small-24B-Base-2501": 23_572_403_200,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
}


def tiny(name: str) -> dict[str, Any]:
    kind = name.split()[0]
    if kind == "gemma3":
        vision = {**VISION, "vision_use_head": "pooling" in name}
        text = {"model_type": "gemma3_text", **TINY}
        return {"model_type": kind, "text_config": text, "vision_config": vision}
    config = {"model_type": kind, **TINY, **FAMILIES[name]}
    return {key: value for key, value in config.items() if value is not None}


def built(config: dict[str, Any]) -> Any:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto

    kind = config["model_type"]
    left = ("model_type", "quantization_config", "architectures")
    fields = {key: value for key, value in config.items() if key not in left}
    pictures = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    made = AutoModelForCausalLM
    if kind in pictures and kind not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        made = AutoModelForImageTextToText
    with torch.device("meta"):
        return made.from_config(CONFIG_MAPPING[kind](**fields))


def adapted(model: Any, targets: Any) -> int:
    """Parameters of the adapters as training makes them."""
    from holdfast.train.adapter_check import build

    lora = LoraSpec(r=8, target_modules=targets)
    made = build(model, TrainSpec(lora=lora))[0]
    return sum(one.numel() for name, one in made.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_arithmetic_agrees_with_the_model(name: str) -> None:
    from torch import nn

    config = tiny(name)
    model, shape = built(config), from_config(config, name, "test")
    assert shape.parameters == sum(one.numel() for one in model.parameters())
    there = Counter(
        (module.rpartition(".")[2], one.in_features, one.out_features, one.bias is not None)
        for module, one in model.named_modules()
        if isinstance(one, nn.Linear) and "lm_head" not in module and "tower.head" not in module
    )
    counted: Counter[tuple[str, int, int, bool]] = Counter()
    for one in shape.linears:
        counted[one.name, one.n_in, one.n_out, one.bias] += round(shape.layers * one.count)
    for one in shape.tower:
        counted[one.name, one.n_in, one.n_out, one.bias] += one.count
    assert counted == there
    layer = model.get_submodule(f"{shape.stem}.layers.0")
    assert "dense" in name or shape.layer_parameters == sum(
        one.numel() for one in layer.parameters()
    )
    assert model.get_input_embeddings().weight.numel() == shape.embedding_parameters
    head = model.get_output_embeddings().weight
    tied = head is model.get_input_embeddings().weight
    assert shape.head_parameters == (0 if tied else head.numel())


# PEFT says so of fused experts, whose rank it does double; the figures here would differ otherwise.
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning")
@pytest.mark.parametrize("name", [one for one in FAMILIES if "pooling" not in one])
def test_lora_counts_what_peft_creates(name: str) -> None:
    config = tiny(name)
    shape = from_config(config, name, "test")
    assert lora_parameters(shape, 8) == adapted(built(config), "all-linear")
    some = EVERY.get(name.split()[0], ["q_proj", "o_proj"])
    assert lora_parameters(shape, 8, some) == adapted(built(config), some)


@pytest.mark.parametrize("tied", [False, True])
def test_modules_trained_whole_and_rows_of_the_embedding_are_counted(tied: bool) -> None:
    from holdfast.memory.estimate.adapters import trained
    from holdfast.memory.estimate.workload import from_training
    from holdfast.train.adapter_check import build

    config = tiny("qwen2 tied" if tied else "qwen2")
    asked = [{"modules_to_save": ("embed_tokens", "lm_head")}]
    asked += [] if tied else [{"modules_to_save": ("lm_head",)},
                              {"trainable_token_indices": (3, 5, 7)}]  # fmt: skip
    for lora in asked:
        train = TrainSpec(lora=LoraSpec(r=8, **lora))
        made = build(built(config), train)[0]
        there = sum(one.numel() for one in made.parameters() if one.requires_grad)
        assert trained(from_config(config, "x", "test"), from_training(train, 64)) == there


def test_what_a_pattern_means_is_counted() -> None:
    shape = from_config(tiny("llama"), "x", "test")
    some = lora_parameters(shape, 8, ["q_proj", "v_proj"])
    assert lora_parameters(shape, 8, r".*self_attn\.(q|v)_proj") == some
    assert lora_parameters(shape, 8, r".*\.nothing") == lora_parameters(shape, 8)
    with pytest.raises(StudyError, match="no regular expression"):
        lora_parameters(shape, 8, r".*(q_proj")


def test_experts_are_neither_linears_nor_quantised_but_adapted() -> None:
    shape = from_config(tiny("qwen3_moe"), "moe", "test")
    assert {one.name for one in shape.linears} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    experts = 2 * 4 * 3 * 24 * 32  # layers x experts x matrices
    attention = 2 * (32 * 64 + 2 * 32 * 32 + 64 * 32)
    assert shape.linear_parameters == attention
    assert shape.active_parameters == attention + experts // 2 + 2 * 4 * 32 + 100 * 32
    assert lora_parameters(shape, 8) > lora_parameters(
        shape, 8, [one.name for one in shape.linears]
    )
    with pytest.raises(StudyError, match="are one matrix"):
        lora_parameters(shape, 8, ["gate_proj"])


def test_the_base_model_of_the_issue() -> None:
    shape = read_shape("Qwen/Qwen2.5-7B-Instruct")
    assert shape.parameters == 7_615_616_512
    assert lora_parameters(shape, 16) == 40_370_176  # measured: see the notes on memory
    assert shape.linear_parameters == 6_525_288_448  # 28 layers of 233,046,016
    assert shape.active_parameters == 6_525_288_448 + 152_064 * 3584
    assert shape.largest_linear == 18_944 * 3584
    assert shape.exact and not shape.tied and shape.max_positions == 32_768


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: entry["id"])
def test_catalogue_entries_have_the_published_size(entry: dict[str, Any]) -> None:
    shape = read_shape(entry["id"])
    assert shape.parameters == entry["parameters"]
    assert shape.name == entry["id"] and shape.source.startswith("https://huggingface.co/")
    for name, changes in entry.get("same", {}).items():
        other = read_shape(name)
        assert (other.name, other.parameters) == (name, shape.parameters)
        assert other.max_positions == changes.get("max_position_embeddings", shape.max_positions)


def test_the_catalogue_is_broad_and_unambiguous() -> None:
    names = list(catalogue.catalogue())
    assert len(catalogue.entries()) >= 170
    short = Counter(name.rpartition("/")[2].lower() for name in names)
    twice = {name for name, count in short.items() if count > 1}
    moved = [f"glm-{name}-0414" for name in ("4-9b", "z1-9b", "4-32b", "4-32b-base", "z1-32b")]
    moved += ["glm-4-9b-hf", "glm-4-9b-chat-hf", "aya-23-8b", "c4ai-command-r-v01"]
    assert twice == set(moved), "their makers have another owner now"


def test_published_counts_from_elsewhere() -> None:
    """These were listed before the catalogue was written; the other entries' counts with it."""
    found = {entry["id"]: entry["parameters"] for entry in catalogue.entries()}
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize(
    "entry",
    [one for one in catalogue.entries() if one["config"]["model_type"] not in OWN_CODE],
    ids=lambda entry: entry["id"],
)
def test_transformers_builds_every_entry_in_its_published_size(entry: dict[str, Any]) -> None:
    model = built(catalogue.read_config(entry["id"]))
    assert sum(one.numel() for one in model.parameters()) == entry["parameters"]


@pytest.mark.parametrize(
    "text", ["qwen2.5-7b-instruct", "QWEN/qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct"]
)
def test_catalogue_names_in_any_case(text: str) -> None:
    assert read_shape(text) == read_shape("Qwen/Qwen2.5-7B-Instruct")
    assert catalogue.read_config(text)["model_type"] == "qwen2"


def test_the_built_in_model_and_a_local_folder(tmp_path: Path) -> None:
    lab = read_shape("lab")
    assert (lab.name, lab.family, lab.layers, lab.tied, lab.source) == (
        "lab", "llama", 4, True, "built in",
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(tiny("qwen3")), encoding="utf-8")
    shape = read_shape(str(tmp_path))
    assert shape.family == "qwen3" and shape.source == str(tmp_path / "config.json")
    assert catalogue.read_config(str(tmp_path)) == tiny("qwen3")


def test_vision_towers() -> None:
    gemma = read_shape("google/gemma-3-4b-it")
    assert "vision tower is loaded too" in gemma.note
    assert gemma.tower_parameters == 416_866_032 + 1152 * 2560 + 1152  # SigLIP 400M, projector
    other = from_config({"model_type": "mistral3", "text_config": {**TINY}}, "x", "test")
    assert "not counted" in other.note and not other.exact and not other.tower_parameters
    assert read_shape("google/gemma-3-1b-it").note == ""


def test_gemma_3_as_it_was_first_published() -> None:
    """Its text_config named only what differed from the class's defaults."""
    text = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "sliding_window": 1024,
    }  # fmt: skip
    vision = catalogue.read_config("google/gemma-3-4b-pt")["vision_config"]
    config = {"model_type": "gemma3", "text_config": text, "vision_config": vision}
    assert from_config(config, "x", "test").parameters == 4_300_079_472


def test_a_family_that_is_not_counted_says_so() -> None:
    known = from_config({"model_type": "llama", **TINY}, "x", "test")
    other = from_config({"model_type": "starcoder2", **TINY}, "x", "test")
    assert known.exact and not other.exact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None, "vocab_size": None}, "lacks hidden_size, vocab_size"),
        ({"intermediate_size": None}, "lacks intermediate_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_attention_heads": True}, "num_attention_heads is True"),
    ],
)
def test_configs_without_what_is_needed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        from_config({"model_type": "llama", **TINY, **change}, "my-model", "test")
    assert caught.value.where == "my-model" and caught.value.remedy


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no config.json"),
        ({"adapter_config.json": "{}"}, "merge it into its base"),
        ({"config.json": "{"}, "cannot be read"),
        ({"config.json": "[]"}, "is not a JSON object"),
    ],
)
def test_broken_folders(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read_shape(str(tmp_path))
    assert message in str(caught.value)
    with pytest.raises(ModelError, match="no such folder"):
        read_shape(str(tmp_path / "absent"))


def test_a_mistyped_name_is_refused_at_once_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = (
        "import time\nfrom holdfast.errors import ModelError\n"
        "from holdfast.memory.model.reading import read_shape\n"
        "start = time.process_time()\n"
        "try:\n    read_shape('Qwen/Qwen2.5-7B-Instuct')\n"
        "except ModelError as error:\n"
        "    print(error.exit_code, time.process_time() - start < 5, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("3 True Qwen/Qwen2.5-7B-Instuct: is not in the catalogue")
    assert "did you mean Qwen/Qwen2.5-7B-Instruct" in done.stdout
    assert "local folder" in done.stdout


def test_a_name_that_is_no_hub_id() -> None:
    with pytest.raises(ModelError, match="not a hub id"):
        read_shape("a/b/c")


@pytest.mark.parametrize("targets", [["q_porj"], "q_porj", [], ["model.layers.0.q_porj"]])
def test_unknown_target_modules(targets: Any) -> None:
    with pytest.raises(StudyError) as caught:
        lora_parameters(read_shape("lab"), 8, targets)
    assert "q_proj, up_proj, v_proj" in caught.value.remedy
    assert not targets or "did you mean 'q_proj'" in caught.value.message


def test_dotted_targets_count_by_their_end() -> None:
    shape: Shape = read_shape("lab")
    assert lora_parameters(shape, 8, ["self_attn.q_proj"]) == lora_parameters(shape, 8, ["q_proj"])
    every = [one.name for one in shape.linears]
    assert lora_parameters(shape, 8, every) == lora_parameters(shape, 8, "ALL-LINEAR")


def test_it_needs_no_heavy_package() -> None:
    code = (
        "import sys\nfrom holdfast.memory.model.reading import read_shape\n"
        "from holdfast.memory.hardware.devices import parse\n"
        "from holdfast.memory.hardware.detect import detect\n"
        "read_shape('qwen3-8b'), parse('2x24GiB')\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\]\s*", done.stdout)
