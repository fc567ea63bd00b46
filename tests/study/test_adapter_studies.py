"""Real studies of seconds on models whose adapters are not plain: trained, measured, shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import run_study, write_study

from holdfast import models, shipping
from holdfast.errors import HoldfastError, ModelError, StudyError
from holdfast.models import ModelRef
from holdfast.models.peft_adapter import load_adapter, scale_adapter, take_off

QUICK: dict[str, Any] = {
    "seeds": [1],
    "tasks": {
        "lab_math": {"role": "target", "items": 4, "train_items": 4}, "lab_refuse": {"items": 4},
    },
    "answer": {"sampling": {"max_new_tokens": 2}, "repeats": 1},
    "meters": {"probes": 0},
    "arms": {"sft": {}},
}  # fmt: skip
TRAIN: dict[str, Any] = {
    "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 2, "checkpoints": 1,
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}  # fmt: skip
SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip


def model_of(tiny_model: Path, folder: Path, kind: str, **fields: Any) -> Path:
    """A random model of a kind with the lab's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None, "vocab_size": len(tokenizer)}  # fmt: skip
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **ends, "tie_word_embeddings": False, **fields})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def study_of(folder: Path, model: Path, **changes: Any) -> Path:
    train = TRAIN | changes.pop("train", {})
    return write_study(folder, model, train=train, **(QUICK | changes))


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(3, 13)[None]).logits


def loaded(folder: Path) -> Any:
    import torch

    return models.load_model(ModelRef(str(folder)), torch.float32, "cpu").eval()


def test_a_mixture_of_experts_with_the_starting_recipe(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    folder = model_of(tiny_model, tmp_path / "moe", "qwen3_moe", head_dim=16, num_experts=4,
                      num_experts_per_tok=2, moe_intermediate_size=16)  # fmt: skip
    path = study_of(tmp_path, folder, arms={"sft": {"weights": [{"scale": {"factors": [0.5]}}]}})
    run_study(path, tmp_path)
    run = tmp_path / "s"
    (told,) = json.loads((run / "preflight.json").read_text())["notices"]
    assert "dropout is 0 instead of 0.05" in told and "experts.gate_up_proj" in told
    (adapter,) = (run / "train" / "sft" / "seed1").glob("checkpoint-*")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert set(settings["target_parameters"]) == {"experts.gate_up_proj", "experts.down_proj"}
    base, before = loaded(folder), logits(loaded(folder))
    tuned = load_adapter(base, str(adapter))
    scale_adapter(tuned, 0.5)
    half = logits(tuned)
    assert (half - before).abs().max() > 1e-3
    assert torch.equal(logits(take_off(tuned)), before)
    name = "sft/seed1/checkpoint-2@0.5"
    for form in ("merged", "adapter"):
        to = tmp_path / form
        shipping.ship(run, to, form=form, checkpoint=name, anyway=True)
        again = loaded(to) if form == "merged" else load_adapter(loaded(folder), str(to))
        torch.testing.assert_close(logits(again), half, rtol=0, atol=1e-5)


def test_a_hybrid_trains_what_its_code_calls(tiny_model: Path, tmp_path: Path) -> None:
    folder = model_of(tiny_model, tmp_path / "h", "falcon_h1", mamba_d_ssm=64, mamba_n_heads=4,
                      mamba_d_head=16, mamba_d_state=16)  # fmt: skip
    run_study(study_of(tmp_path, folder), tmp_path)
    (told,) = json.loads((tmp_path / "s" / "preflight.json").read_text())["notices"]
    assert "mamba.out_proj" in told
    assert (tmp_path / "s" / "stats" / "results.json").is_file()


def test_modules_trained_whole_come_and_go_with_the_adapter(
    tiny_model: Path, tmp_path: Path
) -> None:
    import torch

    folder = model_of(tiny_model, tmp_path / "m", "qwen2")
    whole = ["embed_tokens", "lm_head"]
    train = {"lora": {"modules_to_save": whole, "target_modules": ["q_proj"]}}
    run_study(study_of(tmp_path, folder, train=train), tmp_path)
    (adapter,) = (tmp_path / "s" / "train" / "sft" / "seed1").glob("checkpoint-*")
    before = logits(loaded(folder))
    tuned = load_adapter(loaded(folder), str(adapter))
    after = logits(tuned)
    assert (after - before).abs().max() > 1e-3
    base = take_off(tuned)
    assert torch.equal(logits(base), before), "the base's own modules are back"
    assert torch.equal(logits(load_adapter(base, str(adapter))), after)
    shipping.ship(tmp_path / "s", tmp_path / "out", form="merged", anyway=True)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), after, rtol=0, atol=1e-5)
    arms = {"sft": {"weights": [{"scale": {"factors": [0.5]}}]}}
    with pytest.raises(StudyError, match="lora with modules_to_save"):
        run_study(study_of(tmp_path, folder, train=train, arms=arms, name="t"), tmp_path)


