"""The parser of GPUs as users write them: `2x24GiB`, `rtx4090,rtx3090`, `A100 80G*2`, `3g.40gb`.

Sizes in GB are 10^9 bytes, in GiB 2^30; a card's name stands for what CUDA reports of it, a little
less than the nameplate. A size before a name is what is meant of the card: `8GiB T4`,
`48GiB RTX 4090`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from holdfast.errors import UsageError
from holdfast.memory.hardware import mig
from holdfast.memory.hardware.card_names import (
    MARKS,
    NUMBER,
    alike,
    card,
    counted,
    near,
    plain,
)  # fmt: skip
from holdfast.memory.hardware.gpu_value import GIB, GPU, gpu, joined, like_size

__all__ = ["GIB", "GPU", "card", "gpu", "joined", "like_size", "parse", "plain"]

UNITS = {
    "tib": GIB << 10, "tb": 10**12, "gib": GIB, "gi": GIB, "gb": 10**9, "g": 10**9,
    "mib": 1 << 20, "mi": 1 << 20, "mb": 10**6,
}  # fmt: skip
"""Without `ti` and `m`: a 2080Ti is no number of them, and a 4090M a laptop's card."""
LEAST_BYTES, MOST_BYTES = GIB // 2, 1024 * GIB
MOST_GPUS = 64
SIZED = re.compile(rf"({NUMBER})\s*([a-z]+)\b[\s:_-]*(.*)", re.IGNORECASE | re.DOTALL)
BETWEEN = re.compile(r"[,;&\n]|(?<!max)\+(?!(?:me|gfx)\b)|\band\b", re.IGNORECASE)
SIGNS = str.maketrans("×✕✖╳*、；＋和与", "xxxxx,;+++")


EXAMPLES = "write for example 2x24GiB, or rtx4090, or 1x24GiB,1x12GiB"
ELSEWHERE = {
    "apple": r"mps|metal|apple\b.*|m[1-9]( ?(pro|max|ultra))?",
    "intel": r"xpu|arc\b.*|gaudi ?\d?|hpu|intel\b.*|(data center gpu )?max ?1[15]\d0",
    "google": r"tpu.*|v\d[ep]?-\d+",
    "china": r"npu|(huawei )?(ascend|昇腾).*|\d?910[a-d]?\d?|310p\d?|(寒武纪 ?)?mlu.*|寒武纪.*|"
    r"(摩尔线程 ?)?mtt.*|摩尔线程.*|沐曦.*|metax.*|海光.*|(hygon )?dcu.*|昆仑芯.*|天数.*|bi-?v\d+",
}
"""Names of what Holdfast cannot train on, by maker."""
WHY = {
    "apple": "Apple's GPUs (mps) are not driven; launcher, trace and bitsandbytes know CUDA",
    "intel": "Intel's GPUs are not driven; nothing here was written or tried for them",
    "google": "TPUs are not driven; torch reaches them through XLA, which nothing here uses",
    "china": "this accelerator is not driven; nothing here was written or tried for it",
}


def parse(text: str) -> tuple[GPU, ...]:
    """The GPUs that a text names, such as `2x24GiB`, `1x24GiB,1x12GiB`, `h200`, `4x a100-80gb`.

    Of a GPU given by its size, the speed is that of the typical card nearest in size.

    Raises:
        UsageError: an unknown name (the nearest ones are suggested), a count below 1, no size, or
            something that Holdfast cannot train on.
    """
    spelled = unicodedata.normalize("NFKC", text.translate(MARKS)).translate(SIGNS)
    if linked := re.search(r"nvlink|nvswitch|\bsli\b", spelled, re.IGNORECASE):
        raise UsageError(
            f"{linked[0]!r} says how GPUs are linked, which is not read",
            where=_at(text),
            remedy=f"leave it out: the card's data sheet says it; {EXAMPLES}",
        )
    found: list[GPU] = []
    for item in BETWEEN.split(spelled):
        count, what = counted(item.strip())
        if not what:
            raise UsageError(
                f"{item.strip()[:60]!r} names no GPU" if item.strip() else "a GPU is missing",
                where=_at(text),
                remedy=f"say of what: 8x rtx4090, 8x24GiB; {EXAMPLES}",
            )
        if not count.isdigit() or len(count) > 6 or int(count) < 1:
            raise UsageError(f"{count[:12]} GPUs cannot be used", where=_at(text), remedy=EXAMPLES)
        if len(found) + int(count) > MOST_GPUS:
            raise UsageError(
                f"more than {MOST_GPUS} GPUs; a plan is for one machine",
                where=_at(text),
                remedy=EXAMPLES,
            )
        made = _named(what, text)
        found += [replace(made, index=len(found) + n) for n in range(int(count))]
    if len({(of := card(one.like)) is not None and of.amd for one in found if one.known}) > 1:
        raise UsageError(
            "torch drives GPUs of NVIDIA or of AMD, and not both at once",
            where=_at(text),
            remedy=f"name those of one maker; {EXAMPLES}",
        )
    return joined(found)


