"""Does a GGUF file answer with the very weights that were put into it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from holdfast import cli, models
from holdfast.data import chat
from holdfast.models import external
from holdfast.runs import store
from holdfast.types import Message

TEMPLATE = (
    "{%- for m in messages -%}{{ m['role'] + ': ' + m['content'] + '<|end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}"
)
END, PAD = 257, 258
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def byte_letters() -> list[str]:
    """GPT-2's letters for the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [one for one in range(256) if one not in shown]
    letters = {one: chr(one) for one in shown} | {b: chr(256 + n) for n, b in enumerate(hidden)}
    return [letters[one] for one in range(256)]


def write(model: Any, path: Path) -> None:
    """The model as llama.cpp's converter would write it: heads of q and k interleaved."""
    config, out = model.config, gguf.GGUFWriter(path, "llama")
    out.add_name("tiny")
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(10000.0)
    out.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list([*byte_letters(), "ab", "<|end|>", "<|pad|>"])
    out.add_token_types([1] * 257 + [3, 3])
    out.add_token_merges(["a b"])
    out.add_bos_token_id(END)
    out.add_eos_token_id(END)
    out.add_pad_token_id(PAD)
    out.add_chat_template(TEMPLATE)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, one in model.state_dict().items():
        values, called = one.float().numpy(), WHOLE.get(name)
        if called is None:
            _, _, layer, rest = name.split(".", 3)
            part = PARTS[rest.removesuffix(".weight")]
            called = f"blk.{layer}.{part}.weight"
            if count := heads.get(part):
                split = values.reshape(count, 2, values.shape[0] // count // 2, -1)
                values = split.swapaxes(1, 2).reshape(values.shape)
        out.add_tensor(called, np.ascontiguousarray(values))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of bytes, as a folder and as a GGUF file."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("gguf")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        eos_token_id=END, pad_token_id=PAD,
    ))  # fmt: skip
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
