"""The value `GPU`, and the parser of what users write: `2x24GiB`, or `rtx4090,rtx3090`.

`holdfast.memory.hardware.detect` finds those that are there. Sizes in GB are 10^9 bytes, in GiB
2^30; a card's name stands for what CUDA reports of it, a little less than the nameplate
(`holdfast.memory.hardware.gpu_catalogue`).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from holdfast.errors import UsageError
from holdfast.memory.hardware.gpu_catalogue import CARDS, TYPICAL, Card

GIB = 1 << 30
UNITS = {"gib": GIB, "gi": GIB, "gb": 10**9, "g": 10**9, "mib": 1 << 20, "mb": 10**6}
LEAST_BYTES = GIB // 2
MOST_GPUS = 64
BF16_CAPABILITY = 8.0
"""Below it bfloat16 is emulated: right, but slower than float32."""
FP16_CAPABILITY = 7.0
FP16_BEFORE = (5.3, 6.0, 6.2)
"""Older ones that compute float16 at double the float32 rate; 6.1 (GTX 10, P4, P40) at 1/64."""
NF4_CAPABILITY = 6.0
"""bitsandbytes 0.50, README, "Accelerator support": SM60 at least for NF4 (SM75 recommended)."""
EXAMPLES = "write for example 2x24GiB, or rtx4090, or 1x24GiB,1x12GiB"
MAKERS = ("nvidia", "geforce", "tesla", "quadro", "amd", "radeon", "instinct", "rtx")


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


def plain(name: str) -> str:
    """A card's name without maker, case, spaces and signs: `NVIDIA GeForce RTX 4090` is `4090`."""
    lower = unicodedata.normalize("NFKC", name).lower()
    for maker in MAKERS:
        lower = lower.replace(maker, "")
    return re.sub(r"[^a-z0-9]", "", lower)


def card(name: str) -> Card | None:
    """The known card of this name, as people or drivers write it; None: unknown."""
    by_name = {plain(other): one for one in CARDS for other in (one.name, *one.also)}
    key = plain(name)
    if found := by_name.get(key):
        return found
    sized = re.fullmatch(r"(.*?)[\s_-]*\b(\d+)\s*(?:gi?b?)", name.strip().lower())
    found = by_name.get(plain(sized[1])) if sized else None
    if sized is None or found is None:
        return None
    own = 0.88 < found.gib / int(sized[2]) < 1.02  # the size behind the name is the card's own
    return found if own else None


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
        bf16=not cuda or cuda >= BF16_CAPABILITY,
        fp16=not cuda or cuda >= FP16_CAPABILITY or cuda in FP16_BEFORE,
        nf4=cuda >= NF4_CAPABILITY,
        known=known,
        like=model.name,
    )


def parse(text: str) -> tuple[GPU, ...]:
    """The GPUs that a text names, such as `2x24GiB`, `1x24GiB,1x12GiB`, `h200`, `4x a100-80gb`.

    Of a GPU given by its size, the speed is that of the typical card nearest in size.

    Raises:
        UsageError: an unknown name (the nearest ones are suggested), a count below 1, no size.
    """
    spelled = unicodedata.normalize("NFKC", text).replace("×", "x").replace("、", ",")
    found: list[GPU] = []
    for item in re.split(r"[,;+]", spelled):
        counted = re.match(r"\s*(-?\d+(?:\.\d+)?)\s*[x*]\s*(.*)$", item, re.IGNORECASE | re.DOTALL)
        count, what = (counted[1], counted[2]) if counted else ("1", item)
        what = what.strip()
        if not what:
            raise _wrong(text, f"{item.strip()[:60]!r} names no GPU")
        if not count.isdigit() or int(count) < 1:
            raise _wrong(text, f"{count} GPUs cannot be used")
        if len(found) + int(count) > MOST_GPUS:
            raise _wrong(text, f"more than {MOST_GPUS} GPUs; a plan is for one machine")
        made = _named(what, text)
        found += [replace(made, index=len(found) + n) for n in range(int(count))]
    return joined(found)


def joined(gpus: Iterable[GPU]) -> tuple[GPU, ...]:
    """The same GPUs, with NVLink only where all of them have it: the slowest link counts."""
    every = tuple(gpus)
    if len({one.like for one in every}) < 2 and len({one.link for one in every}) < 2:
        return every
    slowest = min((25e9, *(one.link_bytes_s for one in every)))
    return tuple(replace(one, link="pcie", link_bytes_s=slowest) for one in every)


def _named(what: str, text: str) -> GPU:
    size = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([a-z]+)", what.lower())
    if size and size[2] in UNITS:
        total = round(min(float(size[1]) * UNITS[size[2]], 1e30))
        if not LEAST_BYTES <= total <= 1024 * GIB:
            raise _wrong(text, f"a GPU of {what} cannot be used")
        return gpu(like_size(total), 0, name=what, total_bytes=total, known=False, capability=8.0)
    if found := card(what):
        return gpu(found, 0)
    names = {plain(other): one.name for one in CARDS for other in (one.name, *one.also)}
    close = difflib.get_close_matches(plain(what), names, n=3, cutoff=0.5)
    near = list(dict.fromkeys(names[one] for one in close))
    meant = f"did you mean {' or '.join(near)}? Otherwise give its memory: " if near else ""
    raise _wrong(text, f"no GPU is known as {what[:60]!r}", f"{meant}{EXAMPLES}")


def _wrong(text: str, problem: str, remedy: str = EXAMPLES) -> UsageError:
    return UsageError(problem, where=f"--gpus {text[:80]}", remedy=remedy)
