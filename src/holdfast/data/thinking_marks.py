"""The marks between which models think: by family, and in chat templates.

A table, and what can be read off it without looking into a reply; `holdfast.data.thinking` takes
replies apart by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

SWITCHES: Final = ("enable_thinking", "thinking")
"""Variables by which templates have a model think, or not."""

TAGS: Final = "think|thinking|thoughts?|reasoning|seed:think"
PAIRS: Final = {
    "[THINK]": ("[/THINK]",),  # Magistral
    "◁think▷": ("◁/think▷",),  # Kimi
    "<|begin_of_thought|>": ("<|end_of_thought|>", "<|begin_of_solution|>"),  # Sky-T1, OpenThinker
    "<|channel>thought": ("<channel|>",),  # Gemma 4
    "<unused94>thought": ("<unused95>",),  # MedGemma
    "<|START_THINKING|>": ("<|END_THINKING|>", "<|START_RESPONSE|>"),  # Command A Reasoning
    "<|inner_prefix|>": ("<|inner_suffix|>",),  # Apertus
}
"""What opens a thought, and what ends it; beside these, tags such as ``<think>``."""
HARMONY: Final = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>")
"""Of gpt-oss: every message says its channel; `final` is the answer."""


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words))


OPENING: Final = re.compile(rf"<(?:{TAGS})>|(?-i:{_any(PAIRS)})", re.IGNORECASE)
CLOSINGS: Final = [one for ends in PAIRS.values() for one in ends]
CLOSING: Final = re.compile(rf"</(?:{TAGS})>|(?-i:{_any(CLOSINGS)})", re.IGNORECASE)
MARKER: Final = re.compile(f"{OPENING.pattern}|{CLOSING.pattern}", re.IGNORECASE)
LEAD: Final = re.compile(
    r"[\s\ufeff\u200b]+|(?:<s>|<bos>|<start_of_turn>|<[|｜][^<>|｜\s]{1,40}[|｜]>)(?:assistant|model)?"
)
"""What may stand before a thought: space, and tokens that open a turn."""
WRAPS: Final = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|START_TEXT|>", "<|END_TEXT|>"),
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
)
"""What some models put around the answer that follows a thought."""
MESSAGE: Final = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?"
    r"(?:<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)|\Z)",
    re.DOTALL,
)
FINAL: Final = re.compile(
    r"(?:<\|end\|>)?(?:<\|start\|>)?(?:assistant)?<\|channel\|>\s*final\s*<\|message\|>"
)
BARE_HARMONY: Final = re.compile(r"analysis(?=\S)(.*?)assistantfinal(.*)", re.DOTALL)
"""The same where the special tokens were left out of the text."""
GRANITE: Final = re.compile(
    r"\s*Here(?: is|'s) my thought process:(.*?)Here(?: is|'s) my response:(.*)", re.DOTALL
)
SPOKEN_OF: Final = re.compile(
    r"[ \t]+(?:tags?|tokens?|markers?|elements?|delimiters?|is|are|and|or)\b"
)
"""A marker before such words is what the sentence is about."""
NEEDED: Final = re.compile(
    r"</?(?:thin|thou|reas|seed:|channel\||unused9|\|)|\[/?THINK|◁|\A\s*(?:analysis\S|Here)",
    re.IGNORECASE,
)
"""Without one of these there is no thought."""


def opened(prompt: str) -> str:
    """The opening of a thought that a prompt ends with, with the space behind it; "" for none."""
    end = prompt.rstrip()
    places = [match.start() for match in OPENING.finditer(end) if match.end() == len(end)]
    harmony = "<|channel|>analysis<|message|>"
    if end.endswith(harmony):
        places.append(len(end) - len(harmony))
    return prompt[places[-1] :] if places else ""


def closing_of(opening: str) -> str:
    """The mark that ends the thought which one opens; "" for ""."""
    if opening.startswith("<|channel|>"):
        return "<|end|><|start|>assistant<|channel|>final<|message|>"
    return PAIRS.get(opening, (opening.replace("<", "</", 1),))[0]


def marking_tokens(special: Iterable[str]) -> set[str]:
    """Of a tokenizer's special tokens, those without which a thought could not be told.

    Args:
        special: their texts, which a decoder leaves out.
    """
    known = set(special)
    wraps = {one for pair in WRAPS for one in pair}
    openings = {one.removesuffix("thought") for one in PAIRS}
    tags = {one for one in known if OPENING.fullmatch(one) or CLOSING.fullmatch(one)}
    harmony = {*HARMONY, "<|constrain|>"} if "<|channel|>" in known else set()
    return known & (tags | openings | wraps | harmony)


def speaks_of_thinking(template: str) -> bool:
    """Whether a chat template knows of thoughts at all."""
    return bool(MARKER.search(template)) or "<|channel|>analysis" in template


def expected(template: str, prompt: str, wanted: bool | None) -> bool:
    """Whether a model whose template speaks of thinking will think.

    Args:
        template: the chat template.
        prompt: what it made of a question; it may open the thinking, or close it at once.
        wanted: what the study says.
    """
    end = prompt.rstrip()
    if any(one.end() == len(end) for one in CLOSING.finditer(end)):
        return False
    if opened(prompt) or wanted is not None:
        return bool(opened(prompt) or wanted)
    return not any(name in template for name in SWITCHES)