def _named(what: str, text: str) -> GPU:
    """One GPU: a slice, a card, a size, or a size of a card."""
    if slice_of := mig.profile(what):
        return _slice(*slice_of, text)
    if found := card(what):
        return gpu(found, 0)
    size = SIZED.fullmatch(what)
    if size and size[2].lower() in UNITS:
        total = round(min(float(size[1][:32]) * UNITS[size[2].lower()], 1e30))
        if not LEAST_BYTES <= total <= MOST_BYTES:
            raise UsageError(
                f"a GPU of {what[:60]} cannot be used",
                where=_at(text),
                remedy=f"a GPU has between 0.5 and 1024 GiB; {EXAMPLES}",
            )
        if not size[3]:
            return gpu(like_size(total), 0, name=what, total_bytes=total, known=False,
                       capability=8.0)  # fmt: skip
        if found := card(size[3]) or next(iter(alike(size[3])), None):
            return gpu(found, 0, name=f"{found.name} ({size[1]}{size[2]})", total_bytes=total)
        what = size[3]
    raise _unknown(what, text)


def _slice(named: str, of: mig.Profile, text: str) -> GPU:
    """A MIG slice, of the usual card of its size where none is named."""
    model = card(f"{named} {round(of.whole_gb)}gb") or card(named) if named else mig.parent(of)
    if model is None:
        raise _unknown(named, text)
    if why := mig.fault(model, of):
        raise UsageError(
            why, where=_at(text), remedy="write for example a100-80gb 3g.40gb, or 2x1g.10gb"
        )
    return mig.sliced(gpu(model, 0), of)


def _at(text: str) -> str:
    """Where a text stands, for messages."""
    return f"--gpus {text[:80]}"


def _unknown(what: str, text: str) -> UsageError:
    """Why a name is not known here, and what to write instead."""
    lower = what.lower()
    for maker, names in ELSEWHERE.items():
        if re.fullmatch(names, lower):
            return UsageError(
                f"{what[:60]}: {WHY[maker]}",
                where=_at(text),
                remedy="plan for the CPU: --gpus cpu",
            )
    if re.fullmatch(NUMBER, what):
        return UsageError(
            f"{what!r} is neither a size nor a card",
            where=_at(text),
            remedy=f"a size has a unit ({what}GiB), a count a card ({what}x rtx4090); which of the "
            "GPUs here are used is said by CUDA_VISIBLE_DEVICES",
        )
    if re.fullmatch(r"cpu|gpu|auto|cuda(:\d+)?", lower):
        return UsageError(
            f"{what!r} is no GPU's name",
            where=_at(text),
            remedy=f"--gpus cpu stands alone; leave --gpus out for what is here; {EXAMPLES}",
        )
    if lower in ("rocm", "hip"):
        return UsageError(
            f"{what!r} says only who makes it; memory and speed are the card's",
            where=_at(text),
            remedy="name it: mi300x, mi250, rx 7900 xtx, w7900",
        )
    if others := alike(what):
        has = ", ".join(f"{one.gib:g} GiB" for one in others)
        return UsageError(
            f"no GPU is known as {what[:60]!r}; {others[0].name} has {has}",
            where=_at(text),
            remedy=f"put another size before the name: 22GiB {others[0].name}; {EXAMPLES}",
        )
    if close := near(what):
        return UsageError(
            f"no GPU is known as {what[:60]!r}",
            where=_at(text),
            remedy=f"did you mean {' or '.join(close)}? Otherwise give its memory: {EXAMPLES}",
        )
    return UsageError(f"no GPU is known as {what[:60]!r}", where=_at(text), remedy=EXAMPLES)
