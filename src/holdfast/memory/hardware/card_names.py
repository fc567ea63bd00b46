"""Finds the card that a name means, and how many, as people, clouds and drivers write it.

A size behind the name is part of it: `A100 80G` and `A100-PCIE-40GB` are two cards. A size that no
card of the name has is another card, and is not taken for it. Where several cards have one name
(`RTX 4060 Ti`), the smallest or most usual is meant, which the catalogue lists first.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator
from functools import cache

from holdfast.memory.hardware.gpu_catalogue import CARDS, Card

MAKERS = re.compile(r"nvidia|geforce|tesla|quadro|amd|radeon|instinct|rtx|gtx|\brx(?=[\s\d_-])")
"""Words that say who makes a card, or what for; its number says enough."""
FILLERS = re.compile(r"\b(generation|gpus?|graphics|cards?|edition|founders|desktop)\b")
MARKS = str.maketrans("", "", "™®©")
"""Signs of trade marks, which normalising would make letters of."""
ALSO = (
    (re.compile(r"\((tm|r|c)\)"), ""),
    (re.compile(r"\b(\d{4})( ?ti)?m\b"), r"\1\2 laptop"),
    (re.compile(r"\b(mobile|notebook)\b|(?<!6000 )(?<!edition )\bmax-?q\b"), "laptop"),
    (re.compile(r"(?<!\d)(\d{4})( ?ti)?s(?=$|[\s_-])"), r"\1\2 super"),
)
"""Other ways of saying it: `4090M` and `4090 Mobile` are a laptop's, `4070TiS` is a SUPER."""
SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)\s*gi?b?(?![a-z0-9])")
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
LEAST, MOST = 0.88, 1.02
"""What CUDA reports of a card whose nameplate has 1, in GiB per GB as people write them."""


def plain(name: str) -> str:
    """A card's name without maker, case, spaces and signs: `NVIDIA GeForce RTX 4090` is `4090`."""
    return re.sub(r"[\W_]", "", MAKERS.sub(" ", FILLERS.sub(" ", _lower(name))))


def card(name: str) -> Card | None:
    """The known card of this name, as people or drivers write it; None: unknown."""
    if found := _whole().get(plain(name)):
        return found
    sizes = SIZE.findall(_lower(name))
    named = alike(name)
    if not sizes:
        return next(iter(named), None)
    size = float(sizes[0])
    own = (one for one in named if size and LEAST < one.gib / size < MOST)
    return next(own, None) if len(sizes) == 1 else None


def alike(name: str) -> tuple[Card, ...]:
    """The cards that bear this name, whatever size it says."""
    return _bare().get(_without_size(name), ())


def near(name: str) -> list[str]:
    """Up to three cards whose names look like this one."""
    names = {spelling: one.name for spelling, one in _whole().items()}
    close = difflib.get_close_matches(plain(name), names, n=12, cutoff=0.6)
    begin = plain(name)[:1]  # a 4095 is no P40
    close.sort(key=lambda one: one[:1] != begin)
    return list(dict.fromkeys(names[one] for one in close))[:3]


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


def _lower(name: str) -> str:
    said = unicodedata.normalize("NFKC", name.translate(MARKS)).strip().lower()
    for way, plainly in ALSO:
        said = way.sub(plainly, said)
    return said


def _without_size(name: str) -> str:
    return plain(SIZE.sub(" ", _lower(name)))


def _spellings() -> Iterator[tuple[str, Card]]:
    for one in CARDS:
        for name in (one.name, *one.also):
            yield name, one


@cache
def _whole() -> dict[str, Card]:
    """Cards by their plain names."""
    return {plain(name): one for name, one in _spellings()}


@cache
def _bare() -> dict[str, tuple[Card, ...]]:
    """Cards by their plain names without sizes."""
    found: dict[str, list[Card]] = {}
    for name, one in _spellings():
        held = found.setdefault(_without_size(name), [])
        if one not in held:
            held.append(one)
    return {name: tuple(cards) for name, cards in found.items()}
