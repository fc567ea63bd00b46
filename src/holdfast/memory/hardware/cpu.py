"""This machine's CPU as a device to plan for, and whether it computes bfloat16; needs no torch."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from holdfast.memory.hardware.gpu_value import GPU
from holdfast.memory.hardware.host import host_ram_bytes, host_total_bytes

CORE_FLOPS = 64e9
"""Products and sums in float32 that one core does in a second: a ranking of ways, no promise."""
BF16_RATE = 4.0
"""How many times faster a CPU that has bfloat16 in hardware multiplies in it than in float32."""
BANDWIDTH_BYTES_S = 20e9
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux names them in /proc/cpuinfo: x86's two, and ARM's."""


def computes_bf16(root: Path = Path("/")) -> bool:
    """Whether the CPU multiplies matrices in bfloat16; False where Linux does not say.

    Without it torch emulates bfloat16, which is right but slower than float32. With it one linear
    layer took a fifth of the time of float32.

    Args:
        root: where `proc` is mounted.
    """
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    named = (line.partition(":") for line in lines)
    words = (found for key, _, found in named if key.strip() in ("flags", "Features"))
    return bool(BF16_FLAGS & set(next(words, "").split()))


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def share_waited(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Share of the time between two `turns` in which threads could have run and did not."""
    ran, waited = (later - earlier for earlier, later in zip(before, after, strict=True))
    return max(0.0, waited / (ran + waited)) if ran + waited > 0 else 0.0


def turns(root: Path = Path("/")) -> tuple[int, int]:
    """How long this process's threads ran, and how long they waited for a core, in nanoseconds.

    They wait where other programs have the cores. (0, 0) where Linux does not say.

    Args:
        root: where `proc` is mounted.
    """
    ran = waited = 0
    for file in (root / "proc/self/task").glob("*/schedstat"):
        with suppress(OSError, ValueError):  # a thread may end meanwhile
            each = [int(word) for word in file.read_text(encoding="utf-8").split()[:2]]
            ran, waited = ran + each[0], waited + each[1]
    return ran, waited


def cpu() -> GPU:
    """The CPU, whose memory is what this process may use of the host's; limits count."""
    bf16, count = computes_bf16(), cores()
    rate = count * CORE_FLOPS
    total = host_total_bytes()
    return GPU(
        name=f"CPU ({count} cores)", total_bytes=total, free_bytes=min(total, host_ram_bytes()),
        index=0, bandwidth_bytes_s=BANDWIDTH_BYTES_S, flops=BF16_RATE * rate if bf16 else rate,
        link_bytes_s=BANDWIDTH_BYTES_S, float32_flops=rate, bf16=bf16, fp16=False, cpu=True,
    )  # fmt: skip
