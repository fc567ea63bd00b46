"""Is a model that cannot be used refused before anything is loaded?"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast import models
from holdfast.config import ModelSpec
from holdfast.errors import ModelError
from holdfast.models import ModelRef, files


@pytest.fixture()
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_good_folder(folder: Path) -> None:
    assert models.reference(ModelSpec(id=str(folder))) == ModelRef(str(folder))


def test_the_lab_is_a_folder_like_any_other() -> None:
    files.check_folder(Path(models.reference(ModelSpec(id="lab")).base))


def test_hub_ids_are_taken_as_they_are() -> None:
    spec = ModelSpec(id="Qwen/Qwen2.5-7B-Instruct", revision="abc", trust_remote_code=True)
    ref = models.reference(spec)
    assert ref == ModelRef("Qwen/Qwen2.5-7B-Instruct", "abc", None, True)
    assert models.identity(ref) == {"id": "Qwen/Qwen2.5-7B-Instruct", "revision": "abc"}
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        models.reference(ModelSpec(id="a/b/c"))


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no weights"),
        ("chat_template.jinja", "no chat template"),
    ],
)
def test_what_is_missing_is_named(folder: Path, missing: str, wanted: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=wanted) as caught:
        models.reference(ModelSpec(id=str(folder)))
    assert caught.value.remedy
    with pytest.raises(ModelError, match="no such folder"):
        models.reference(ModelSpec(id=str(folder / "nowhere")))


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        files.check_folder(folder)


def test_an_adapter_is_not_a_model(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ModelError, match="this is an adapter"):
        files.check_folder(folder)


def test_identity_sees_the_weights(folder: Path) -> None:
    before = models.identity(ModelRef(str(folder)))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert models.identity(ModelRef(str(folder))) != before


def test_what_the_hub_does_not_give_is_explained() -> None:
    with pytest.raises(ModelError, match="not in the hub's cache") as caught:
        models.load_tokenizer(ModelRef("nobody/nothing"))
    assert "local folder" in caught.value.remedy


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="sees no GPU"):
        models.pick_device("cuda")
    assert models.pick_device("auto") == "cpu"


def test_an_adapter_of_a_resized_base_says_how_to_make_that_base(
    tiny_model: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from holdfast.models.external import find

    base = find(str(tiny_model))
    for name, rows, more in (
        ("plain", 0, {}),
        ("same", 0, {"modules_to_save": ["lm_head"]}),
        ("resized", 7, {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("factor", 7, {"target_modules": ["q_proj", "embed_tokens"]}),
    ):
        model = AutoModelForCausalLM.from_pretrained(tiny_model)
        size = model.config.vocab_size
        if rows:
            model.resize_token_embeddings(size + rows, mean_resizing=False)
        config = LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **more})
        get_peft_model(model, config).save_pretrained(tmp_path / name, save_embedding_layers=False)
        if not rows:
            assert find(str(tmp_path / name), base).form == "adapter"
            continue
        with pytest.raises(ModelError, match=f"vocabulary of {size + rows} rows") as told:
            find(str(tmp_path / name), base)
        assert f"model.resize_token_embeddings({size + rows})" in str(told.value)
