"""Models are known under names that people type and mirrors give; unknown families are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.timing import worked

from holdfast.errors import ModelError
from holdfast.memory.model import catalogue, hub, names
from holdfast.memory.model.names import bare, key, spaced
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.shape import from_config
from holdfast.memory.model.stored import BNB4


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("Llama 3.1 8B Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("llama3.1:8b", "meta-llama/Llama-3.1-8B"),
        ("qwen2.5 7b", "Qwen/Qwen2.5-7B"),
        ("Qwen2.5_7B_Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("ｑｗｅｎ３－８ｂ", "Qwen/Qwen3-8B"),
        ("qwen3 30b a3b", "Qwen/Qwen3-30B-A3B"),
        ("gemma 3 4b", "google/gemma-3-4b-pt"),
        ("gemma3-4b-it", "google/gemma-3-4b-it"),
        ("gemma 2b", "google/gemma-2b"),
        ("gemma 2 2b", "google/gemma-2-2b"),
        ("phi4", "microsoft/phi-4"),
        ("mistral 7b", "mistralai/Mistral-7B-v0.3"),
        ("mixtral", "mistralai/Mixtral-8x7B-v0.1"),
        ("tinyllama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
        ("gpt2", "openai-community/gpt2"),
        ("gptoss 20b", "openai/gpt-oss-20b"),
        ("vicuna 7b", "lmsys/vicuna-7b-v1.5"),
        ("r1-distill-qwen-7b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
        ("qwq-32b", "Qwen/QwQ-32B"),
        ("mistral small 3.2", "mistralai/Mistral-Small-3.2-24B-Instruct-2506"),
    ],
)
def test_names_as_people_type_them(typed: str, meant: str) -> None:
    assert read_shape(typed).name == meant


TYPED = {
    "Qwen/Qwen3-8B": (
        "qwen/qwen3-8b", "QWEN/QWEN3-8B", "Qwen3 8B", "qwen3:8b", "qwen3:8b-q4_K_M", "Qwen3_8B",
        " qwen3-8b ", "Qwen/Qwen3-8B-GGUF", "ＱＷＥＮ３：８Ｂ", "unsloth/Qwen3-8B-GGUF",
    ),
    "Qwen/Qwen2.5-7B-Instruct": (
        "qwen2.5:7b-instruct", "qwen2.5-7b-instruct", "Qwen2.5 7B Instruct", "Qwen2_5-7B-Instruct",
        "bartowski/Qwen2.5-7B-Instruct-GGUF", "mlx-community/Qwen2.5-7B-Instruct-4bit",
    ),
    "Qwen/Qwen2.5-Coder-7B": ("qwen2.5-coder:7b", "qwen2.5 coder 7b"),
    "Qwen/Qwen2-0.5B": ("qwen2:0.5b", "qwen2-0.5b"),
    "Qwen/Qwen3.5-2B": ("qwen3.5-2b", "qwen3.5:2b", "unsloth/Qwen3.5-2B"),
    "Qwen/Qwen2.5-VL-32B-Instruct": ("qwen2.5-vl-32b", "qwen2.5vl:32b", "Qwen2.5 VL 32B"),
    "Qwen/Qwen2.5-VL-72B-Instruct": ("qwen2.5-vl-72b", "Qwen/Qwen2.5-VL-72B-Instruct"),
    "meta-llama/Meta-Llama-3-8B": ("llama3:8b", "llama-3-8b", "NousResearch/Meta-Llama-3-8B"),
    "meta-llama/Llama-3.1-8B": ("llama3.1:8b", "Llama 3.1 8B", "llama_3.1_8b"),
    "meta-llama/Llama-3.1-8B-Instruct": (
        "llama3.1:8b-instruct-q4_0", "llama-3.1-8b-instruct", "meta-llama/llama-3.1-8b-instruct",
    ),
    "meta-llama/Meta-Llama-3.1-8B-Instruct": ("Meta-Llama-3.1-8B-Instruct-GGUF",),
    "meta-llama/Llama-3.2-1B": ("llama3.2:1b", "llama 3.2 1b"),
    "meta-llama/Llama-3.3-70B-Instruct": ("llama3.3:70b", "Llama 3.3 70B Instruct"),
    "meta-llama/Llama-2-7b-hf": ("llama2:7b", "Llama-2-7b", "llama 2 7b hf"),
    "meta-llama/Llama-2-7b-chat-hf": ("llama-2-7b-chat", "TheBloke/Llama-2-7B-Chat-GGUF"),
    "google/gemma-3-12b-it": (
        "gemma3:12b-it-qat", "gemma-3-12b-it-qat-q4_0-gguf",
        "google/gemma-3-12b-it-qat-q4_0-unquantized",
    ),
    "google/gemma-3-4b-pt": ("gemma3:4b", "gemma 3 4b"),
    "google/gemma-2-9b": ("gemma2:9b", "gemma-2-9b"),
    "google/gemma-3n-E2B": ("gemma3n:e2b", "gemma-3n-e2b"),
    "google/gemma-3n-E2B-it": ("gemma-3n-e2b-it", "unsloth/gemma-3n-E2B-it"),
    "mistralai/Mistral-7B-v0.3": ("mistral", "mistral:7b", "Mistral 7B"),
    "mistralai/Mixtral-8x7B-v0.1": ("mixtral:8x7b", "mixtral 8x7b"),
    "mistralai/Codestral-22B-v0.1": ("codestral", "codestral:22b", "Codestral 22B"),
    "mistralai/Ministral-8B-Instruct-2410": ("ministral-8b", "Ministral 8B Instruct 2410"),
    "microsoft/Phi-3-mini-4k-instruct": ("phi3:mini", "phi-3-mini"),
    "microsoft/Phi-3.5-mini-instruct": ("phi3.5", "phi-3.5-mini"),
    "microsoft/Phi-4-mini-instruct": ("phi4-mini", "phi-4-mini"),
    "microsoft/phi-4": ("phi4", "unsloth/Phi-4"),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": ("deepseek-r1:7b", "r1 distill qwen 7b"),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": ("deepseek-r1:70b",),
    "openai/gpt-oss-20b": ("gpt-oss:20b", "gptoss20b", "unsloth/gpt-oss-20b-BF16"),
    "HuggingFaceTB/SmolLM2-135M": ("smollm2:135m", "SmolLM2 135M"),
    "HuggingFaceTB/SmolLM3-3B": ("smollm3", "smollm3 3b"),
    "zai-org/GLM-4-32B-0414": ("glm-4-32b", "glm4:32b", "ZhipuAI/GLM-4-32B-0414"),
    "allenai/OLMo-2-0425-1B": ("olmo2:1b", "olmo-2-1b", "OLMo 2 1B"),
    "LiquidAI/LFM2-700M": ("lfm2-700m", "LFM2 700M"),
    "LiquidAI/LFM2-2.6B": ("lfm2:2.6b", "LFM2-2.6B"),
    "ibm-granite/granite-4.0-micro": ("granite4:micro", "granite-4.0-micro"),
    "ibm-granite/granite-4.0-h-tiny": ("granite-4.0-h-tiny", "granite-4-h-tiny"),
    "ibm-granite/granite-3.3-8b-instruct": ("granite3.3:8b", "granite 3.3 8b instruct"),
    "swiss-ai/Apertus-8B-2509": ("apertus", "apertus-8b"),
    "ByteDance-Seed/Seed-OSS-36B-Instruct": ("seed-oss", "Seed-OSS-36B-Instruct"),
    "internlm/internlm3-8b-instruct": ("internlm3", "internlm3:8b"),
    "openbmb/MiniCPM3-4B": ("minicpm3", "minicpm3-4b"),
    "tiiuae/Falcon3-7B-Base": ("falcon3:7b", "falcon3-7b"),
    "bigcode/starcoder2-3b": ("starcoder2:3b", "StarCoder2 3B"),
    "lmsys/vicuna-13b-v1.5": ("vicuna-13b", "vicuna:13b"),
    "openai-community/gpt2-medium": ("gpt2-medium", "gpt2 medium"),
}  # fmt: skip
"""Over a hundred names as people, Ollama, mirrors and file names write them."""


def test_a_hundred_names() -> None:
    asked = [(typed, meant) for meant, every in TYPED.items() for typed in every]
    assert len(asked) > 100
    wrong = [(typed, meant, found) for typed, meant in asked
             if (found := catalogue.locate(typed).name) != meant]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main?x=1#y", "Qwen/Qwen3-8B"),
        ("http://hf.co/Qwen/Qwen3-8B/", "Qwen/Qwen3-8B"),
        ("hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M", "unsloth/Qwen3-8B-GGUF"),
        ("hf://Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("https://hf-mirror.com/Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("https://www.modelscope.cn/models/Qwen/Qwen3-8B/summary", "Qwen/Qwen3-8B"),
        ("https://huggingface.co/x/y/resolve/main/z.gguf?download=true", "x/y/z.gguf"),
        ("https://huggingface.co/gpt2", "gpt2"),
        ("Qwen/Qwen3-8B/", "Qwen/Qwen3-8B"),
        ("qwen3:8b", "qwen3:8b"), ("./a/b/", "./a/b/"), ("/a/b/", "/a/b/"), ("", ""), (" ", " "),
        ("https://example.com/a/b", "https://example.com/a/b"), ("C:\\models\\a", "C:\\models\\a"),
    ],
)  # fmt: skip
def test_addresses_are_taken_for_what_they_lead_to(address: str, name: str) -> None:
    assert hub.repository(address) == name


def test_a_plan_takes_an_address() -> None:
    from holdfast.memory.planner.planner import plan_memory

    found = plan_memory("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "24GiB", trace=False)
    assert found.model == "Qwen/Qwen3-8B"


@pytest.mark.parametrize(
    ("name", "family"),
    [("llama3", "llama-3"), ("phi3", "phi-3"), ("qwen3.5", "qwen3.5"), ("gemma3n", "gemma-3n"),
     ("vicuna", "vicuna"), ("THUDM/glm-4-9b-chat", "glm-4"), ("lfm2", "lfm2"),
     ("swiss-ai/Apertus-70B-Instruct-2509", "apertus"), ("llama", "llama")],
)  # fmt: skip
def test_the_first_neighbour_is_of_the_family(name: str, family: str) -> None:
    near = catalogue.nearest_names(name)
    assert near and family in near[0].lower()


@pytest.mark.parametrize("name", ["bigscience/bloom-560m", "claude-3", "grok-1", "Nous-X2"])
def test_a_stranger_has_no_neighbours(name: str) -> None:
    assert catalogue.nearest_names(name) == []


@pytest.mark.parametrize(
    ("mirror", "meant"),
    [
        ("unsloth/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("unsloth/llama-3-8b-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("unsloth/mistral-7b", "mistralai/Mistral-7B-v0.1"),
        ("unsloth/gemma-4-E2B-it", "google/gemma-4-E2B-it"),
        ("NousResearch/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("NousResearch/Meta-Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
        ("mlx-community/Qwen3-8B-4bit", "Qwen/Qwen3-8B"),
        ("mlx-community/Llama-3.2-3B-Instruct-bf16", "meta-llama/Llama-3.2-3B-Instruct"),
        ("bartowski/Qwen2.5-7B-Instruct-GGUF", "Qwen/Qwen2.5-7B-Instruct"),
        ("unsloth/gpt-oss-20b-GGUF", "openai/gpt-oss-20b"),
    ],
)
def test_mirrors_are_taken_for_what_they_mirror(mirror: str, meant: str) -> None:
    shape = read_shape(mirror)
    assert shape.name == meant and f"{mirror} is taken for {meant}" in shape.note
    assert shape.parameters == read_shape(meant).parameters


@pytest.mark.parametrize(
    ("mirror", "kind", "bits"),
    [
        ("unsloth/Qwen3-14B-unsloth-bnb-4bit", BNB4, 4),
        ("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit", BNB4, 4),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "awq", 4),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "gptq", 4),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", "gptq", 8),
        ("Qwen/Qwen3-8B-FP8", "fp8", 16),
        ("neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "compressed-tensors", 4),
        ("qwen3-8b-awq", "awq", 4),
    ],
)
def test_bases_in_few_bits_are_counted_so(mirror: str, kind: str, bits: int) -> None:
    shape = read_shape(mirror)
    assert shape.name == mirror and shape.stored is not None
    assert (shape.stored.kind, shape.stored.bits) == (kind, bits)


def test_what_a_mirror_says_is_kept_out_of_the_catalogue() -> None:
    read_shape("unsloth/Qwen3-8B-bnb-4bit")
    assert "quantization_config" not in catalogue.read_config("Qwen/Qwen3-8B")


@pytest.mark.parametrize(
    "name", ["somebody/Qwen3-8B-bnb-4bit", "somebody/qwen2.5-7b", "unsloth/Qwen3-8B-Romance"]
)
def test_other_repositories_are_asked_for(name: str) -> None:
    with pytest.raises(ModelError, match="not in the catalogue"):
        read_shape(name)


@pytest.mark.parametrize(
    ("wrong", "neighbour"),
    [
        ("qwen2.5-7b-instuct", "Qwen/Qwen2.5-7B"),
        ("qwen3-7b", "Qwen/Qwen3-8B"),
        ("qwen2 57b", "Qwen/Qwen2-72B"),
        ("llama-3.1-9b", "meta-llama/Llama-3.1-8B"),
        ("gemma-4-12b", "google/gemma-4-26B-A4B"),
        ("mistralai/Mistral-7B-v0.9", "mistralai/Mistral-7B"),
    ],
)
def test_a_wrong_name_gets_true_neighbours_at_once(wrong: str, neighbour: str) -> None:
    def ask() -> None:
        with pytest.raises(ModelError) as caught:
            read_shape(wrong)
        remedies.append(caught.value.remedy)

    remedies: list[str] = []
    assert worked(ask) < 1
    assert neighbour in remedies[0] and "did you mean" in remedies[0]


def test_names_of_different_sizes_are_not_guessed() -> None:
    for name in ("qwen", "llama", "gemma-3", "gpt-oss", "granite-3.3"):
        with pytest.raises(ModelError):
            read_shape(name)


def test_spelling() -> None:
    assert spaced("Qwen2_5-7B_Instruct ") == "qwen2.5 7b instruct"
    assert key("GPT-OSS 20b") == key("gpt_oss-20B") == "gptoss|20|b"
    assert key("qwen2 57b") != key("qwen2.5 7b")
    assert bare("Meta-Llama-3-8B-Instruct") == bare("llama 3 8b")


def test_every_name_of_the_catalogue_is_its_own() -> None:
    for name in catalogue.catalogue():
        found = catalogue.locate(name)
        assert found.name == name and not found.note
        assert catalogue.locate(name.rpartition("/")[2].lower()).config == found.config, name


def test_every_entry_says_where_it_was_seen() -> None:
    for entry in catalogue.entries():
        assert entry["parameters"] > 0, entry["id"]
        assert entry.get("seen", "pinned by its published count").strip()
    assert len(catalogue.catalogue()) >= 450


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_moe", "gpt_oss", "gemma3_text", "minicpm"])
def test_families_that_are_known(kind: str) -> None:
    names.require_family(kind, {}, "a model")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "novel"}, "does not know its kind, 'novel'"),
        ({"model_type": "lama"}, "did you mean 'llama'"),
        ({"model_type": "novel", "auto_map": {"AutoConfig": "x.Y"}}, "Python code of its own"),
        ({}, "has no model_type"),
        ({"model_type": None}, "has no model_type"),
    ],
)
def test_an_unknown_family_is_refused_with_what_to_do(config: dict[str, object], said: str) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 128, "vocab_size": 100}  # fmt: skip
    with pytest.raises(ModelError) as caught:
        from_config({**config, **sizes}, "my-model", "test")
    assert said in caught.value.message and caught.value.where == "my-model"
    assert caught.value.remedy and caught.value.exit_code == 3


def test_the_list_of_families_is_that_of_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    listed = json.loads(names.FAMILIES.read_text(encoding="utf-8"))["families"]
    assert set(CONFIG_MAPPING_NAMES) <= set(listed)
    language = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert language - {"gpt-sw3"} <= names._installed() and language <= set(listed)


def test_a_newer_transformers_is_asked_without_importing_it() -> None:
    code = (
        "import sys\nfrom holdfast.memory.model import names\n"
        "names.is_known('no_such_family')\nprint('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
