"""How many tokens per second? A model of the time of one optimiser step; not validated on a GPU.

Time of a micro-batch is arithmetic, or reading the weights where the micro-batch is too small to
hide it, plus launching kernels, plus writing out 4-bit weights, plus moving weights between
devices (weights in host memory come layer by layer and are waited for). It is for ranking ways of
running the same job on the same GPUs, not for planning a week.

Sources: arithmetic per token 2 N forward and 2 N backward under LoRA, whose frozen weights have no
gradient (4 N fully trained), and 2 N more with recomputation; causal attention 2 L S width more per
pass; 4-bit weights are read, written and read again (about 4.5 bytes each) in every pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.memory.estimate.states import States
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import Placement
from holdfast.memory.model.shape import Shape

UTILISATION = 0.45
"""Share of the data sheet's dense bfloat16 rate that large matrix products reach."""
LAUNCH_S = 4e-4
"""Launching one decoder layer's kernels, adapters included, forward or backward."""
DEQUANTISE_BYTES = 4.5
NOT_HIDDEN = 0.7
"""Share of the shorter of computing and fetching that FSDP's prefetching does not hide; fitted on
Answer.AI's published times of LoRA on two RTX 3090 (1,024 examples of 2,048 tokens: 3,090 s with
micro-batch 1, 1,366 s with 4; data parallel with 4: 881 s)."""
LINK_UTILISATION = {"pcie": 0.4, "nvlink": 0.8}
"""Share of a link's rate that gathering reaches; PCIe usually goes through the host."""
HOST_LINK_BYTES_S = 12e9
"""Host to GPU over PCIe 4.0 x16, pageable memory; unless the GPU's own link says less."""


def tokens_per_s(
    shape: Shape,
    work: Workload,
    states: States,
    placement: Placement,
    method: str,
    checkpointing: bool,
    micro_batch: int,
    gpus: Sequence[GPU],
) -> float:
    """Tokens trained on per second by all GPUs together.

    Args:
        shape: the model.
        work: lengths, batch and remedies.
        states: bytes of the weights.
        placement: see `MemoryPlan`.
        method: `lora`, `qlora` or `full`.
        checkpointing: adds a forward pass; so does a comparison with the base.
        micro_batch: examples per forward pass and process.
        gpus: those used.
    """
    tokens = micro_batch * work.seq_len
    passes = 2 + checkpointing + (method == "full") + work.extra.reference
    attention = 2 * shape.layers * shape.heads * shape.head_dim * work.seq_len
    flops = tokens * passes * (2 * shape.active_parameters + attention)
    linear = 2 * shape.linear_parameters
    moved = (2 + checkpointing) * linear

    def one(gpu: GPU, share: float = 1.0) -> float:
        rate = gpu.flops * UTILISATION
        busy = max(share * flops / rate, share * moved / gpu.bandwidth_bytes_s)
        busy += share * shape.layers * passes * LAUNCH_S
        if method == "qlora":
            written = shape.linear_parameters * DEQUANTISE_BYTES * (2 + checkpointing)
            busy += share * written / gpu.bandwidth_bytes_s
        return busy

    world = len(gpus) if placement in {"ddp", "fsdp2"} else 1
    slowest = max(one(gpu) for gpu in gpus)
    match placement:
        case "split":  # one GPU works at a time
            taken = sum(one(gpu, 1 / len(gpus)) for gpu in gpus)
            taken += (len(gpus) - 1) * 2 * 2 * shape.hidden * tokens / _link(gpus)
        case "fsdp2":
            shards = (len(gpus) - 1) / max(1, len(gpus))
            gathered = (2 + checkpointing) * states.weights * shards
            if method == "full":
                gathered = gathered / 2 + states.gradients * shards
            moving = gathered / _link(gpus)
            taken = max(slowest, moving) + NOT_HIDDEN * min(slowest, moving)
        case "offload":
            taken = slowest + (2 + checkpointing) * states.weights / HOST_LINK_BYTES_S
        case "ddp":
            steps = max(1, work.global_batch // (micro_batch * world))
            taken = slowest + 2 * states.gradients / _link(gpus) / steps
        case _:
            taken = slowest
    return world * tokens / taken


def _link(gpus: Sequence[GPU]) -> float:
    return min(gpu.link_bytes_s * LINK_UTILISATION[gpu.link] for gpu in gpus)
