"""Is a sound model never refused, and one that is not whole never asked?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import models
from holdfast.errors import ModelError
from holdfast.models import ModelRef, finite, safetensors_files, skeleton, weights_check

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen2": SIZES | {"tie_word_embeddings": True},
    "qwen3": SIZES | {"tie_word_embeddings": True},
    "gemma2": SIZES,
    "phi3": SIZES,
    "mistral": SIZES,
    "gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1,
             "eos_token_id": 2},
    "mixtral": SIZES | {"num_local_experts": 4},
    "qwen3_moe": SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "falcon_h1": SIZES | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8,
                          "mamba_d_state": 8},
    "llava": {
        "text_config": SIZES | {"model_type": "llama"},
        "vision_config": {"model_type": "clip_vision_model", "hidden_size": 32,
                          "intermediate_size": 48, "num_hidden_layers": 2,
                          "num_attention_heads": 4, "image_size": 28, "patch_size": 14},
    },
}  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small model of one kind, in several files, as transformers saves it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(0)
    fields = KINDS[request.param]
    config = AutoConfig.for_model(request.param, **fields)
    made = AutoModelForImageTextToText if "text_config" in fields else AutoModelForCausalLM
    model = made.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    yield tmp_path / "m"


def checked(folder: Path) -> list[str]:
    ref = ModelRef(str(folder))
    return weights_check.check_files(ref, skeleton.build(ref))


def test_sound_models_pass_and_each_lacking_tensor_is_seen(kind: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    assert (kind / safetensors_files.INDEX).is_file()
    assert checked(kind) == []
    models.load_model(ModelRef(str(kind)), torch.float32, "cpu")
    shard = sorted(kind.glob("model-*.safetensors"))[-1]
    held = load_file(shard)
    name = next(iter(held))
    del held[name]
    save_file(held, shard, {"format": "pt"})
    index = json.loads((kind / safetensors_files.INDEX).read_text())
    del index["weight_map"][name]
    (kind / safetensors_files.INDEX).write_text(json.dumps(index))
    for look in (checked, lambda one: models.load_model(ModelRef(str(one)), torch.float32, "cpu")):
        with pytest.raises(ModelError):
            look(kind)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_number_that_is_none_is_found_on_disk_and_in_memory(
    dtype: str, value: float, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    kind = getattr(torch, dtype)
    largest = torch.full((3, 5), torch.finfo(kind).max, dtype=kind)
    held = {"fine": -largest, "whole": torch.arange(4), "none": torch.zeros(0, dtype=kind)}
    save_file(held, tmp_path / "w.safetensors")
    assert (
        safetensors_files.not_finite(safetensors_files.read_header(tmp_path / "w.safetensors"))
        is None
    )
    assert finite.not_finite(held.items()) is None
    held["wrong"] = torch.zeros((4, 4), dtype=kind)
    held["wrong"][2, 3] = value
    save_file(held, tmp_path / "w.safetensors")
    found = safetensors_files.not_finite(safetensors_files.read_header(tmp_path / "w.safetensors"))
    assert found == "wrong" == finite.not_finite(held.items())


def test_four_bits_that_are_stored_as_other_numbers_are_no_numbers() -> None:
    """As FSDP2 wants them of bitsandbytes; read as what they are stored as some are NaN."""
    import torch

    packed = torch.nn.Parameter(torch.tensor([float("nan"), 1.0]), requires_grad=False)
    assert finite.not_finite([("w", packed)]) == "w"
    packed.quant_state = object()
    assert finite.not_finite([("w", packed)]) is None


def test_large_models_are_looked_through_when_they_are_loaded(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    held = load_file(folder / "model.safetensors")
    held["model.layers.1.mlp.up_proj.weight"][3, 3] = float("nan")
    save_file(held, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.setattr(weights_check, "SCANNED_BYTES", 10)
    assert checked(folder) == []
    with pytest.raises(ModelError, match=r"NaN or infinity, first in .*layers.1.mlp.up_proj"):
        models.load_model(ModelRef(str(folder)), torch.float32, "cpu")


def test_layers_beyond_those_configured_are_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    (notice,) = checked(folder)
    assert "9 tensors" in notice and "model.layers.1." in notice


def test_marks_without_an_embedding_are_noted_and_words_refused(tiny_model: Path) -> None:
    tokenizer = models.load_tokenizer(ModelRef(str(tiny_model)))
    rows = len(tokenizer)
    assert skeleton.check_vocabulary(tokenizer, rows, "m") == []
    tokenizer.add_special_tokens({"extra_special_tokens": ["<picture>"]})
    (notice,) = skeleton.check_vocabulary(tokenizer, rows, "m")
    assert "'<picture>'" in notice
    tokenizer.add_special_tokens({"pad_token": "<blank>"})
    with pytest.raises(ModelError, match="no embedding for") as caught:
        skeleton.check_vocabulary(tokenizer, rows, "m")
    assert "'<blank>'" in caught.value.message
    assert f"resize_token_embeddings({rows + 2})" in caught.value.remedy
