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
SEVENTHS, FOURTH = 7, 4
SHARES = {1: 1 / 8, 2: 2 / 8, 3: 4 / 8, 4: 4 / 8, 7: 1.0}
"""Of the whole memory, by sevenths of the processors; an A30 has fourths of both."""
TWICE = 1
"""One seventh also comes with twice its memory: `1g.20gb`."""
NEAR_GB = 1.1
"""How much a profile's rounded gigabytes may differ from its share, and a little over."""
PROFILE = re.compile(r"(?<!\w)(?:(\d+)c\.)?(\d+)g\.(\d+)gb(?:[+-](?:me|gfx)(?:\.all)?)*(?!\w)")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a slice is called, and what it has.

    Attributes:
        name: as NVIDIA writes it.
        sevenths: of the processors.
        gigabytes: of memory, as the name counts them.
        computes: sevenths that this process has of the slice (`1c.3g.20gb`); 0: all of it.
    """

    name: str
    sevenths: int
    gigabytes: int
    computes: int = 0

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
    return named, Profile(found[0], int(found[2]), int(found[3]), int(found[1] or 0))


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
        able = ", ".join(dict.fromkeys(_chip(one) for one in CARDS if one.mig_gb))
        return f"{model.name} cannot be divided into slices (MIG); these can: {able}"
    fourths = model.name.startswith(FOURTHS)
    shares = {1: 1 / 4, 2: 2 / 4, 4: 1.0} if fourths else SHARES
    parts = "fourths" if fourths else "sevenths"
    if of.sevenths not in shares:
        return f"a slice has {', '.join(map(str, shares))} {parts} of a GPU, not {of.sevenths}"
    if not 0 <= of.computes <= of.sevenths:
        return f"a slice of {of.sevenths} {parts} has no {of.computes} of them"
    if not 0 < of.gigabytes <= model.mig_gb:
        return f"{model.name} has {model.mig_gb} GB, and no slice of {of.gigabytes} GB"
    sizes = [shares[of.sevenths] * model.mig_gb]
    sizes += [2 * sizes[0]] * (of.sevenths == TWICE and not fourths)
    if not any(abs(of.gigabytes - one) <= max(NEAR_GB, 0.1 * one) for one in sizes):
        have = " or ".join(f"{one:.0f}" for one in sizes)
        return f"a slice of {of.sevenths} {parts} of {model.name} has {have} GB, not {of.gigabytes}"
    return ""


def _chip(of: Card) -> str:
    """A card's name without its size and board: `A100` of `A100-80GB PCIe`."""
    return re.split(r"-\d| (?:PCIe|SXM|NVL|Max-Q|Server|\d+GB)", of.name)[0]


def sliced(whole: GPU, of: Profile, uuid: str = "") -> GPU:
    """A slice of a GPU; what others use of it is not known."""
    size = round(of.gigabytes * 1e9 * USABLE)
    parts = FOURTH if whole.like.startswith(FOURTHS) else SEVENTHS
    share = min(1.0, (of.computes or of.sevenths) / parts)
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
