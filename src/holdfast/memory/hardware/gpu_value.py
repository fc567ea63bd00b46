"""The value `GPU`, and how a known card or a bare size becomes one.

`holdfast.memory.hardware.devices` reads what users write, `holdfast.memory.hardware.detect` finds
those that are there. A card's name stands for what CUDA reports of it, a little less than the
nameplate (`holdfast.memory.hardware.gpu_catalogue`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from holdfast.memory.hardware.gpu_catalogue import CARDS, TYPICAL, Card

GIB = 1 << 30
BF16_CAPABILITY = 8.0
"""Below it bfloat16 is emulated: right, but slower than float32."""
FP16_CAPABILITY = 7.0
FP16_BEFORE = (5.3, 6.0, 6.2)
"""Older ones that compute float16 at double the float32 rate; 6.1 (GTX 10, P4, P40) at 1/64."""
NF4_CAPABILITY = 6.0
"""bitsandbytes 0.50, README, "Accelerator support": SM60 at least for NF4 (SM75 recommended)."""


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU, or one MIG slice of one.

    Attributes:
        name: the driver's or the user's.
        total_bytes: what CUDA reports as its memory.
        free_bytes: what of that is free now; all of it for a GPU that is only named.
        index: as `nvidia-smi` numbers it (use with CUDA_DEVICE_ORDER=PCI_BUS_ID).
        bandwidth_bytes_s: of its memory.
        flops: dense 16-bit matrix products, operations per second, by the data sheet.
        link_bytes_s: to the other GPUs of the set, one direction.
        link: what that goes over.
        float32_flops: matrix products in float32, without TF32; 0: not known.
        bf16: it computes in bfloat16, without emulating it.
        fp16: it computes in float16 faster than in float32.
        nf4: bitsandbytes 0.50 supports 4-bit weights on it.
        known: its speed is its own data sheet's; else that of `like`.
        mig: a slice. A process can use one slice only, and NCCL does not join slices.
        uuid: for CUDA_VISIBLE_DEVICES, where an index is not enough (MIG).
        like: the card whose data sheet gave the speed.
        cpu: no GPU at all: the CPU, whose memory is the host's.
    """

    name: str
    total_bytes: int
    free_bytes: int
    index: int
    bandwidth_bytes_s: float
    flops: float
    link_bytes_s: float
    link: Literal["nvlink", "pcie"] = "pcie"
    float32_flops: float = 0.0
    bf16: bool = True
    fp16: bool = True
    nf4: bool = True
    known: bool = True
    mig: bool = False
    uuid: str = ""
    like: str = ""
    cpu: bool = False


def like_size(total_bytes: int) -> Card:
    """The typical card that is nearest in memory."""
    typical = [one for one in CARDS if one.name in TYPICAL]
    return min(typical, key=lambda one: abs(one.gib * GIB - total_bytes))


def gpu(
    model: Card,
    index: int,
    *,
    name: str = "",
    total_bytes: int | None = None,
    free_bytes: int | None = None,
    known: bool = True,
    capability: float | None = None,
) -> GPU:
    """A GPU with the speed of a card; sizes and capability where they are known better."""
    total = round(model.gib * GIB) if total_bytes is None else total_bytes
    cuda = model.capability if capability is None else capability
    return GPU(
        name=name or model.name,
        total_bytes=total,
        free_bytes=total if free_bytes is None else min(free_bytes, total),
        index=index,
        bandwidth_bytes_s=model.bandwidth * 1e9,
        flops=model.tflops * 1e12,
        link_bytes_s=model.link_gb_s * 1e9,
        link="nvlink" if model.nvlink else "pcie",
        float32_flops=model.tflops * model.float32_share * 1e12,
        bf16=model.bf16 if model.bf16 is not None else not cuda or cuda >= BF16_CAPABILITY,
        fp16=not cuda or cuda >= FP16_CAPABILITY or cuda in FP16_BEFORE,
        nf4=cuda >= NF4_CAPABILITY,
        known=known,
        like=model.name,
    )


def joined(gpus: Iterable[GPU]) -> tuple[GPU, ...]:
    """The same GPUs, with NVLink only where all of them have it: the slowest link counts."""
    every = tuple(gpus)
    if len({one.like for one in every}) < 2 and len({one.link for one in every}) < 2:
        return every
    slowest = min((25e9, *(one.link_bytes_s for one in every)))
    return tuple(replace(one, link="pcie", link_bytes_s=slowest) for one in every)
