"""The sentences in which a plan is explained, in English and in Chinese."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Language = Literal["en", "zh"]

PARTS = ("weights", "adapters", "gradients", "optimiser", "activations", "logits", "workspace",
         "context", "fragmentation")  # fmt: skip

WORDS: Mapping[str, Mapping[Language, str]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
"""Each sentence by its key, in every language: `translations.json`."""
UNITS: Mapping[Language, tuple[str, str, str]] = {
    "en": ("s", "min", "h"), "zh": ("秒", "分钟", "小时"),
}  # fmt: skip
MINUTE, HOUR = 60, 3600


def say(language: Language, key: str, **values: object) -> str:
    """One sentence or word of `WORDS`."""
    return WORDS[key][language].format(**values)


def duration(seconds: float, language: Language) -> str:
    """A time in its largest fitting unit: `0.4 s`, `12 min`, `3.5 h`."""
    second, minute, hour = UNITS[language]
    if seconds < 2 * MINUTE:
        return f"{seconds:.2g} {second}" if seconds < 10 else f"{seconds:.0f} {second}"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} {minute}"
    return f"{seconds / HOUR:.1f} {hour}"
