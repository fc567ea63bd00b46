"""Counts what autograd keeps of one decoder layer, tensor by tensor, from transformers' code.

Every term of `kept_per_token` is one saved tensor. On Qwen2.5-7B's dimensions the sum is 58.9, 66.9
and 78.2 bytes x hidden size per token (bfloat16 adapters without dropout; float32 adapters; with
dropout). A trace of the real code gave 58.8, 67.8 and 79.0, fixed costs per layer included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from holdfast.memory.estimate import adapters, litgpt
from holdfast.memory.estimate.states import BYTES
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.layer import Linear
from holdfast.memory.model.shape import Shape

NARROWEST = 512
"""Hidden size from which `holdfast.models.cpu_training` has dropout and LoRA layers of its own:
below it there is nothing to win."""
ROTATED = ("oft", "osf")
"""Variants that count what they keep of their inputs in `holdfast.memory.estimate.adapters`."""
PLACE_BYTES = 4
"""They keep the place of each dropped element for the backward pass; plain LoRA no copies."""


def kept_per_token(shape: Shape, work: Workload, method: str, padded: bool) -> float:
    """Bytes per token that one decoder layer keeps for its backward pass, without recomputation."""
    if work.script == "litgpt" and method != "full":
        earlier = litgpt.earlier_per_token(shape, work, method)
        return litgpt.kept_per_token(shape, work) + earlier
    if work.compiled:
        return _compiled(shape, work)
    wide = work.wide
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inner = intermediate(shape)
    norms = 4 if shape.family.startswith("gemma") else 2
    kept = 4.0 * shape.hidden * norms  # the norm's float32 input
    if shape.family.startswith(("qwen3", "gemma3")):
        kept += 4 * (queries + keys)  # norms of queries and keys
    kept += wide * (2 * queries + 2 * (queries if padded else keys))  # q, output; k, v
    kept += 4 * shape.heads  # log-sum-exp of the attention
    kept += 3 * wide * inner  # gate, its activation, up
    if work.kernels == "liger":  # keeps the norms' inputs as they are, and no activation
        kept -= (4.0 - wide) * shape.hidden * norms + wide * inner
    if shape.family == "phi3":  # slices of the fused matrices are copied
        kept += wide * (inner + shape.hidden)
    return kept + _inputs(shape, work, method)


def _compiled(shape: Shape, work: Workload) -> float:
    """The same of a compiled layer: what its matrices and the attention made, in 16 bits.

    torch.compile cuts a layer's graph where least crosses into the backward pass and computes
    element-wise operations again there (torch: `functorch/partitioners.py`, "min-cut"): norms,
    casts, rotations, dropout, the gate's activation, its product with the other.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 4 if shape.family in {"gemma2", "gemma3", "gemma3_text"} else 2
    numbers = shape.hidden * norms + 2 * queries + 2 * keys + 2 * intermediate(shape)
    return float(work.wide * numbers + 4 * shape.heads)


def spared_by_kernels(shape: Shape, work: Workload, method: str) -> float:
    """Bytes per token that one layer keeps less by its kernels, or because it is compiled."""
    plain = replace(work, kernels="", compiled=False)
    padded = work.padded
    return kept_per_token(shape, plain, method, padded) - kept_per_token(
        shape, work, method, padded
    )


def gradients_per_token(shape: Shape, work: Workload, method: str) -> float:
    """Bytes per token by which a feed-forward part's backward pass exceeds what its layer keeps.

    Of the product, the gate's activation and up: all three are there at once, and what the last
    matrix kept of the product is gone by then. Liger's kernel writes the latter two over gate and
    up (`liger_kernel/ops/swiglu.py`), so that the fullest moment is the last matrix's own.
    """
    wide = work.wide * intermediate(shape)
    if work.kernels == "liger":
        return float(wide)
    learning = shape.linears if method == "full" else adapters.adapted(shape, work)
    if method != "full" and work.variant in ROTATED:  # whose own inputs are other tensors
        learning = ()
    kept = any(one.name == "down_proj" for one in learning)
    return float(wide * (3 - kept))


def _inputs(shape: Shape, work: Workload, method: str) -> float:
    """Bytes per token that matrices keep of their inputs in one layer: only those that learn do.

    Attention's own result is kept already, for the attention.
    """
    wide, stream = work.wide, work.stream_bytes(method)
    norms = 4 if shape.family.startswith("gemma") else 2
    if method == "full":
        normalised = stream * shape.hidden * norms  # for the norm's own gradient
        if work.kernels == "liger":  # which makes it again from the norm's input
            normalised = 0
        if stream > wide:  # every matrix keeps a cast copy of its own
            return normalised + wide * sum(one.n_in for one in shape.linears)
        return normalised + _shared_inputs(shape, shape.linears, wide)
    adapted = adapters.adapted(shape, work)
    kept = float(adapters.per_token(shape, work, wide))
    if work.variant in ROTATED:
        return kept
    mask = 1.0 if work.dropout else 0.0
    if own := work.on_cpu and shape.hidden >= NARROWEST:
        mask = PLACE_BYTES * work.dropout
    quick = own and method == "lora" and work.variant in adapters.LOW_RANK
    if quick:
        kept += mask * sum(one.n_in * one.count for one in adapted)
    narrow = BYTES[work.adapters(method == "qlora")]
    if quick or (narrow == stream == wide and not work.dropout):
        return kept + _shared_inputs(shape, adapted, wide)
    copy = wide if work.autocast else narrow  # without autocast, what adapters compute in
    kept += (copy + mask) * sum(one.n_in for one in adapted)
    if method == "qlora" and work.keeps_inputs:
        kept += _shared_inputs(shape, shape.linears, wide)
    return kept


def _shared_inputs(shape: Shape, matrices: Sequence[Linear], wide: int) -> float:
    """Bytes per token of inputs that are kept as they are, once for all that read the same."""
    names = {one.name for one in matrices}
    first = bool(names & {"q_proj", "k_proj", "v_proj", "qkv_proj"})
    second = bool(names & {"gate_proj", "up_proj", "gate_up_proj"})
    total = wide * shape.hidden * (first + second)
    return total + wide * intermediate(shape) * ("down_proj" in names)


def intermediate(shape: Shape) -> int:
    """The width that a token passes in the feed-forward part."""
    return shape.intermediate * max(1, shape.experts_per_token)
