"""Models the time of one optimiser step, to rank ways of running the same job on the same GPUs.

It was not validated on a GPU. A micro-batch takes its arithmetic, or reading the
weights where it is too small to hide that, plus launching kernels, writing out 4-bit weights, and
moving weights between devices (weights in host memory come layer by layer and are waited for).
Sources: arithmetic per token 2 N forward and 2 N backward under LoRA, whose frozen weights have no
gradient (4 N fully trained), and 2 N more with recomputation; causal attention 2 L S width more per
pass; 4-bit weights are read, written and read again (about 4.5 bytes each) in every pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.memory.estimate.states import States
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.ways import Setup

UTILISATION = 0.45
"""Share of the data sheet's dense rate that large matrix products reach."""
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


def tokens_per_s(shape: Shape, work: Workload, held: States, setup: Setup) -> float:
    """Tokens trained on per second by all GPUs together.

    Args:
        shape: the model.
        work: lengths, batch and the methods' overhead.
        held: bytes of the weights.
        setup: placement, method and GPUs. Recomputation adds a forward pass; so does a comparison
            with the base.
    """
    method, gpus, checkpointing = setup.method, setup.gpus, setup.checkpointing
    tokens = setup.micro_batch * work.seq_len
    passes = 2 + checkpointing + (method == "full") + work.method_overhead.reference
    attention = 2 * shape.layers * shape.heads * shape.head_dim * work.seq_len
    flops = tokens * passes * (2 * shape.active_parameters + attention)
    linear = work.wide * shape.linear_parameters
    moved = (2 + checkpointing) * linear

    def busy_s(gpu: GPU, share: float = 1.0) -> float:
        dense = gpu.flops if work.autocast else gpu.float32_flops or gpu.flops
        rate = dense * UTILISATION
        busy = max(share * flops / rate, share * moved / gpu.bandwidth_bytes_s)
        busy += share * shape.layers * passes * LAUNCH_S
        if method == "qlora":
            written = shape.linear_parameters * DEQUANTISE_BYTES * (2 + checkpointing)
            busy += share * written / gpu.bandwidth_bytes_s
        return busy

    slowest = max(busy_s(gpu) for gpu in gpus)
    match setup.placement:
        case "split":  # one GPU works at a time
            taken = sum(busy_s(gpu, 1 / len(gpus)) for gpu in gpus)
            taken += (len(gpus) - 1) * 2 * work.wide * shape.hidden * tokens / _link(gpus)
        case "fsdp2":
            shards = (len(gpus) - 1) / max(1, len(gpus))
            gathered = (2 + checkpointing) * held.weights * shards
            if method == "full":
                gathered = gathered / 2 + held.gradients * shards
            moving = gathered / _link(gpus)
            taken = max(slowest, moving) + NOT_HIDDEN * min(slowest, moving)
        case "offload":
            taken = slowest + (2 + checkpointing) * held.weights / HOST_LINK_BYTES_S
        case "ddp":
            steps = max(1, work.global_batch // (setup.micro_batch * setup.world))
            taken = slowest + 2 * held.gradients / _link(gpus) / steps
        case _:
            taken = slowest
    return setup.world * tokens / taken


def _link(gpus: Sequence[GPU]) -> float:
    return min(gpu.link_bytes_s * LINK_UTILISATION[gpu.link] for gpu in gpus)
