"""MIG slices of a GPU: what a profile such as `3g.40gb` has of its memory and its speed.

A profile names sevenths of the processors and the memory in decimal gigabytes (NVIDIA MIG
user guide). A process can use one slice only, and NCCL does not join slices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from holdfast.memory.hardware.gpu_catalogue import CARDS, Card
from holdfast.memory.hardware.gpu_value import GPU

USABLE = 0.93
"""Of a profile's decimal gigabytes: an assumption on the safe side, not measured."""
SEVENTHS = 7
SHARES = {1: 1 / 8, 2: 2 / 8, 3: 4 / 8, 4: 4 / 8, 7: 1.0}
"""Of the whole memory, by sevenths of the processors; an A30 has fourths of both."""
PROFILE = re.compile(r"(\d+)g\.(\d+)gb(?:\+\w+)*")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a slice is called, and what it has: sevenths of the processors, and gigabytes."""

    name: str
    sevenths: int
    gigabytes: int

    @property
    def whole_gb(self) -> float:
        """Memory of the card that such a slice is of."""
        return self.gigabytes / SHARES.get(self.sevenths, 1.0)


def profile(text: str) -> tuple[str, Profile] | None:
    """The card's name, "" where none is given, and the profile that a text names; None: none."""
    found = PROFILE.search(text.lower())
    if found is None:
        return None
    rest = text[: found.start()] + " " + text[found.end() :]
    named = re.sub(r"\bmig\b", " ", rest, flags=re.IGNORECASE).strip(" -:/_")
    return named, Profile(found[0], int(found[1]), int(found[2]))


USUAL = ("A100-40GB PCIe", "A100-80GB PCIe", "H100 NVL", "H200", "B200", "B300")
"""Cards that a profile is taken to be of where none is named; each has eighths of its memory."""
FOURTHS = ("A30", "RTX PRO 6000")
"""Those that are cut into fourths instead, of memory and processors."""


def parent(of: Profile) -> Card:
    """The usual card that has slices of this profile."""
    known = {one.name: one for one in CARDS}
    for name in FOURTHS:
        if 4 * of.gigabytes == of.sevenths * known[name].mig_gb:
            return known[name]
    usual = [known[name] for name in USUAL]
    return min(usual, key=lambda one: abs(one.mig_gb - of.whole_gb))


def fault(model: Card, of: Profile) -> str:
    """Why a card has no such slice, in words; "" where it may have."""
    if not model.mig_gb:
        able = ", ".join(dict.fromkeys(one.name for one in CARDS if one.mig_gb))
        return f"a {model.name} cannot be divided into slices (MIG); these can: {able}"
    if of.sevenths not in SHARES:
        return f"a slice has {', '.join(map(str, SHARES))} sevenths of a GPU, not {of.sevenths}"
    if not 0 < of.gigabytes <= model.mig_gb:
        return f"a {model.name} has {model.mig_gb} GB, and no slice of {of.gigabytes} GB"
    return ""


def sliced(whole: GPU, of: Profile, uuid: str = "") -> GPU:
    """A slice of a GPU; what others use of it is not known."""
    size = round(of.gigabytes * 1e9 * USABLE)
    share = min(1.0, of.sevenths / SEVENTHS)
    return replace(
        whole,
        name=f"{whole.name} MIG {of.name}",
        total_bytes=size,
        free_bytes=size,
        flops=whole.flops * share,
        float32_flops=whole.float32_flops * share,
        bandwidth_bytes_s=whole.bandwidth_bytes_s * min(1.0, size / whole.total_bytes),
        link="pcie",
        mig=True,
        uuid=uuid,
    )
