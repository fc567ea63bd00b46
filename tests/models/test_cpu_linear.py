"""Weights laid out once: the same products, and none left over when the weights change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.config import Sampling
from holdfast.engines.hf import HFEngine
from holdfast.memory.hardware.cpu import computes_bf16
from holdfast.memory.model.reading import read_shape
from holdfast.models import ModelRef, cpu_linear
from holdfast.progress import Silent
from holdfast.types import Example, Message


def llama(width: int = 512) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=97, hidden_size=width, intermediate_size=width + 128, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=2,
    )).eval()  # fmt: skip


def laid(model: Any) -> int:
    return sum("forward" in one.__dict__ for one in model.modules())


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 1100])
@pytest.mark.parametrize("dtype", [
    torch.float32,
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(
        not computes_bf16(), reason="this CPU has no bfloat16 in hardware"
    )),
])  # fmt: skip
def test_the_products_are_the_same(rows: int, dtype: torch.dtype) -> None:
    model = llama().to(dtype)
    ids = torch.arange(rows)[:, None] % 97
    with torch.inference_mode():
        before = model(ids, use_cache=False).logits
        assert cpu_linear.lay_out(model) and laid(model) == 2 * 7 + 1
        after = model(ids, use_cache=False).logits
        close = 1e-4 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(after, before, atol=close / 10, rtol=close)
        cpu_linear.undo(model)
        assert not laid(model) and torch.equal(model(ids, use_cache=False).logits, before)


def test_what_learns_goes_through_the_weights_themselves() -> None:
    model = llama()
    ids = torch.arange(24).view(2, 12)
    model(ids, labels=ids).loss.backward()
    before = [one.grad.clone() for one in model.parameters()]
    model.zero_grad()
    cpu_linear.lay_out(model)
    model(ids, labels=ids).loss.backward()
    assert all(
        torch.equal(one.grad, old) for one, old in zip(model.parameters(), before, strict=True)
    )


def test_not_where_it_does_not_pay_or_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not cpu_linear.lay_out(llama(256))
    monkeypatch.setattr(cpu_linear, "computes_bf16", lambda: False)
    assert not cpu_linear.lay_out(llama().to(torch.bfloat16)), "emulated"
    model = llama()
    needed = 4 * sum(
        one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear)
    )
    for free, done in ((2.4 * needed, False), (2.6 * needed, True)):
        monkeypatch.setattr(cpu_linear, "host_ram_bytes", lambda free=free: int(free))
        assert cpu_linear.lay_out(model) is done


def test_its_size_is_known_beforehand(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path)
    linear = [one for one in model.modules() if isinstance(one, torch.nn.Linear)]
    shape = read_shape(str(tmp_path))
    assert cpu_linear.copies_bytes(shape, "float32") == 4 * sum(
        one.weight.numel() for one in linear
    )
    llama(256).save_pretrained(tmp_path)
    assert cpu_linear.copies_bytes(read_shape(str(tmp_path)), "float32") == 0


def test_an_adapter_is_never_answered_with_the_weights_of_another(
    tiny_model: Path, tmp_path: Path
) -> None:
    """The base, an adapter that is merged into it, and the base again."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    wide = llama()
    wide.resize_token_embeddings(len(tokenizer))
    wide.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(wide, LoraConfig(r=4, target_modules="all-linear"))
    for name, values in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    asked = [Example(str(n), (Message("user", f"{n} + {n}"),)) for n in range(6)]

    def said(engine: HFEngine, adapter: str | None) -> list[str]:
        replies = engine.generate(asked, Sampling(max_new_tokens=8), adapter, Silent())
        return [one.text for [one] in replies]

    adapter = str(tmp_path / "adapter")
    with HFEngine(ModelRef(str(tmp_path / "base")), "cpu") as engine:
        first, changed, again = (said(engine, one) for one in (None, adapter, None))
        assert engine._laid
    assert first == again != changed
    with HFEngine(ModelRef(str(tmp_path / "base")), "cpu") as engine:
        engine._laid = False  # as where memory does not suffice
        assert said(engine, None) == first
        engine._model(adapter)
        engine._laid = False
        assert said(engine, adapter) == changed