@pytest.fixture(scope="module")
def four_bits(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that is published in NF4."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    plain = model_of(tiny_model, tmp_path_factory.mktemp("plain"), "qwen2")
    folder = tmp_path_factory.mktemp("nf4")
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, quantization_config=nf4, device_map={"": "cpu"}
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def test_a_base_in_four_bits_is_trained_measured_and_merged(
    four_bits: Path, tmp_path: Path
) -> None:
    import torch

    run_study(study_of(tmp_path, four_bits), tmp_path)
    plan = json.loads((tmp_path / "s" / "plan.json").read_text())
    assert "stored in 4 bits" in plan["notices"][0] and plan["nf4"]
    (adapter,) = (tmp_path / "s" / "train" / "sft" / "seed1").glob("checkpoint-*")
    tuned = logits(load_adapter(loaded(four_bits), str(adapter)))
    shipping.ship(tmp_path / "s", tmp_path / "out", form="merged", anyway=True)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    whole = loaded(tmp_path / "out")
    assert not getattr(whole, "is_quantized", False)
    torch.testing.assert_close(logits(whole), tuned, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("quantised", "train", "kind", "message"),
    [
        ({"quant_method": "awq", "bits": 4}, {}, HoldfastError, r"awq.*gptqmodel(.|\n)*16 bits"),
        ({"quant_method": "gptq", "bits": 4}, {}, HoldfastError, r"gptq.*gptqmodel(.|\n)*16 bits"),
        ({"quant_method": "compressed-tensors"}, {}, ModelError, r"be trained(.|\n)*16 bits"),
        ({"quant_method": "fp8"}, {"method": "qlora"}, ModelError, r"NF4(.|\n)*method: lora"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {"method": "full"}, ModelError,
         r"no weights that could be trained(.|\n)*qlora"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"method": "qlora"}, ModelError,
         r"8-bit(.|\n)*method: lora"),
    ],
)  # fmt: skip
def test_bases_that_cannot_be_trained_as_they_are_stored(
    tiny_model: Path, tmp_path: Path, quantised: dict[str, Any], train: dict[str, Any], kind: Any,
    message: str,
) -> None:  # fmt: skip
    import shutil

    folder = tmp_path / "base"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantised}))
    with pytest.raises(kind, match=message):
        run_study(study_of(tmp_path, folder, train=train), tmp_path)
    assert not (tmp_path / "s").exists(), "nothing is written"


def test_what_cannot_be_trained_costs_nothing(tiny_model: Path, tmp_path: Path) -> None:
    path = study_of(tmp_path, tiny_model, train={"lora": {"target_modules": r".*\.(nothing)"}})
    with pytest.raises(StudyError, match=r"arms\.sft.*matches as a whole name"):
        run_study(path, tmp_path)
    assert not (tmp_path / "s").exists()
