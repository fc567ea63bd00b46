"""Says why a text names no GPU that can be planned for, and what to write instead."""

from __future__ import annotations

import re

from holdfast.errors import UsageError
from holdfast.memory.hardware.card_names import alike, near
from holdfast.memory.hardware.how_many import NUMBER

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


def at(text: str) -> str:
    """Where a text stands, for messages."""
    return f"--gpus {text[:80]}"


def unknown(what: str, text: str) -> UsageError:
    """Why a name is not known here, and what to write instead."""
    lower = what.lower()
    for maker, names in ELSEWHERE.items():
        if re.fullmatch(names, lower):
            return UsageError(
                f"{what[:60]}: {WHY[maker]}",
                where=at(text),
                remedy="plan for the CPU: --gpus cpu",
            )
    if re.fullmatch(NUMBER, what):
        return UsageError(
            f"{what!r} is neither a size nor a card",
            where=at(text),
            remedy=f"a size has a unit ({what}GiB), a count a card ({what}x rtx4090); which of the "
            "GPUs here are used is said by CUDA_VISIBLE_DEVICES",
        )
    if re.fullmatch(r"cpu|gpu|auto|cuda(:\d+)?", lower):
        return UsageError(
            f"{what!r} is no GPU's name",
            where=at(text),
            remedy=f"--gpus cpu stands alone; leave --gpus out for what is here; {EXAMPLES}",
        )
    if lower in ("rocm", "hip"):
        return UsageError(
            f"{what!r} says only who makes it; memory and speed are the card's",
            where=at(text),
            remedy="name it: mi300x, mi250, rx 7900 xtx, w7900",
        )
    if others := alike(what):
        has = ", ".join(f"{one.gib:g} GiB" for one in others)
        return UsageError(
            f"no GPU is known as {what[:60]!r}; {others[0].name} has {has}",
            where=at(text),
            remedy=f"put another size before the name: 22GiB {others[0].name}; {EXAMPLES}",
        )
    if close := near(what):
        return UsageError(
            f"no GPU is known as {what[:60]!r}",
            where=at(text),
            remedy=f"did you mean {' or '.join(close)}? Otherwise give its memory: {EXAMPLES}",
        )
    return UsageError(f"no GPU is known as {what[:60]!r}", where=at(text), remedy=EXAMPLES)
