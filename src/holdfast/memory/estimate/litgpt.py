"""Counts what LitGPT's trainer keeps, where that is not what transformers keeps.

LitGPT 0.5's own model (`litgpt/model.py`, `litgpt/lora.py`): queries, keys and values are one
matrix with one adapter, and the values are a view of its whole output; grouped keys and values are
written out for every head; the head is a matrix of its own even where the embedding is tied, and
`BitsandbytesPrecision` quantises it with the others. The weights are quantised from float16, so a
matrix that is written out to compute in bfloat16 is there twice. The head and the cross-entropy
work in pieces of 128 tokens; Fabric hands the logits out in float32 (`convert_output` of its
precision plug-ins), all pieces at once, and they stay until the next forward pass returns. Under
QLoRA the embedding is replaced by bitsandbytes' `StableEmbedding`: the old one stays with the
optimiser, and the new one gets a gradient that nobody clears.
"""

from __future__ import annotations

from holdfast.memory.estimate import adapters
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.shape import Shape

QUERIES_KEYS_VALUES = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj"})
WRITTEN_OUT = 2
"""Copies of a 4-bit matrix while it computes: in float16, and cast."""


def kept_per_token(shape: Shape, work: Workload) -> float:
    """Bytes per token that one layer keeps for its backward pass."""
    wide, hidden = work.wide, shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 4 if shape.family in {"gemma2", "gemma3", "gemma3_text"} else 2
    kept = 4.0 * hidden * norms + 4 * shape.heads
    inner = shape.intermediate * max(1, shape.experts_per_token)
    kept += 3 * wide * inner + 2 * wide * queries  # gate, its activation, up; q, output
    shared = keys < queries  # then both are written out; else v is a view of the whole output
    kept += wide * (2 * queries if shared else keys + queries + 2 * keys)
    named = adapters.adapted(shape, work)
    fused = [one for one in named if one.name in QUERIES_KEYS_VALUES]
    widths = [one.n_in for one in named if one not in fused]
    widths += [max(one.n_in for one in fused)] if fused else []
    if work.dropout:  # each adapter's input after it, and its mask
        return kept + (wide + 1) * sum(widths)
    return kept + _inputs(shape, work, {one.name for one in named})


def earlier_per_token(shape: Shape, work: Workload, method: str) -> float:
    """Bytes per token and layer that bitsandbytes before 0.43.2 keeps of its matrices' inputs.

    It keeps them as attributes of the graph, not as saved tensors (bitsandbytes 0.42,
    `MatMul4Bit.forward`; #1270 ended it), so they live as long as the loss does: LitGPT's until the
    next micro-batch has one.
    """
    if method != "qlora" or not work.keeps_inputs:
        return 0.0
    every = {"q_proj", "gate_proj", "down_proj"}
    adapted = {one.name for one in adapters.adapted(shape, work)}
    already = 0.0 if work.dropout else _inputs(shape, work, adapted)
    return _inputs(shape, work, every) - already


def _inputs(shape: Shape, work: Workload, names: set[str]) -> float:
    """Bytes per token of the inputs of these matrices, each once; attention's result is kept."""
    first = bool(names & QUERIES_KEYS_VALUES)
    second = bool(names & {"gate_proj", "up_proj", "gate_up_proj"})
    inner = shape.intermediate * max(1, shape.experts_per_token) * ("down_proj" in names)
    return float(work.wide * (shape.hidden * (first + second) + inner))


def loss_bytes(shape: Shape, work: Workload, method: str, tokens: int) -> tuple[int, int]:
    """Peak of head and loss, and what of it stays through the backward pass.

    The step's before in float32 are there while the head makes these in 16 bits (with the head
    written out) and while they are handed out. Then they are gone, and log-probabilities as wide
    as those handed out take no more. Soft-capped ones keep their tangent.
    """
    narrow, handed = work.wide * shape.vocab * tokens, 4 * shape.vocab * tokens
    capped = narrow if shape.family == "gemma2" else 0
    head = WRITTEN_OUT * work.wide * shape.vocab * shape.hidden if method == "qlora" else 0
    peak = handed + narrow + capped + max(head, handed)
    return peak, handed + capped + work.wide * shape.hidden * tokens


def extra_embeddings(work: Workload, method: str) -> int:
    """How often the embedding is there beyond once: the old one, and the new one's gradient."""
    return 2 if method == "qlora" and not work.keeps_inputs else 0
