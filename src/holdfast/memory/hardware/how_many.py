"""Reads how many GPUs a text names, and of what: `2x4090`, `4090*2`, `两张4090`, `a100:8`."""

from __future__ import annotations

import re

from holdfast.memory.hardware.card_names import card

NUMBER = r"[-+]?\d+(?:\.\d+)?"
BEFORE = re.compile(rf"({NUMBER})\s*x\s*(.*)", re.IGNORECASE | re.DOTALL)
BEHIND = re.compile(
    rf"(.+?)\s*(?<![rg]t)(?<!\br)(?<!\bma)[x:]\s*({NUMBER})", re.IGNORECASE | re.DOTALL
)
"""The x of `rtx 4090`, `rx 7900` and `max 395` counts nothing; the colon is Slurm's (`a100:8`)."""
NUMERALS = {
    "单": 1, "一": 1, "双": 2, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7,
    "八": 8, "九": 9, "十": 10, "十六": 16,
}  # fmt: skip
MEASURES = "[张块卡个台枚路]"
"""Words that stand between a number and a thing in Chinese: `两张4090`."""
NUMERAL = re.compile(rf"(十六|[单双一二两三四五六七八九十])\s*(?={MEASURES})")
COUNTED = re.compile(r"(\d{1,2})\s+(?!(?:[tgm]i?b?)\b)(\S.*)", re.IGNORECASE | re.DOTALL)


def counted(item: str) -> tuple[str, str]:
    """How many, and of what: `2x4090`, `4090 x2`, `2 4090`, `两张4090`, `a100:8`, `4090`."""
    item = NUMERAL.sub(lambda found: f" {NUMERALS[found[1]]}", item).strip()
    if found := re.fullmatch(rf"(.+?)\s+(\d+)\s*{MEASURES}+", item):  # `4090 两张`
        item = f"{found[2]}x{found[1]}"
    item = re.sub(rf"(?<=\d)\s*{MEASURES}+\s*", "x", item)
    item = re.sub(r"^gpu:(?=\w)", "", item, flags=re.IGNORECASE)  # as Slurm's `--gres` begins
    behind, before = BEHIND.fullmatch(item), BEFORE.fullmatch(item)
    if card(item):  # `7900 xtx` counts nothing
        return "1", item
    colon = behind and not re.search(rf"x\s*{NUMBER}$", item, re.IGNORECASE)
    if behind and ((before is None and not colon) or card(behind[1])):  # `4090x2` has two numbers
        return behind[2], behind[1].strip()
    if before:
        return before[1], before[2].strip()
    if several := COUNTED.fullmatch(item):
        return several[1], several[2]
    return "1", item
