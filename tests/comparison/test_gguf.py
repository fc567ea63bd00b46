"""Does a GGUF file answer with the very weights that were put into it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.tiny_gguf import END, tiny_llama, write

from holdfast import cli, models
from holdfast.data import chat
from holdfast.models import external
from holdfast.runs import store
from holdfast.types import Message


@pytest.fixture(scope="module")
def monkeypatch_cache() -> Iterator[Callable[[Path], None]]:
    with pytest.MonkeyPatch.context() as patch:
        yield lambda place: patch.setenv("HOLDFAST_CACHE", str(place))


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch_cache: Callable[[Path], None]
) -> Path:
    """One model of bytes, as a folder and as a GGUF file."""
    folder = tmp_path_factory.mktemp("gguf")
    monkeypatch_cache(folder / "cache")
    model = tiny_llama()
    write(model, folder / "tiny.gguf")
    model.save_pretrained(folder / "whole")
    models.load_tokenizer(external.find(str(folder / "tiny.gguf")).ref).save_pretrained(
        folder / "whole"
    )
    return folder


def test_it_is_the_same_model(folder: Path) -> None:
    import torch

    file, whole = (external.find(str(folder / one)).ref for one in ("tiny.gguf", "whole"))
    tokenizer = models.load_tokenizer(file)
    assert chat.prompt_text(tokenizer, (Message("user", "hi"),)) == "user: hi<|end|>assistant: "
    assert tokenizer("hi ab", add_special_tokens=False)["input_ids"] == [104, 105, 32, 256]
    ids = torch.tensor([[5, 6, 7, 200, END]])
    one, other = (models.load_model(ref, torch.float32, "cpu").eval() for ref in (file, whole))
    with torch.inference_mode():
        assert torch.allclose(one(ids).logits, other(ids).logits, atol=1e-6)


def test_it_is_compared_with_its_origin(folder: Path, tmp_path: Path) -> None:
    words = ["compare", str(folder / "whole"), str(folder / "tiny.gguf"), "--tasks", "lab_math",
             "--limit", "4", "--set", "answer.sampling.max_new_tokens=6",
             "--runs-dir", str(tmp_path)]  # fmt: skip
    assert cli.call(words) == 0
    replies = tmp_path / "whole-vs-tiny" / "replies"
    one, other = (
        (replies / name / "lab_math" / "replies.jsonl").read_text() for name in ("base", "tiny")
    )
    assert one == other
    looks = store.read_json(tmp_path / "whole-vs-tiny" / "looks" / "looks.json")
    assert looks["base"] == looks["tiny"]
